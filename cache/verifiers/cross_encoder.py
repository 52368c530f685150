"""Verifiers that read both texts together."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cache.decision.belief import sigmoid
from cache.errors import VerifierError
from cache.verifiers.base import Pair

PACKAGED = "packaged"


class PackagedVerifier:
    """The project's own model (`network.py`; its card is `model/README.md`). `threads` bounds PyTorch's for the whole process."""

    def __init__(self, directory: Path | None = None, threads: int | None = None, encoder: str | None = None) -> None:
        """`encoder` names the one that the pairs' cosines are of: they count if it is the one that the model was calibrated with.

        Raises `VerifierError` if the model cannot be loaded.
        """
        try:
            from cache.verifiers import network

            _set_threads(threads)
            self._network = network
            self._model, settings = network.load(directory or network.MODEL)
            self._tokens = network.tokenizer()
        except Exception as error:  # files, torch and transformers raise all sorts
            raise VerifierError(f"the packaged verifier could not be loaded: {type(error).__name__}: {error}") from error
        intercept, slope, *cosine = settings["with_cosine" if settings["encoder"] == encoder else "alone"]
        self._intercept, self._slope, self._similarity = intercept, slope, sum(cosine)
        self.settles: frozenset[str] = frozenset(settings["settles"])
        self._unknown = self._tokens.unk_token_id
        self.name = f"{PACKAGED}@{settings['trained_on']}"
        # A tokenizer's truncation is a state that one call would change under another.
        self._lock = threading.Lock()

    def probabilities(self, pairs: Sequence[Pair]) -> list[float | None]:
        try:
            return self._judge(pairs)
        except Exception as error:  # torch and tokenizers raise all sorts
            raise VerifierError(f"the pairs could not be judged: {type(error).__name__}") from error

    def _judge(self, pairs: Sequence[Pair]) -> list[float | None]:
        """Each pair in the order of its texts, whichever was asked first: the judgement is symmetric."""
        if not pairs:
            return []
        texts = [sorted((each.question, each.kept)) for each in pairs]
        with self._lock:
            encoded = self._network.encode(self._tokens, [first for first, _ in texts], [second for _, second in texts])
        known = [row for row in range(len(pairs)) if self._is_known(encoded["input_ids"][row])]
        if not known:
            return [None] * len(pairs)
        judged = {
            row: sigmoid(self._intercept + self._slope * logit + self._similarity * pairs[row].similarity)
            for row, logit in zip(known, self._logits(encoded, known), strict=True)
        }
        return [judged.get(row) for row in range(len(pairs))]

    def _is_known(self, ids: list[int]) -> bool:
        return len(ids) <= self._network.MAX_TOKENS and self._unknown not in ids

    def _logits(self, encoded: Any, rows: list[int]) -> list[float]:
        import torch

        with torch.inference_mode():
            found: list[float] = self._model(**self._network.batch(encoded, rows)).tolist()
        return found


class CrossEncoderVerifier:
    """Any cross-encoder with one output that sentence-transformers can load, from a directory or by its hub id.

    Its score, a number between 0 and 1, is taken for the probability: one that is not calibrated is corrected by what is learnt of
    its tenants, in mode `verified`.
    """

    def __init__(self, source: str, threads: int | None = None) -> None:
        """Raises `VerifierError` if the model cannot be found, downloaded or loaded."""
        try:
            from sentence_transformers import CrossEncoder

            _set_threads(threads)
            self._model = CrossEncoder(source)
        except Exception as error:  # files, the hub, torch and transformers raise all sorts
            advice = "give a directory, a hub id, packaged or none"
            raise VerifierError(f"the verifier {source} could not be loaded ({type(error).__name__}): {advice}") from error
        self.name = f"cross-encoder/{source}"
        self.settles: frozenset[str] = frozenset()

    def probabilities(self, pairs: Sequence[Pair]) -> list[float | None]:
        try:
            scores = self._model.predict([(each.question, each.kept) for each in pairs], show_progress_bar=False)
        except Exception as error:
            raise VerifierError(f"the pairs could not be judged: {type(error).__name__}") from error
        return [min(1.0, max(0.0, float(score))) for score in scores]


def _set_threads(threads: int | None) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
