"""JSON as it passes rules: arguments of tool calls, which are texts of JSON.

Rules see what its strings say. As it is written a word could have any of its letters as `\\u0065`, Chinese has them by Python's default,
and `\\nsecret` is a word for itself. What passes is the JSON as it was written: nothing in it is masked, because programs read it.
"""

import re
from collections import deque

from serve_app.content.base import Matcher
from serve_app.content.stream import Stream

_HIGH = r"\\u[dD][89abAB][0-9a-fA-F]{2}"
_UNIT = re.compile(rf"{_HIGH}\\u[dD][c-fC-F][0-9a-fA-F]{{2}}|\\u[0-9a-fA-F]{{4}}|\\[\"\\/bfnrt]|[^\\]+|\\", re.DOTALL)
_BEGUN = re.compile(rf"(?:{_HIGH})?(?:\\(?:u[0-9a-fA-F]{{0,3}})?)?")
"""What more of the text could make another unit of."""
_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def _meant(unit: str) -> str:
    """One character for an escape sequence; what is none is as it was."""
    if unit[0] != "\\" or len(unit) == 1:
        return unit
    if len(unit) == 2:
        return _SHORT.get(unit[1], unit[1])
    code = int(unit[2:6], 16)
    return chr(code) if len(unit) == 6 else chr(0x1_0000 + ((code - 0xD800) << 10) + int(unit[8:], 16) - 0xDC00)


class JsonStream(Stream):
    """A `Stream` of such a text."""

    def __init__(self, rules: Matcher) -> None:
        super().__init__(rules, masks=False)
        self._begun = ""
        self._waiting: deque[str] = deque()
        """Units of which it is not known yet whether they may be sent."""

    def feed(self, piece: str) -> str:
        return self._written(super().feed(self._read(piece, is_last=False)))

    def end(self) -> str:
        rest = super().feed(self._read("", is_last=True))
        return self._written(rest + super().end())

    def _read(self, piece: str, is_last: bool) -> str:
        """What is meant by all that is whole."""
        text, at, meant = self._begun + piece, 0, []
        while found := _UNIT.match(text, at):
            if not is_last and text[at] == "\\" and _BEGUN.fullmatch(text, at):
                break
            self._waiting.append(found.group())
            meant.append(_meant(found.group()))
            at = found.end()
        self._begun = text[at:]
        return "".join(meant)

    def _written(self, meant: str) -> str:
        """How the next characters were written: nothing is masked, so they are the first that wait."""
        count, written = len(meant), []
        while count:
            unit = self._waiting.popleft()
            length = 1 if unit[0] == "\\" else len(unit)
            if length > count:
                self._waiting.appendleft(unit[count:])
                unit, length = unit[:count], count
            written.append(unit)
            count -= length
        return "".join(written)


def passed_json(text: str, rules: Matcher) -> tuple[str, Stream]:
    """As `stream.passed`."""
    stream = JsonStream(rules)
    return stream.feed(text) + stream.end(), stream
