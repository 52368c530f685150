r"""What a regular expression's matches begin with, as a regular expression.

RE2 does not say whether a text could go on to become a match. So another expression is made of each: one that matches everything a match
begins with, the whole and nothing at all among it. What it finds at the end of a text (`\z`) may still become a match, nothing else may.
Made of parts: the beginnings of `xy` are those of `x`, and `x` followed by those of `y`; and so on.

Only for expressions that RE2 has taken: of what it refuses nothing is said here.
"""

import math
import re
from dataclasses import dataclass

_FLAGS = re.compile(r"\(\?([imsU-]*)([:)])")
_NAMED = re.compile(r"\(\?P?<\w+>")
_REPEAT = re.compile(r"(?:([*+?])|\{(\d+)(?:(,)(\d*))?\})\??")
_ESCAPE = re.compile(r"\\(?:[pP](?:\{[^}]*\}|.)|x(?:\{[0-9A-Fa-f]+\}|[0-9A-Fa-f]{2})|[0-7]{1,3}|.)", re.DOTALL)
_CLASS = re.compile(rf"\[\^?\]?(?:\[:\^?\w+:\]|{_ESCAPE.pattern}|[^\]\\])*\]", re.DOTALL)
_NOTHING_WIDE = frozenset({"^", "$", r"\b", r"\B", r"\A", r"\z"})
_OF_LINES = {"^": "(?m:^)", r"\A": "(?m:^)", "$": "(?m:$)", r"\z": "(?m:$)"}
_MANY = {"*": (0, math.inf), "+": (1, math.inf), "?": (0, 1)}


class UnsupportedError(Exception):
    """RE2 takes the expression, this does not."""


@dataclass(frozen=True, slots=True)
class Shape:
    """An expression, or a part of one."""

    source: str
    """Its own text, with groups that capture nothing."""
    beginnings: str
    """What its matches begin with."""
    least: int
    """Characters that a match has."""
    most: float
    sets_flags: bool = False


def shape_of(pattern: str, of_lines: bool = False) -> Shape:
    """`of_lines`: of one that finds in each line what the pattern would find in a text. Raises `UnsupportedError`."""
    reader = _Reader(pattern, of_lines)
    shape = reader.alternatives()
    if reader.rest:
        raise UnsupportedError("it was not understood")
    return shape


class _Reader:
    def __init__(self, pattern: str, of_lines: bool) -> None:
        self.rest = pattern
        self._of_lines = of_lines

    def alternatives(self) -> Shape:
        """Up to the end of the group. Flags that are set in one alternative hold in those after it."""
        branches, flags = [self._sequence()], ""
        beginnings = [_beginnings(branches[0])]
        while self.rest.startswith("|"):
            self.rest = self.rest[1:]
            flags += "".join(part.source for part in branches[-1] if part.sets_flags)
            branches.append(self._sequence())
            beginnings.append(flags + _beginnings(branches[-1]))
        sources = ("".join(part.source for part in branch) for branch in branches)
        least = min(sum(part.least for part in branch) for branch in branches)
        most = max(sum(part.most for part in branch) for branch in branches)
        return Shape("|".join(sources), "|".join(beginnings), least, most)

    def _sequence(self) -> list[Shape]:
        parts: list[Shape] = []
        while self.rest and self.rest[0] not in "|)":
            if self.rest.startswith(r"\Q"):
                parts += self._quoted()
            else:
                parts.append(self._atom())
            if repeat := _REPEAT.match(self.rest):
                self.rest = self.rest[repeat.end() :]
                parts[-1] = _repeated(parts[-1], repeat)
        return parts

    def _quoted(self) -> list[Shape]:
        text, _, self.rest = self.rest[2:].partition(r"\E")
        return [_one(re.escape(char) if char.isascii() else char) for char in text]

    def _atom(self) -> Shape:
        if self.rest.startswith("("):
            return self._group()
        found = _CLASS.match(self.rest) or _ESCAPE.match(self.rest)
        taken = found.group() if found else self.rest[0]
        self.rest = self.rest[len(taken) :]
        if taken == r"\C":
            raise UnsupportedError(r"\C matches parts of characters")
        if taken in _NOTHING_WIDE:
            return Shape(_OF_LINES.get(taken, taken) if self._of_lines else taken, "", 0, 0)
        return _one(rf"\{taken}" if taken in ("{", "}", "]") else taken)

    def _group(self) -> Shape:
        opening = "(?:"
        if flags := _FLAGS.match(self.rest):
            self.rest = self.rest[flags.end() :]
            opening = f"(?{flags.group(1)}:"
            if flags.group(2) == ")":
                return Shape(flags.group(), "", 0, 0, sets_flags=True)
        else:
            named = _NAMED.match(self.rest)
            self.rest = self.rest[named.end() if named else 1 :]
        inside = self.alternatives()
        self.rest = self.rest.removeprefix(")")
        return Shape(f"{opening}{inside.source})", f"{opening}{inside.beginnings})", inside.least, inside.most)


def _one(source: str) -> Shape:
    return Shape(source, f"{source}?", 1, 1)


def _beginnings(parts: list[Shape]) -> str:
    joined = ""
    for part in reversed(parts):
        joined = f"(?:{part.beginnings}|{part.source}{joined})" if joined else f"(?:{part.beginnings})"
    return joined


def _repeated(part: Shape, repeat: re.Match[str]) -> Shape:
    sign, low, comma, high = repeat.groups()
    if sign:
        least, most = _MANY[sign]
    else:
        least, most = int(low), int(high) if high else math.inf if comma else int(low)
    source = part.source + repeat.group()
    if most == 0:
        return Shape(source, "", 0, 0)
    before = "" if most == 1 else f"(?:{part.source})" + ("*" if most == math.inf else f"{{0,{most - 1}}}")
    return Shape(source, f"{before}(?:{part.beginnings})", least * part.least, most * part.most if part.most else 0)
