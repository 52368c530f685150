"""Regular expressions, by RE2: linear in the text, whatever the expression."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import re2

from serve_app.content.base import Match, Rule, Scan
from serve_app.content.prefixes import UnsupportedError, shape_of

MAX_PATTERN_CHARS = 1000
_TOGETHER_BYTES = 64 * 1024 * 1024
"""Memory of expressions that are tried together; each alone has RE2's default, 8 MiB."""


class PatternError(ValueError):
    """An expression cannot be used; the message says why."""


def check(pattern: str) -> float:
    """Whether it can be used, and how many characters its longest match has (maybe infinity). Raises `PatternError`."""
    if len(pattern) > MAX_PATTERN_CHARS:
        raise PatternError(f"it is longer than {MAX_PATTERN_CHARS} characters")
    _compiled(pattern)
    try:
        shape = shape_of(pattern)
    except UnsupportedError as error:
        raise PatternError(str(error)) from None
    if shape.least == 0:
        raise PatternError("it matches nothing at all, too: every text has that")
    _compiled(f"(?:{shape.source})")
    _compiled(rf"(?:{shape.beginnings})\z")
    return shape.most


class PatternMatcher:
    """A `Matcher`. Expressions see the text as it is written: `(?i)` is theirs to say."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        """At least one rule has a pattern. Raises `PatternError`."""
        patterns = [(rule, pattern) for rule in rules for pattern in rule.patterns]
        shapes = [(rule, shape_of(pattern)) for rule, pattern in patterns]
        sources = [shape.source for _, shape in shapes]
        in_lines = [shape_of(pattern, of_lines=True).source for _, pattern in patterns]
        self._each = [(rule, _compiled(shape.source)) for rule, shape in shapes]
        self._any = _together(sources, "")
        self._in_lines = self._any if in_lines == sources else _together(in_lines, "")
        self._begun = _together([shape.beginnings for _, shape in shapes], r"\z")

    def scan(self, text: str, start: int, is_last: bool) -> Scan:
        raw = text.encode("utf-8", "replace")  # half a surrogate pair is one character of it
        first = start if len(raw) == len(text) else len(text[:start].encode("utf-8", "replace"))
        settled = len(raw) if is_last else min(each.search(raw, first).start() for each in self._begun)
        matches: list[Match] = []
        if settled > first and any(each.search(raw, first) for each in self._any):
            for rule, pattern in self._each:
                matches += (Match(begin, end, rule) for begin, end in _in_characters(_found(pattern, raw, first, settled), raw, len(text)))
        return Scan(settled if len(raw) == len(text) else len(raw[:settled].decode()), matches)

    def begins(self, lines: str) -> Iterator[int]:
        raw = lines.encode("utf-8", "replace")
        for pattern in self._in_lines:
            yield from (begin for begin, _ in _in_characters(_lines_with(pattern, raw), raw, len(lines)))


def _lines_with(pattern: Any, raw: bytes) -> Iterator[tuple[int, int]]:
    """Where the first match in each line begins, twice."""
    first = 0
    while found := pattern.search(raw, first):
        yield found.start(), found.start()
        first = raw.find(b"\n", found.start()) + 1
        if not first:
            return


def _found(pattern: Any, raw: bytes, first: int, settled: int) -> Iterator[tuple[int, int]]:
    """The longest match at each byte from `first` to before `settled` where there is one."""
    while found := pattern.search(raw, first):
        begin, end = found.span()
        if begin >= settled:
            return
        yield begin, end
        first = begin + 1
        while raw[first : first + 1] and raw[first] & 0xC0 == 0x80:  # inside a character
            first += 1


def _in_characters(spans: Iterable[tuple[int, int]], raw: bytes, length: int) -> Iterator[tuple[int, int]]:
    """Spans of bytes, in order, as spans of the `length` characters."""
    if len(raw) == length:
        yield from spans
        return
    at = char = 0
    for begin, end in spans:
        char += len(raw[at:begin].decode())
        at = begin
        yield char, char + len(raw[begin:end].decode())


def _together(sources: Sequence[str], end: str) -> list[Any]:
    """As few expressions as can be, of which one matches where one of the sources does."""
    try:
        return [_compiled(f"(?:{'|'.join(f'(?:{each})' for each in sources)}){end}", _TOGETHER_BYTES)]
    except PatternError:
        if len(sources) == 1:
            raise
    half = len(sources) // 2
    return _together(sources[:half], end) + _together(sources[half:], end)


def _compiled(pattern: str, max_bytes: int | None = None) -> Any:
    """Raises `PatternError`."""
    options = re2.Options()
    options.longest_match = options.never_capture = True
    options.log_errors = False
    if max_bytes is not None:
        options.max_mem = max_bytes
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0]
        raise PatternError(reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)) from None
