"""A BERT encoder's weights as CTranslate2 reads them.

Written from the weights when they are loaded, so any checkpoint of this architecture will do. CTranslate2's own converters import PyTorch,
which takes longer than all else in a start. Format: `ctranslate2.specs.model_spec.ModelSpec`, `transformer_spec.TransformerEncoderSpec`.
"""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Weights = Mapping[str, NDArray[Any]]
"""By the names that `transformers.BertModel` gives them, in any float type."""

WORDS, POSITIONS, TOKEN_TYPES = (f"embeddings.{name}_embeddings.weight" for name in ("word", "position", "token_type"))
_VERSION, _SPEC, _REVISION = 6, "TransformerEncoderSpec", 1
_TYPES = {np.dtype(kind): number for number, kind in enumerate((np.float32, np.int8, np.int16))}
_GELU, _ADD = 3, 1


@dataclass(frozen=True, slots=True)
class Shape:
    layers: int
    heads: int
    epsilon: float
    """Of layer normalization."""


def write_model(weights: Weights, shape: Shape, directory: Path) -> None:
    """The vocabulary has as many words as the model; texts come to it as numbers.

    Raises `KeyError` and `ValueError` for weights that do not fit together: CTranslate2 would read what lies behind them in memory.
    """
    words = [str(number) for number in range(len(weights[WORDS]))]
    settings = {"layer_norm_epsilon": shape.epsilon, "unk_token": words[0], "bos_token": words[0], "eos_token": words[0]}
    (directory / "config.json").write_text(json.dumps(settings))
    (directory / "vocabulary.json").write_text(json.dumps(words))
    with (directory / "model.bin").open("wb") as file:
        _write(dict(_variables(weights, shape)), file)


def _variables(weights: Weights, shape: Shape) -> Iterator[tuple[str, NDArray[Any]]]:
    width = weights[WORDS].shape[-1]
    if shape.layers < 1 or shape.heads < 1 or width % shape.heads:
        raise ValueError(f"{shape.layers} layers, {shape.heads} heads and a width of {width} make no model")
    yield "encoder/num_heads", np.array(shape.heads, np.int16)
    numbers = {"activation": _GELU, "embeddings_merge": _ADD, "pre_norm": 0, "scale_embeddings": 0, "multi_query_attention": 0}
    for name, number in numbers.items():
        yield f"encoder/{name}", np.array(number, np.int8)
    tables = {"embeddings_0/weight": WORDS, "embeddings_1/weight": TOKEN_TYPES, "position_encodings/encodings": POSITIONS}
    for name, source in tables.items():
        yield f"encoder/{name}", _read(weights, source, len(weights[source]), width)
    yield from _norm("encoder/layernorm_embedding", weights, "embeddings.LayerNorm", width)
    for number in range(shape.layers):
        yield from _layer(f"encoder/layer_{number}", weights, f"encoder.layer.{number}.", width)


def _layer(name: str, weights: Weights, source: str, width: int) -> Iterator[tuple[str, NDArray[Any]]]:
    inner = len(weights[f"{source}intermediate.dense.bias"])
    attention = [f"{source}attention.self.{part}" for part in ("query", "key", "value")]
    yield from _dense(f"{name}/self_attention/linear_0", weights, attention, width, width)
    yield from _dense(f"{name}/self_attention/linear_1", weights, [f"{source}attention.output.dense"], width, width)
    yield from _norm(f"{name}/self_attention/layer_norm", weights, f"{source}attention.output.LayerNorm", width)
    yield from _dense(f"{name}/ffn/linear_0", weights, [f"{source}intermediate.dense"], inner, width)
    yield from _dense(f"{name}/ffn/linear_1", weights, [f"{source}output.dense"], width, inner)
    yield from _norm(f"{name}/ffn/layer_norm", weights, f"{source}output.LayerNorm", width)


def _dense(name: str, weights: Weights, sources: Sequence[str], outputs: int, inputs: int) -> Iterator[tuple[str, NDArray[Any]]]:
    """Layers that read the same, as one."""
    yield f"{name}/weight", np.concatenate([_read(weights, f"{source}.weight", outputs, inputs) for source in sources])
    yield f"{name}/bias", np.concatenate([_read(weights, f"{source}.bias", outputs) for source in sources])


def _norm(name: str, weights: Weights, source: str, width: int) -> Iterator[tuple[str, NDArray[Any]]]:
    yield f"{name}/gamma", _read(weights, f"{source}.weight", width)
    yield f"{name}/beta", _read(weights, f"{source}.bias", width)


def _read(weights: Weights, name: str, *shape: int) -> NDArray[Any]:
    values = weights[name]
    if values.shape != shape:
        raise ValueError(f"{name} has the shape {values.shape}, not {shape}")
    return values


def _write(variables: Mapping[str, NDArray[Any]], file: BinaryIO) -> None:
    file.write(struct.pack("<I", _VERSION) + _string(_SPEC) + struct.pack("<II", _REVISION, len(variables)))
    for name, values in variables.items():
        data = np.ascontiguousarray(values, values.dtype if values.dtype in _TYPES else np.float32)
        file.write(_string(name) + struct.pack(f"<B{values.ndim}I", values.ndim, *values.shape))
        file.write(struct.pack("<BI", _TYPES[data.dtype], data.nbytes) + data.tobytes())
    file.write(struct.pack("<I", 0))  # no aliases


def _string(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"
