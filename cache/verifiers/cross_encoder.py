"""Verifiers that users bring."""

from collections.abc import Sequence

from cache.errors import VerifierError
from cache.verifiers.base import Pair


class CrossEncoderVerifier:
    """Any cross-encoder with one output that sentence-transformers can load, from a directory or by its hub id.

    Its score, a number between 0 and 1, is taken for the probability: one that is not calibrated is corrected by what is learnt of
    its tenants, in mode `verified`.
    """

    def __init__(self, source: str, threads: int | None = None) -> None:
        """`threads` bounds PyTorch's for the whole process. Raises `VerifierError` if the model cannot be found, downloaded or loaded."""
        try:
            import torch
            from sentence_transformers import CrossEncoder

            if threads is not None:
                torch.set_num_threads(threads)
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
