"""Cuts a text into chunks that an encoder can take whole.

The text is cut into atoms (words; Chinese, which has no spaces, into clauses), each distinct one is measured once, and a chunk
is as many atoms as fit, ended at the strongest boundary in its second half. So the work grows with the length of the text.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate, chain, pairwise

from cache.embedders.pieces import portions
from retrieval.errors import DocumentError

CountTokens = Callable[[Sequence[str]], list[int]]

_MAX_CHARS_PER_TOKEN = 16
"""WordPiece takes any very long word for one unknown token: by its count, a megabyte of base64 would be a small chunk."""
MAX_COUNTED, MAX_COUNTED_CHARS = 20_000, 200_000
"""Texts, and characters, whose tokens are counted in one call: an encoder may take 600 bytes for each character."""

_ATOM_END = re.compile(r"\s+|[。！？；，、：…]+[”’」』）》]*\s*")  # noqa: RUF001
_BOUNDARIES = (
    re.compile(r"\f"),
    re.compile(r"\n\s*\n"),
    re.compile(r"[.!?]['\")\]”’]*\s|[。！？…]|\n"),  # noqa: RUF001
    re.compile(r"[,;:]\s|[；，、：]"),  # noqa: RUF001
    re.compile(r"\s\Z"),
)
"""Ends of a section or page (`retrieval.parsing` marks them), a paragraph, a sentence or line, a clause, a word: strongest first."""
_DIVIDING = re.compile(r"(?<=\S)\f+(?=\S)")


def split(text: str, count_tokens: CountTokens, max_tokens: int, overlap: int) -> list[str]:
    """Chunks of at most `max_tokens` tokens, in order; together they hold every non-space character of the text.

    Neighbours share at most `overlap` tokens of text, and at least one word, where counts add up over words (where they
    do not, a chunk that turns out too long is halved). Raises `DocumentError` if one character is longer than a chunk.
    """
    if max_tokens < 1 or not 0 <= 2 * overlap <= max_tokens:
        raise ValueError(f"max_tokens {max_tokens}, overlap {overlap}: allowed are max_tokens >= 1 and 0 <= overlap <= max_tokens / 2")
    atoms, costs = _atoms(text, count_tokens, overlap or max_tokens)
    if max(costs, default=0) > max_tokens:
        raise DocumentError(f"the document has a character of more than {max_tokens} tokens", "documents.text")
    strengths = {atom: _strength(atom) for atom in set(atoms)}
    spans = _windows([strengths[atom] for atom in atoms], costs, max_tokens, overlap)
    return _fitting(atoms, spans, count_tokens, max_tokens)


def unmarked(text: str) -> str:
    """Without the marks of sections and pages, of which some are all that divides two words."""
    return _DIVIDING.sub("\n", text).replace("\f", "")


def _measure(texts: list[str], count_tokens: CountTokens) -> list[int]:
    batches = portions(texts, MAX_COUNTED_CHARS, MAX_COUNTED)
    counts = (tokens for batch in batches for tokens in count_tokens([texts[index] for index in batch]))
    return [max(tokens, _least_tokens(text)) for text, tokens in zip(texts, counts, strict=True)]


def _least_tokens(text: str) -> int:
    return -(-len(text) // _MAX_CHARS_PER_TOKEN)


def _atoms(text: str, count_tokens: CountTokens, limit: int) -> tuple[list[str], list[int]]:
    """Pieces that join to the text, of at most `limit` tokens (but at least one character), and the tokens of each."""
    ends = chain([0], (match.end() for match in _ATOM_END.finditer(text)), [len(text)])
    known: dict[str, str] = {}  # equal atoms are one object: a text of one-letter words has millions
    pieces = [known.setdefault(piece, piece) for a, b in pairwise(ends) if a < b and (piece := text[a:b])]
    pieces = [part for piece in pieces for part in _cut(piece, -(-_least_tokens(piece.strip()) // limit))]  # before any is counted
    costs: dict[str, int] = {"": 0}
    while True:
        unknown = list({piece.strip() for piece in pieces} - costs.keys())
        costs.update(zip(unknown, _measure(unknown, count_tokens), strict=True))
        parts = [part for piece in pieces for part in _cut(piece, -(-costs[piece.strip()] // limit))]
        if len(parts) == len(pieces):
            return pieces, [costs[piece.strip()] for piece in pieces]
        pieces = parts


def _cut(piece: str, parts: int) -> list[str]:
    if parts <= 1 or len(piece) == 1:
        return [piece]
    size = -(-len(piece) // parts)
    return [piece[at : at + size] for at in range(0, len(piece), size)]


def _strength(atom: str) -> int:
    """How good a place the end of this atom is to end a chunk; 0 is inside a word."""
    return next((len(_BOUNDARIES) - i for i, boundary in enumerate(_BOUNDARIES) if boundary.search(atom)), 0)


def _windows(strengths: list[int], costs: list[int], budget: int, overlap: int) -> list[tuple[int, int]]:
    """Ranges of atoms, each within the budget by the sum of its costs, each ending behind the one before it."""
    total = list(accumulate(costs, initial=0))
    spans: list[tuple[int, int]] = []
    start = end = 0
    while end < len(costs):
        furthest = bisect_right(total, total[start] + budget) - 1
        earliest = min(furthest, max(end + 1, bisect_left(total, total[start] + budget // 2)))
        end = len(costs) if furthest == len(costs) else max(range(earliest, furthest + 1), key=lambda at: (strengths[at - 1], at))
        spans.append((start, end))
        start = _next_start(strengths, total, end, budget, overlap)
    return spans


def _next_start(strengths: list[int], total: list[int], end: int, budget: int, overlap: int) -> int:
    """The best boundary within `overlap` tokens before `end`, such that the atom behind `end` still fits."""
    needed = total[min(end + 1, len(total) - 1)] - budget
    earliest = bisect_left(total, max(total[end] - overlap, needed))
    latest = max(earliest, end - 1) if overlap else end
    return max(range(earliest, latest + 1), key=lambda at: (strengths[at - 1], -at)) if earliest < end else end


def _fitting(atoms: list[str], spans: list[tuple[int, int]], count_tokens: CountTokens, max_tokens: int) -> list[str]:
    """The texts of the ranges; those whose real count is over the limit are halved until it is not."""
    while True:
        texts = [unmarked("".join(atoms[a:b])).strip() for a, b in spans]
        too_long = {i for i, tokens in enumerate(_measure(texts, count_tokens)) if tokens > max_tokens}
        if not too_long:
            return [text for text in texts if text]
        spans = [half for i, span in enumerate(spans) for half in (_halves(*span) if i in too_long else [span])]


def _halves(start: int, end: int) -> list[tuple[int, int]]:
    middle = (start + end) // 2
    return [(start, middle), (middle, end)]
