"""The project's own verifier, run by ONNX Runtime: on one core twice as fast as PyTorch at a batch of one pair, and as exact."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from cache.decision.belief import sigmoid
from cache.errors import VerifierError
from cache.verifiers.base import Pair
from cache.verifiers.reader import Reader

PACKAGED = "packaged"
MODEL = Path(__file__).parent / "model"
NETWORK = "verifier.onnx"
SETTINGS = "verifier.json"
_FATAL = 4
"""Severity of ONNX Runtime's log from which on it is shown: errors come as exceptions."""


class PairModel:
    """What the network says of pairs. Thread-safe."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """`threads`: of one call; None: as many as there are cores."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = _FATAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the cores have other work
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._reader = Reader()

    def logits(self, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
        """One for each pair; None: it cannot be read. The texts are read in the order of the alphabet: the judgement is symmetric."""
        if not pairs:
            return []
        encoded = self._reader.encode([(min(pair), max(pair)) for pair in pairs])
        known = [row for row, each in enumerate(encoded) if self._reader.knows(each)]
        found: list[float | None] = [None] * len(pairs)
        if known:
            for row, logit in zip(known, self._run(self._reader.batch([encoded[row] for row in known])), strict=True):
                found[row] = logit
        return found

    def _run(self, inputs: dict[str, Any]) -> list[float]:
        outputs: Sequence[NDArray[np.float32]] = self._session.run(None, inputs)
        return [float(logit) for logit in outputs[0]]


class PackagedVerifier:
    """A `Verifier` (its card is `model/README.md`)."""

    def __init__(self, directory: Path = MODEL, threads: int | None = None, encoder: str | None = None) -> None:
        """`encoder` names the one that the pairs' cosines are of: they count if it is the one that the model was calibrated with.

        Raises `VerifierError` if the model cannot be loaded.
        """
        try:
            self._model = PairModel(directory / NETWORK, threads)
            settings = json.loads((directory / SETTINGS).read_text())
        except Exception as error:  # files, the runtime and tokenizers raise all sorts
            raise VerifierError(f"the packaged verifier could not be loaded: {type(error).__name__}: {error}") from error
        intercept, slope, *cosine = settings["with_cosine" if settings["encoder"] == encoder else "alone"]
        self._intercept, self._slope, self._similarity = intercept, slope, sum(cosine)
        self.settles: frozenset[str] = frozenset(settings["settles"])
        self.name = f"{PACKAGED}@{settings['trained_on']}"

    def probabilities(self, pairs: Sequence[Pair]) -> list[float | None]:
        try:
            logits = self._model.logits([(each.question, each.kept) for each in pairs])
        except Exception as error:  # the runtime and tokenizers raise all sorts
            raise VerifierError(f"the pairs could not be judged: {type(error).__name__}") from error
        return [None if logit is None else self._calibrated(logit, pair) for logit, pair in zip(logits, pairs, strict=True)]

    def _calibrated(self, logit: float, pair: Pair) -> float:
        return sigmoid(self._intercept + self._slope * logit + self._similarity * pair.similarity)
