"""The project's own verifier."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from tokenizers import Encoding

from cache.bert.model_file import WORDS, Shape, Weights
from cache.bert.network import BertNetwork
from cache.bert.precision import Precision, in_float32, named
from cache.decision.belief import sigmoid
from cache.errors import VerifierError
from cache.verifiers.base import Pair
from cache.verifiers.reader import Reader, word_embeddings

PACKAGED = "packaged"
MODEL = Path(__file__).parent / "model"
NETWORK = "verifier.onnx"
SETTINGS = "verifier.json"
HEAD, HEAD_BIAS = "head.weight", "head.bias"
SHAPE = Shape(layers=6, heads=12, epsilon=1e-12)
"""Of all-MiniLM-L6-v2, which it was trained from."""


class PairModel:
    """What the network says of pairs. Thread-safe."""

    def __init__(self, path: Path, threads: int | None = None, precision: Precision = "float32") -> None:
        """`path`: as `cache.verifiers.network.export` writes it. `threads`: of one call; None: as many as there are cores."""
        self._reader = Reader()
        weights = {WORDS: word_embeddings(), **_weights(onnx.load(path))}
        self._head, self._bias = weights[HEAD][0], weights[HEAD_BIAS][0]
        self._network = BertNetwork(weights, SHAPE, precision, threads)

    def logits(self, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
        """One for each pair; None: it cannot be read. The texts are read in the order of the alphabet: the judgement is symmetric."""
        if not pairs:
            return []
        encoded = self._reader.encode([(min(pair), max(pair)) for pair in pairs])
        known = [each for each in encoded if self._reader.knows(each)]
        logits = iter(self._judged(known) if known else [])
        return [next(logits) if self._reader.knows(each) else None for each in encoded]

    def _judged(self, pairs: Sequence[Encoding]) -> list[float]:
        hidden = self._network.hidden([each.ids for each in pairs], [each.type_ids for each in pairs])
        return [float(np.concatenate([each[0], each.mean(axis=0)]) @ self._head + self._bias) for each in hidden]


def _weights(model: onnx.ModelProto) -> Weights:
    """By their names in `transformers.BertModel`, and the head's. The exporter renames dense weights, but not the biases behind them."""
    constants = {each.name.removesuffix(".half"): numpy_helper.to_array(each) for each in model.graph.initializer}
    reader = {name: node for node in model.graph.node for name in node.input}
    named = {name.removeprefix("encoder."): values.astype(np.float32) for name, values in constants.items()}
    for node in model.graph.node:
        if node.op_type == "Gemm":  # the head
            named[HEAD] = constants[node.input[1]].astype(np.float32)
            named[HEAD_BIAS] = constants[node.input[2]].astype(np.float32) if len(node.input) > 2 else np.zeros(1, np.float32)
        elif node.op_type == "MatMul" and node.input[1] in constants:
            bias = next(name for name in reader[node.output[0]].input if name.endswith(".bias"))
            weight = bias.removeprefix("encoder.").removesuffix(".bias") + ".weight"
            named[weight] = constants[node.input[1]].astype(np.float32).T
    return named


class PackagedVerifier:
    """A `Verifier` (its card is `model/README.md`)."""

    def __init__(
        self, directory: Path = MODEL, threads: int | None = None, encoder: str | None = None, precision: Precision = "float32"
    ) -> None:
        """`encoder` names the one that the pairs' cosines are of: they count if it is the one that the model was calibrated with, in
        whatever precision.

        Raises `VerifierError` if the model cannot be loaded.
        """
        try:
            self._model = PairModel(directory / NETWORK, threads, precision)
            settings = json.loads((directory / SETTINGS).read_text())
        except Exception as error:  # files, the runtime and tokenizers raise all sorts
            raise VerifierError(f"the packaged verifier could not be loaded: {type(error).__name__}: {error}") from error
        intercept, slope, *cosine = settings[
            "with_cosine" if encoder is not None and settings["encoder"] == in_float32(encoder) else "alone"
        ]
        self._intercept, self._slope, self._similarity = intercept, slope, sum(cosine)
        self.settles: frozenset[str] = frozenset(settings["settles"])
        self.name = named(f"{PACKAGED}@{settings['trained_on']}", precision)

    def probabilities(self, pairs: Sequence[Pair]) -> list[float | None]:
        try:
            logits = self._model.logits([(each.question, each.kept) for each in pairs])
        except Exception as error:  # the runtime and tokenizers raise all sorts
            raise VerifierError(f"the pairs could not be judged: {type(error).__name__}") from error
        return [None if logit is None else self._calibrated(logit, pair) for logit, pair in zip(logits, pairs, strict=True)]

    def _calibrated(self, logit: float, pair: Pair) -> float:
        return sigmoid(self._intercept + self._slope * logit + self._similarity * pair.similarity)
