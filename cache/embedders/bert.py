"""A BERT sentence encoder in PyTorch alone.

The encoder of most sentence-transformers models is a plain BERT with mean pooling. Running it needs a page of code;
importing sentence-transformers (with transformers, scikit-learn, pandas) takes three times the seconds and twice the memory.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn import functional

from cache.entry import Vectors

BATCH = 32
Tensor = Any
"""torch.Tensor, which has no types here."""


@dataclass(frozen=True, slots=True)
class BertConfig:
    """What the encoder needs from the model's configuration files."""

    layers: int
    heads: int
    epsilon: float
    max_tokens: int
    """Longer texts are cut, special tokens included."""
    pooling: Literal["mean", "cls"]


def read_config(directory: Path) -> BertConfig | None:
    """The model's configuration, or None if it is anything but a BERT that this file computes exactly."""
    needed = ["config.json", "modules.json", "model.safetensors", "tokenizer.json", "1_Pooling/config.json", "sentence_bert_config.json"]
    if not all((directory / name).is_file() for name in needed):
        return None
    bert, sentence = _read(directory / "config.json"), _read(directory / "sentence_bert_config.json")
    pooling = _pooling(_read(directory / "1_Pooling/config.json"))
    if pooling is None or not (_is_plain_bert(bert) and _is_plain_pipeline(directory, sentence)):
        return None
    max_tokens = min(sentence.get("max_seq_length") or bert["max_position_embeddings"], bert["max_position_embeddings"])
    return BertConfig(bert["num_hidden_layers"], bert["num_attention_heads"], bert["layer_norm_eps"], max_tokens, pooling)


class BertEncoder:
    """Texts to vectors, not normalised. Runs on the GPU if there is one. Thread-safe."""

    def __init__(self, directory: Path, config: BertConfig) -> None:
        self._config = config
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        weights = load_file(directory / "model.safetensors")
        self._weights = {name.removeprefix("bert."): weight.to(self._device, torch.float32) for name, weight in weights.items()}
        self._counter = _tokenizer(directory)
        self._tokenizer = _tokenizer(directory)
        self._tokenizer.enable_truncation(config.max_tokens)

    @property
    def dimension(self) -> int:
        return int(self._weights["embeddings.word_embeddings.weight"].shape[1])

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(encoding.ids) for encoding in self._counter.encode_batch(list(texts), add_special_tokens=False)]

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Shape (len(texts), dimension), float32."""
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        by_length = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))  # little padding in each batch
        vectors = np.empty((len(tokens), self.dimension), np.float32)
        for start in range(0, len(tokens), BATCH):
            batch = by_length[start : start + BATCH]
            vectors[batch] = self._encode_batch([tokens[i] for i in batch])
        return vectors

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _encode_batch(self, tokens: list[list[int]]) -> Vectors:
        longest = max(map(len, tokens))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in tokens], device=self._device)
        mask = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in tokens], device=self._device)
        hidden = self._hidden_states(ids, mask[:, None, None, :])
        pooled = hidden[:, 0] if self._config.pooling == "cls" else _mean(hidden, mask)
        vectors: Vectors = pooled.cpu().numpy()
        return vectors

    def _hidden_states(self, ids: Tensor, attend: Tensor) -> Tensor:
        """The last layer's output, shape (texts, tokens, dimension)."""
        words, positions, types = (self._weights[f"embeddings.{kind}_embeddings.weight"] for kind in ("word", "position", "token_type"))
        hidden = self._norm(words[ids] + positions[: ids.shape[1]] + types[0], "embeddings.LayerNorm")
        for layer in range(self._config.layers):
            hidden = self._layer(hidden, attend, f"encoder.layer.{layer}")
        return hidden

    def _layer(self, hidden: Tensor, attend: Tensor, layer: str) -> Tensor:
        query, key, value = (self._heads(self._linear(hidden, f"{layer}.attention.self.{part}")) for part in ("query", "key", "value"))
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=attend).transpose(1, 2).flatten(2)
        hidden = self._norm(hidden + self._linear(attended, f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm")
        inner = functional.gelu(self._linear(hidden, f"{layer}.intermediate.dense"))
        return self._norm(hidden + self._linear(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")

    def _heads(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self._config.heads, -1)).transpose(1, 2)

    def _linear(self, states: Tensor, name: str) -> Tensor:
        return functional.linear(states, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, states: Tensor, name: str) -> Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return functional.layer_norm(states, weight.shape, weight, bias, self._config.epsilon)


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean over a text's own tokens."""
    own = mask[:, :, None].to(hidden.dtype)
    return (hidden * own).sum(1) / own.sum(1)


def _tokenizer(directory: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_padding()  # the file says otherwise: it pads and cuts to 128 tokens
    tokenizer.no_truncation()
    return tokenizer


def _is_plain_bert(config: dict[str, Any]) -> bool:
    absolute = config.get("position_embedding_type", "absolute") == "absolute"
    return config.get("model_type") == "bert" and config.get("hidden_act") == "gelu" and absolute


def _is_plain_pipeline(directory: Path, sentence: dict[str, Any]) -> bool:
    """Transformer, pooling, perhaps normalisation: nothing after it, no lower-casing or prompt before it."""
    modules = [module["type"].rsplit(".", 1)[-1] for module in _read(directory / "modules.json")]
    settings = directory / "config_sentence_transformers.json"
    has_prompt = settings.is_file() and bool(_read(settings).get("default_prompt_name"))
    known = set(sentence) <= {"max_seq_length", "do_lower_case"} and not sentence.get("do_lower_case")
    return modules[:2] == ["Transformer", "Pooling"] and modules[2:] in ([], ["Normalize"]) and known and not has_prompt


def _pooling(config: dict[str, Any]) -> Literal["mean", "cls"] | None:
    chosen = [name for name, value in config.items() if name.startswith("pooling_mode_") and value is True]
    if chosen == ["pooling_mode_mean_tokens"]:
        return "mean"
    return "cls" if chosen == ["pooling_mode_cls_token"] else None


def _read(path: Path) -> Any:
    return json.loads(path.read_text())
