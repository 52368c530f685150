"""Verifiers that users bring."""

from collections.abc import Sequence

from cache.errors import VerifierError
from cache.verifiers.base import Pair


class CrossEncoderVerifier:
    """Any cross-encoder with one output that sentence-transformers can load, from a directory or by its hub id.

    The sigmoid of its output is taken for the probability: one that is not calibrated is corrected by what is learnt of its tenants,
    in mode `verified`. A longer pair than it can take in is not judged.
    """

    def __init__(self, source: str, threads: int | None = None) -> None:
        """`threads` bounds PyTorch's for the whole process. Raises `VerifierError` if the model cannot be found, downloaded or loaded."""
        try:
            import torch
            from sentence_transformers import CrossEncoder

            if threads is not None:
                torch.set_num_threads(threads)
            self._model = CrossEncoder(source, activation_fn=torch.nn.Sigmoid())
            if self._model.num_labels != 1:
                raise ValueError(f"it has {self._model.num_labels} outputs, and one is needed")
        except Exception as error:  # files, the hub, torch and transformers raise all sorts
            advice = "give a directory, a hub id, packaged or none"
            raise VerifierError(
                f"the verifier {source} could not be loaded ({type(error).__name__}: {str(error)[:200]}): {advice}"
            ) from error
        self.name = f"cross-encoder/{source}"
        self.settles: frozenset[str] = frozenset()

    def probabilities(self, pairs: Sequence[Pair]) -> list[float | None]:
        if not pairs:
            return []
        try:
            texts = [(each.question, each.kept) for each in pairs]
            fits = [
                len(ids) <= self._model.max_seq_length
                for ids in self._model.tokenizer([a for a, _ in texts], [b for _, b in texts]).input_ids
            ]
            short = [pair for pair, fit in zip(texts, fits, strict=True) if fit]
            scores = iter(self._model.predict(short, show_progress_bar=False) if short else [])
            return [float(next(scores)) if fit else None for fit in fits]
        except Exception as error:
            raise VerifierError(f"the pairs could not be judged: {type(error).__name__}") from error
