"""The contract of lexical guards: deterministic, symmetric, in microseconds; any refusal is a miss."""

from dataclasses import dataclass
from typing import Protocol

from cache.guards.text import Question


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why two questions must not share an answer. `guard` is a metric's label: snake_case, one of a fixed few."""

    guard: str


class Guard(Protocol):
    """Compares two parsed questions. Never raises, whatever the texts hold; takes time linear in their length.

    `refuses(a, b) == refuses(b, a)`, and `refuses(a, a)` is False. English and Chinese, mixed texts included.
    """

    name: str

    def refuses(self, a: Question, b: Question) -> bool:
        """True if the questions differ in what this guard protects, or if it cannot be told that they do not."""
