"""The packaged verifier's network, to be trained and exported: all-MiniLM-L6-v2 as a cross-encoder.

Both texts are read together, `[CLS] a [SEP] b [SEP]`, so every word of one is compared with every word of the other. The head reads
the first place and the mean of all. The word embeddings are those of the packaged sentence encoder, unchanged, and looked up outside
the network (`reader.py`): only the six layers, the head and the embeddings of places are in the file, 10.9 million parameters in
float16 (22 MB).
"""

import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from cache.embedders.sources import PACKAGED, locate
from cache.verifiers.packaged import NETWORK, SETTINGS
from cache.verifiers.reader import MASK, MAX_TOKENS, SEGMENTS, WORDS

FROZEN = "encoder.embeddings."
_LARGE = 1000
"""Tensors of more numbers are written in float16: of the others it would save nothing."""


class PairNetwork(nn.Module):  # type: ignore[misc]  # torch has no types here
    """The encoder with a fresh head of one output, in float32."""

    def __init__(self) -> None:
        from transformers import BertModel

        super().__init__()
        self.encoder = BertModel.from_pretrained(locate(PACKAGED), add_pooling_layer=False, local_files_only=True)
        width = self.encoder.config.hidden_size
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(2 * width, 1)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, words: Any, mask: Any, segments: Any) -> Any:
        """As `Reader.batch` gives them; logits of shape (pairs,)."""
        hidden = self.encoder(inputs_embeds=words, attention_mask=mask, token_type_ids=segments).last_hidden_state
        read = mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * read).sum(1) / read.sum(1)
        return self.head(self.dropout(torch.cat([hidden[:, 0], mean], dim=-1))).squeeze(-1).float()


def save(network: nn.Module, settings: dict[str, Any], directory: Path) -> None:
    """Writes the network for inference, and the settings."""
    directory.mkdir(parents=True, exist_ok=True)
    export(network, directory / NETWORK)
    (directory / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n")


def export(network: nn.Module, path: Path) -> None:
    """Writes the network for inference as an ONNX model whose large tensors are in float16; it computes in float32."""
    width = network.encoder.config.hidden_size
    example = torch.zeros(2, 3, width), torch.ones(2, 3, dtype=torch.int64), torch.zeros(2, 3, dtype=torch.int64)
    pairs, tokens = torch.export.Dim("pairs", min=1), torch.export.Dim("tokens", min=2, max=MAX_TOKENS)
    was_training = network.training
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own code
        program = torch.onnx.export(
            network.eval(),
            example,
            dynamo=True,
            input_names=[WORDS, MASK, SEGMENTS],
            output_names=["logits"],
            dynamic_shapes=({0: pairs, 1: tokens},) * 3,
            verbose=False,
        )
        whole = Path(directory) / NETWORK
        program.save(str(whole))
        onnx.save(_halved(onnx.load(whole)), path)
    network.train(was_training)


def _halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """Each large tensor in float16, and a node that makes it float32, which is done once when the model is loaded."""
    graph, casts = model.graph, []
    for place, tensor in enumerate(graph.initializer):
        if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) > _LARGE:
            half = f"{tensor.name}.half"
            casts.append(helper.make_node("Cast", [half], [tensor.name], to=TensorProto.FLOAT))
            graph.initializer[place].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), half))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model
