"""JSON as it passes rules: arguments of tool calls, which are texts of JSON.

Rules see what its strings say. As it is written a word could have any of its letters as `\\u0065`, Chinese has them by Python's default,
and `\\nsecret` is a word for itself. What passes is the JSON as it was written: nothing in it is masked, because programs read it.
"""

import re
from collections import deque
from collections.abc import Iterator
from json import JSONDecoder

from serve_app.content.base import Matcher
from serve_app.content.stream import BLOCK_CHARS, Stream, passed

_HIGH = r"\\u[dD][89abAB][0-9a-fA-F]{2}"
_PAIR = rf"{_HIGH}\\u[dD][c-fC-F][0-9a-fA-F]{{2}}"
_CODE = r"\\u[0-9a-fA-F]{4}"
_SHORT = r"\\[\"\\/bfnrt]"
_ESCAPE = re.compile(rf"{_PAIR}|{_CODE}|{_SHORT}")
_BEGUN = r"(?:\\(?:u[0-9a-fA-F]{0,3})?)?\Z"
"""The end of a piece, of which more of the text could make an escape sequence."""
_WHOLE = re.compile(rf"(?:[^\\]+|{_PAIR}|(?!{_HIGH}{_BEGUN}){_CODE}|{_SHORT}|(?!{_CODE}|{_BEGUN})\\)*+")
_PIECE = re.compile(rf"[\\\"](?:[^\\\"]+|{_CODE}|{_SHORT})*+")
"""What a JSON string would have to escape, and what follows up to the next such."""
_decode = JSONDecoder(strict=False).decode


def meant(written: str) -> str:
    """One character for each escape sequence in it, which are whole; what is none is as it was."""
    if "\\" not in written:
        return written
    string: str = _decode("\\".join(_PIECE.findall('"' + written)) + '"')
    return string


def _length_of(written: str, count: int) -> int:
    """How much of it says the first `count` characters."""
    more = 0
    for escape in _ESCAPE.finditer(written):
        if escape.start() - more >= count:
            break
        more += escape.end() - escape.start() - 1
    return count + more


def _blocks(written: str) -> Iterator[str]:
    return (written[at : at + BLOCK_CHARS] for at in range(0, len(written), BLOCK_CHARS))


class _Reader:
    """What the pieces of a text mean."""

    def __init__(self) -> None:
        self._begun = ""

    def read(self, piece: str) -> tuple[str, str]:
        """What is whole now, and what is meant by it."""
        text = self._begun + piece
        found = _WHOLE.match(text)
        end = found.end() if found else 0
        self._begun = text[end:]
        return text[:end], meant(text[:end])

    def rest(self) -> tuple[str, str]:
        """Nothing follows."""
        return self._begun, meant(self._begun)


class JsonStream(Stream):
    """A `Stream` of such a text."""

    def __init__(self, rules: Matcher) -> None:
        super().__init__(rules, masks=False)
        self._reader = _Reader()
        self._waiting: deque[tuple[str, int]] = deque()
        """What is written and not sent yet, and how many characters are meant by it."""

    def feed(self, piece: str) -> str:
        return "".join(self._fed(*self._reader.read(block)) for block in _blocks(piece))

    def end(self) -> str:
        return self._fed(*self._reader.rest()) + self._written(len(super().end()))

    def _fed(self, written: str, said: str) -> str:
        self._waiting.append((written, len(said)))
        return self._written(len(super().feed(said)))

    def _written(self, count: int) -> str:
        """How the next characters were written: nothing is masked, so they are the first that wait."""
        sent = []
        while count:
            written, length = self._waiting.popleft()
            if length > count:
                at = _length_of(written, count)
                self._waiting.appendleft((written[at:], length - count))
                written, length = written[:at], count
            sent.append(written)
            count -= length
        return "".join(sent)


def passed_json(text: str, rules: Matcher) -> tuple[str, Stream]:
    """As `stream.passed`."""
    if "\\" not in text:
        return passed(text, rules, masks=False)
    stream, reader, count = Stream(rules, masks=False), _Reader(), 0
    for block in _blocks(text):
        count += len(stream.feed(reader.read(block)[1]))
    count += len(stream.feed(reader.rest()[1])) + len(stream.end())
    return text[: _length_of(text, count)] if stream.blocked_by else text, stream
