"""The contracts of content rules.

A text is checked by a `Matcher`, which finds what rules forbid, piece by piece as the text grows. What is found is a matter of the text
alone, not of the pieces: every part of it that a rule describes is a match, also one inside another or across its end. So a character is
masked if it belongs to any match of a masking rule, and an answer ends before the first character of any match of a blocking one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

Action = Literal["block", "mask"]
"""`block`: the prompt is refused, the answer ends. `mask`: what matched is replaced by `MASK`."""
Where = Literal["prompt", "answer", "both"]
LookAlikes = Literal["mixed", "all"]
"""Which texts count that only look like a word: those that mix scripts, or all of them."""
MASK = "***"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as matchers see it. `name` comes from the configuration."""

    name: str
    action: Action
    words: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    look_alikes: LookAlikes = "mixed"
    """Of words. Patterns see the text as it is written."""


class Match(NamedTuple):
    """Characters `start` to `end` (exclusive) of a text, and the rule that they are against."""

    start: int
    end: int
    rule: Rule


class Scan(NamedTuple):
    """What is known of a text."""

    settled: int
    """Whatever follows the text, no more matches begin before this character."""
    matches: list[Match]
    """Those that begin before `settled`, in no order."""


class Matcher(Protocol):
    """Finds what its rules forbid, in time that is linear in the text's length, and keeps nothing between calls."""

    def scan(self, text: str, start: int, is_last: bool) -> Scan:
        """Matches that begin at `start` or later. `text[:start]` is what stands before (the last character of it is enough; empty only
        at the very beginning). `is_last`: nothing follows; then all of the text is settled.
        """

    def begins(self, lines: str) -> Iterable[int]:
        """Of texts of which each has lines of its own: where matches may begin. At least one place in each text that has a match."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a moderation model says of a text: the categories that it falls into. Without any, nothing is wrong with it."""

    categories: Sequence[str] = ()

    @property
    def is_flagged(self) -> bool:
        return bool(self.categories)


class ModerationError(Exception):
    """The moderation model did not answer, or not so that it was understood. The message has nothing of the text."""


class Moderator(Protocol):
    """A model that judges texts."""

    async def judge(self, text: str) -> Verdict:
        """Raises `ModerationError`, also when no verdict is there in time."""

    async def close(self) -> None:
        """Nothing is judged any longer."""
