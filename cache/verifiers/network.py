"""The packaged verifier's network: all-MiniLM-L6-v2 as a cross-encoder.

Both texts are read together, `[CLS] a [SEP] b [SEP]`, so every word of one is compared with every word of the other. The head reads
the first place and the mean of all. The word embeddings are those of the packaged sentence encoder, unchanged, and only the six layers
and the head are kept here: 10.7 million parameters in float16 (21 MB).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cache.embedders.sources import PACKAGED, locate

MODEL = Path(__file__).parent / "model"
WEIGHTS = "layers.safetensors"
SETTINGS = "verifier.json"
MAX_TOKENS = 128
"""Of a pair, special tokens included. Longer pairs are not judged: nothing was learnt on them, and they would take too long."""
FROZEN = "encoder.embeddings."


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

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        """Token ids, mask and segments of shape (pairs, tokens); logits of shape (pairs,)."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        return self.head(self.dropout(torch.cat([hidden[:, 0], mean], dim=-1))).squeeze(-1).float()


def tokenizer() -> Any:
    from transformers import BertTokenizerFast

    return BertTokenizerFast.from_pretrained(locate(PACKAGED), local_files_only=True)


def save(network: nn.Module, settings: dict[str, Any], directory: Path) -> None:
    """Writes the learnt tensors in float16, and the settings."""
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    learnt = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items() if not name.startswith(FROZEN)}
    save_file(learnt, str(directory / WEIGHTS))
    (directory / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n")


def load(directory: Path = MODEL) -> tuple[PairNetwork, dict[str, Any]]:
    """The network as `save` wrote it, for inference, and its settings."""
    from safetensors.torch import load_file
    from transformers.utils import logging

    logging.disable_progress_bar()
    network = PairNetwork()
    learnt = {name: tensor.float() for name, tensor in load_file(str(directory / WEIGHTS)).items()}
    missing, unexpected = network.load_state_dict(learnt, strict=False)
    if unexpected or any(not name.startswith(FROZEN) for name in missing):
        raise ValueError(f"{WEIGHTS} does not fit the network")
    return network.eval(), json.loads((directory / SETTINGS).read_text())


def encode(tokens: Any, first: Sequence[str], second: Sequence[str], max_tokens: int | None = None) -> Any:
    """Token ids of each pair, cut at `max_tokens` if given."""
    return tokens(list(first), list(second), truncation=max_tokens is not None, max_length=max_tokens, verbose=False)


def batch(encoded: Any, rows: Sequence[int]) -> dict[str, Any]:
    """These rows as padded tensors."""
    width = max(len(encoded["input_ids"][row]) for row in rows)

    def padded(name: str) -> Any:
        return torch.tensor([encoded[name][row] + [0] * (width - len(encoded[name][row])) for row in rows])

    return {name: padded(name) for name in ("input_ids", "attention_mask", "token_type_ids")}
