"""A BERT encoder's graph, in the operators that ONNX Runtime has fused for it.

Written from the weights when they are loaded, so no converter is needed and any checkpoint of this architecture will do. Word, place and
segment embeddings are looked up outside: the graph begins with their sum.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cache.bert.precision import Precision

Weights = Mapping[str, NDArray[Any]]
"""By the names that `transformers.BertModel` gives them, in any float type."""

WORDS, MASK, HIDDEN = "words", "mask", "hidden"
BLOCK = 128
"""Weights that share a scale. In blocks of 32 the error is half as large, and the time a third longer."""
_FUSED = "com.microsoft"
_OPSET, _IR = 18, 10
_INT8_ACCURACY = 4
"""MatMulNBits' level at which activations are quantized to int8, too."""


@dataclass(frozen=True, slots=True)
class Shape:
    layers: int
    heads: int
    epsilon: float
    """Of layer normalization."""


def build(weights: Weights, shape: Shape, precision: Precision) -> bytes:
    """A model for ONNX Runtime. Inputs `WORDS`, float32 (texts, tokens, width), and `MASK`, int32 (texts, tokens); output `HIDDEN`."""
    model: bytes = _Graph(weights, shape, precision).model().SerializeToString()
    return model


class _Graph:
    def __init__(self, weights: Weights, shape: Shape, precision: Precision) -> None:
        self._weights = weights
        self._shape = shape
        self._precision = precision
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def model(self) -> onnx.ModelProto:
        x = self._node("LayerNormalization", [WORDS, *self._norm("embeddings.LayerNorm")], epsilon=self._shape.epsilon)
        for number in range(self._shape.layers):
            x = self._layer(x, f"encoder.layer.{number}.")
        self._nodes.append(helper.make_node("Identity", [x], [HIDDEN]))
        width = len(self._weights["embeddings.LayerNorm.weight"])
        words = helper.make_tensor_value_info(WORDS, TensorProto.FLOAT, ["texts", "tokens", width])
        mask = helper.make_tensor_value_info(MASK, TensorProto.INT32, ["texts", "tokens"])
        hidden = helper.make_tensor_value_info(HIDDEN, TensorProto.FLOAT, ["texts", "tokens", width])
        graph = helper.make_graph(self._nodes, "bert", [words, mask], [hidden], self._constants)
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_FUSED, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR)

    def _layer(self, x: str, name: str) -> str:
        attended = self._attention(x, f"{name}attention.self.")
        x = self._added(self._times(attended, f"{name}attention.output.dense"), x, f"{name}attention.output")
        inner = self._times(x, f"{name}intermediate.dense")
        inner = self._node("BiasGelu", [inner, self._constant(f"{name}intermediate.dense.bias")], _FUSED)
        return self._added(self._times(inner, f"{name}output.dense"), x, f"{name}output")

    def _attention(self, x: str, name: str) -> str:
        parts = [f"{name}{part}" for part in ("query", "key", "value")]
        weight = np.concatenate([self._weights[f"{part}.weight"].T for part in parts], axis=1)
        bias = self._array(np.concatenate([self._weights[f"{part}.bias"] for part in parts]))
        if self._precision == "float32":
            return self._node("Attention", [x, self._array(weight), bias, MASK], _FUSED, num_heads=self._shape.heads)
        width = weight.shape[0]
        sizes = self._array(np.array([width] * 3), np.int64)
        parts = [f"{name}{part}.split" for part in ("query", "key", "value")]
        self._nodes.append(helper.make_node("Split", [self._quantized(x, weight), sizes], parts, axis=2))
        return self._node("MultiHeadAttention", [*parts, bias, MASK], _FUSED, num_heads=self._shape.heads)

    def _times(self, x: str, name: str) -> str:
        """`x` times the dense layer's weight; its bias is added later, fused with something else."""
        weight = self._weights[f"{name}.weight"].T
        return self._quantized(x, weight) if self._precision == "int8" else self._node("MatMul", [x, self._array(weight)])

    def _added(self, x: str, skipped: str, name: str) -> str:
        """Bias, residual connection and normalization behind a dense layer."""
        inputs = [x, skipped, *self._norm(f"{name}.LayerNorm"), self._constant(f"{name}.dense.bias")]
        return self._node("SkipLayerNormalization", inputs, _FUSED, epsilon=self._shape.epsilon)

    def _norm(self, name: str) -> list[str]:
        return [self._constant(f"{name}.weight"), self._constant(f"{name}.bias")]

    def _quantized(self, x: str, weight: NDArray[Any]) -> str:
        """`x` times a weight of shape (inputs, outputs) in int8: blocks of each output's inputs, symmetric around 128."""
        inputs, outputs = weight.shape
        blocks = weight.T.astype(np.float32).reshape(outputs, inputs // BLOCK, BLOCK)
        scales = np.abs(blocks).max(axis=-1, keepdims=True) / 127
        quantized = np.clip(np.rint(blocks / np.where(scales == 0, 1, scales)) + 128, 0, 255)
        operands = [x, self._array(quantized, np.uint8), self._array(scales.reshape(outputs, -1))]
        sizes = {"K": inputs, "N": outputs, "bits": 8, "block_size": BLOCK, "accuracy_level": _INT8_ACCURACY}
        return self._node("MatMulNBits", operands, _FUSED, **sizes)

    def _constant(self, name: str) -> str:
        return self._array(self._weights[name])

    def _array(self, values: NDArray[Any], kind: Any = np.float32) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(values, dtype=kind), name))
        return name

    def _node(self, operator: str, inputs: list[str], domain: str = "", **attributes: Any) -> str:
        output = f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [output], domain=domain, **attributes))
        return output
