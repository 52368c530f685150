"""Long texts in pieces: a tokenizer may take 600 bytes for each character that it is given at once, and a text may have millions."""

import re
from collections.abc import Callable, Iterator, Sequence

MAX_PIECE_CHARS = 8192
"""A word that is longer than this is tokenized as several."""
MAX_AT_ONCE_CHARS = 65_536
"""Of a call of the tokenizer, but for one text alone."""

Ids = list[int]
Encode = Callable[[list[str]], Sequence[Ids]]
"""Tokens' numbers, without special ones, of each text."""
Take = Callable[[int, str, Ids], bool]

_SPACES = r" \t\n\r\u00a0\u3000"
"""What divides words for every tokenizer. BERT's joins what is divided by control characters, which for Python are spaces, too."""
_ENDS = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        rf".*[^{_SPACES}](?=[{_SPACES}])",  # before spaces: many tokenizers join the last one to the word that follows
        rf".*[{_SPACES}]",
        r".*[!-/:-@\\\]^_`{-~\u3001\u3002\u3400-\u4dbf\u4e00-\u9fff\uff01\uff0c\uff1a\uff1b\uff1f]",  # not "[", with which "[MASK]" begins
    )
)
"""Where a tokenizer that is given both sides alone finds the same tokens: best first."""


def pieces(text: str) -> Iterator[str]:
    """Pieces that join to the text, of at most `MAX_PIECE_CHARS` characters, cut where no word is, if there is such a place."""
    start = 0
    while len(text) - start > MAX_PIECE_CHARS:
        end = _end(text, start) or start + MAX_PIECE_CHARS
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def _end(text: str, start: int) -> int | None:
    """Of the longest piece that can be had without cutting a word. None: there is no such piece."""
    matches = (each.match(text, start, start + MAX_PIECE_CHARS) for each in _ENDS)
    return next((match.end() for match in matches if match), None)


def portions(texts: Sequence[str], max_chars: int = MAX_AT_ONCE_CHARS, max_texts: int | None = None) -> Iterator[list[int]]:
    """Indices of texts that are given to a tokenizer together: never of more characters than allowed, but for one text alone."""
    portion: list[int] = []
    chars = 0
    for index, text in enumerate(texts):
        if portion and (len(portion) == max_texts or chars + len(text) > max_chars):
            yield portion
            portion, chars = [], 0
        portion.append(index)
        chars += len(text)
    if portion:
        yield portion


def read(texts: Sequence[str], encode: Encode, take: Take) -> None:
    """Calls `take` with a text's index, a piece of it and the piece's tokens, in order, until it returns False: enough of that text."""
    unread = {index: pieces(text) for index, text in enumerate(texts)}
    while unread:
        indices, next_pieces = [], []
        for index, rest in unread.items():
            if piece := next(rest, None):
                indices.append(index)
                next_pieces.append(piece)
        goes_on: list[bool] = []
        for portion in portions(next_pieces):
            encoded = encode([next_pieces[at] for at in portion])
            goes_on += [take(indices[at], next_pieces[at], ids) for at, ids in zip(portion, encoded, strict=True)]
        unread = {index: unread[index] for index, more in zip(indices, goes_on, strict=True) if more}


def count_tokens(texts: Sequence[str], encode: Encode) -> list[int]:
    """See `cache.embedders.base.Embedder.count_tokens`."""
    counts = [0] * len(texts)

    def take(index: int, piece: str, ids: Ids) -> bool:
        counts[index] += len(ids)
        return True

    read(texts, encode, take)
    return counts


def first_tokens(texts: Sequence[str], encode: Encode, room: int) -> list[Ids]:
    """Of each text all tokens, or more than `room`."""
    found: list[Ids] = [[] for _ in texts]

    def take(index: int, piece: str, ids: Ids) -> bool:
        found[index] += ids
        return len(found[index]) <= room

    read(texts, encode, take)
    return found


def heads(texts: Sequence[str], encode: Encode, room: int) -> list[str]:
    """Of each text as much as has more than `room` tokens.

    Spaces stand for long parts without any, and between the parts of a word that was cut.
    """
    if all(len(text) <= MAX_PIECE_CHARS for text in texts):
        return list(texts)
    found: list[list[str]] = [[] for _ in texts]
    tokens = [0] * len(texts)

    def take(index: int, piece: str, ids: Ids) -> bool:
        is_cut = len(piece) == MAX_PIECE_CHARS and _end(piece, 0) is None
        found[index].append(f"{piece} " if is_cut else piece if ids else " ")
        tokens[index] += len(ids)
        return tokens[index] <= room

    read(texts, encode, take)
    return ["".join(parts) for parts in found]
