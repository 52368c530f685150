"""The contract of verifiers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Pair:
    """A new question and a kept one; `similarity` is the cosine of their vectors."""

    question: str
    kept: str
    similarity: float
    whose: str = ""
    """The namespace that they are of: a verdict may be remembered for that one, and for nobody else."""


class Verifier(Protocol):
    """Judges pairs that the guards let through. Thread-safe; calls may block for milliseconds; may raise `VerifierError`."""

    @property
    def name(self) -> str:
        """Identifies model and revision: what was learnt of one verifier's scores does not hold for another's."""

    @property
    def settles(self) -> frozenset[str]:
        """Names of guards whose refusals this verifier was trained to judge better than they do: they do not refuse what it can read."""

    def probabilities(self, pairs: Sequence[Pair]) -> list[float | None]:
        """P(the same answer serves both), calibrated, in the order of the pairs. None: this verifier cannot judge the pair,
        because a text is too long for it or has characters that it does not know."""
