"""A tokenizer without a model: fast, deterministic, reversible, and stable under appending.

Text is read from the left. A piece is a word piece (an optional space, one ASCII letter or digit, and up to four
lower-case letters or digits) or, where no word piece starts, one character. English comes to about four characters
a token, other scripts to one. A piece's id encodes its characters, so that there is no table:

    0        ... 0x10FFFF   one character: its code point
    0x110000 ... 0x1100FF   markers of the chat format, which no text can produce
    0x200000 ... 2**29      word pieces, as a number of base 37

A piece depends on what lies left of its end and on at most one character behind it. So if one text is a prefix of
another, its tokens, but for the last, are a prefix of the other's.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

VOCABULARY_SIZE: Final = 2**29
ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function", "tools")
"""Roles of a chat turn; `tools` is the turn that describes the tools of a request."""

_PIECE = re.compile(r" ?[A-Za-z0-9][a-z0-9]{0,4}|.", re.DOTALL)
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_DIGIT = {character: digit for digit, character in enumerate(_ALPHABET, start=1)}
_LONGEST = 5
_BASE = len(_ALPHABET) + 1
_WORDS: Final[int] = _BASE**_LONGEST
_FIRST_MARKER = 0x110000
_FIRST_WORD = 0x200000
_END = _FIRST_MARKER + len(ROLES)
_MARKERS = {role: _FIRST_MARKER + number for number, role in enumerate(ROLES)}
_MARKER_TEXT = {**{token: f"<|{role}|>" for role, token in _MARKERS.items()}, _END: "<|end|>"}


def encode(text: str) -> list[int]:
    return [_token(piece) for piece in _PIECE.findall(text)]


def pieces(text: str) -> list[str]:
    """The text of each token of `encode(text)`."""
    return _PIECE.findall(text)


def decode(tokens: Iterable[int]) -> str:
    """The text of tokens; ids that name nothing become U+FFFD."""
    return "".join(map(_text, tokens))


def render(turns: Iterable[tuple[str, str]]) -> list[int]:
    """A chat's (role, text) turns as a prompt that asks for the assistant's next turn.

    Appending the answer and further turns to a chat extends its prompt: the next prompt starts with this one, and goes
    on with the answer's tokens. Raises `KeyError` for a role that is not in `ROLES`.
    """
    tokens: list[int] = []
    for role, text in turns:
        tokens += (_MARKERS[role], *encode(text), _END)
    tokens.append(_MARKERS["assistant"])
    return tokens


def token_texts(tokens: Sequence[int]) -> list[str]:
    return [_text(token) for token in tokens]


@lru_cache(maxsize=65_536)
def _token(piece: str) -> int:
    word = piece.removeprefix(" ")
    if not word or not word[0].isascii() or not word[0].isalnum():
        return ord(piece)
    lower = word.lower()
    value = 0
    for character in lower.ljust(_LONGEST, " "):
        value = value * _BASE + _DIGIT.get(character, 0)
    flags = 2 * (len(word) < len(piece)) + (word != lower)
    return _FIRST_WORD + flags * _WORDS + value


@lru_cache(maxsize=65_536)
def _text(token: int) -> str:
    if token in _MARKER_TEXT:
        return _MARKER_TEXT[token]
    if token < _FIRST_WORD:
        return chr(token) if token < _FIRST_MARKER and not 0xD800 <= token < 0xE000 else "\ufffd"
    flags, value = divmod(token - _FIRST_WORD, _WORDS)
    return _word(flags, value) if flags < 4 else "\ufffd"


def _word(flags: int, value: int) -> str:
    word = ""
    for _ in range(_LONGEST):
        value, digit = divmod(value, _BASE)
        word = (_ALPHABET[digit - 1] if digit else "") + word
    return " " * (flags >> 1) + (word.capitalize() if flags & 1 else word)
