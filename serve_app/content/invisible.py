"""Characters that nobody sees: between letters they would hide a word from rules, though not from a model."""

import re
from bisect import bisect_left
from collections.abc import Iterable

from serve_app.content.base import Match, Matcher, Scan

MAX_HIDDEN = 65_536
"""Invisible characters that may wait with what may become a match; behind more of them nothing does."""
_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Unicode's property Default_Ignorable_Code_Point."""


def visible(text: str) -> str:
    return text if text.isascii() else _IGNORABLE.sub("", text)


def last_visible(text: str, end: int) -> str:
    """The last character before `end` that is seen; empty: there is none."""
    while end and _IGNORABLE.match(text, end - 1):
        end -= 1
    return text[end - 1 : end] if end else ""


class Visible:
    """A `Matcher` that shows another one the text without such characters. Those inside a match belong to it."""

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher

    def scan(self, text: str, start: int, is_last: bool) -> Scan:
        """What stands before `start` must end with a character that is seen."""
        seen = visible(text)
        if len(seen) == len(text):
            return self._matcher.scan(text, start, is_last)
        places = _places(text)
        scan = self._matcher.scan(seen, bisect_left(places, start), is_last)
        matches = [Match(places[begin], places[end - 1] + 1, rule) for begin, end, rule in scan.matches]
        if scan.settled == len(seen) or len(text) - places[scan.settled] > MAX_HIDDEN + len(seen) - scan.settled:
            return Scan(len(text), matches)
        return Scan(places[scan.settled], matches)

    def begins(self, lines: str) -> Iterable[int]:
        seen = visible(lines)
        found = self._matcher.begins(seen)
        if len(seen) == len(lines):
            return found
        places = _places(lines)
        return [places[place] for place in found]


def _places(text: str) -> list[int]:
    """Of each character that is seen."""
    hidden = {found.start() for found in _IGNORABLE.finditer(text)}
    return [place for place in range(len(text)) if place not in hidden]
