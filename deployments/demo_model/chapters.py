"""Draws documents that are pieces of the project's Markdown as they are: with line breaks within sentences, markup, tables and code."""

import random
import re
from collections.abc import Iterator, Sequence

from deployments.demo_model.prose import DOCUMENTS, ROOT, Disguise, asked, cleaned, plain, telling
from deployments.demo_model.reading import Ask, Page, Reading
from deployments.demo_model.samples import vary
from retrieval.chunking import split

SIZES = (30, 60, 100, 150, 200)
"""Of pieces, in tokens of an encoder; 200 is the retrieval tier's default."""
CHARS_PER_TOKEN = 4
NEIGHBOUR_SHARE = 0.5
DISGUISED_SHARE, VARIED_SHARE = 0.7, 0.3
_BREAK = re.compile(r"(?<=[.!?:])\s+(?=[A-Z`*(\[])|\n\s*\n|\n(?=\s*(?:[-*|#>]|\d+\.|```))")
_MARKER = re.compile(r"(?:[-*#>]+|\d+\.)\s+")


class _Segment:
    def __init__(self, page: int, place: int, text: str) -> None:
        self.page, self.place, self.said = page, place, cleaned(text)
        self.words = telling(self.said)


class Chapters:
    """Draws readings; `words` are what others are exchanged for."""

    def __init__(self, words: Sequence[str], rng: random.Random) -> None:
        self._rng, self._disguise = rng, Disguise(words, rng)
        texts = [(ROOT / name).read_text() for name in DOCUMENTS]
        self._pieces = {size: [split(text, _tokens, size, 0) for text in texts] for size in SIZES}

    def reading(self, pages: int, asks: int) -> Reading:
        """With `asks` questions at most; with none, where the pieces have no whole sentences."""
        rng = self._rng
        drawn = self._drawn(rng.choice(SIZES), pages)
        if rng.random() < DISGUISED_SHARE:
            other = self._disguise.exchange("\n".join(drawn), rng.uniform(0.1, 0.7))
            drawn = [other(text) for text in drawn]
        shown = [Page(text, list(spans(text))) for text in drawn]
        segments = [
            _Segment(page, place, each.text[first:last])
            for page, each in enumerate(shown)
            for place, (first, last) in enumerate(each.sentences)
        ]
        askable = [segment for segment in segments if plain(segment.said)]
        made = [self._ask(rng.choice(askable), segments) for _ in range(asks)] if askable else []
        return Reading(shown, [ask for ask in made if ask])

    def _ask(self, segment: "_Segment", others: Sequence["_Segment"]) -> Ask | None:
        """None if the question has as many words of another place."""
        question = asked(segment.said, self._rng)
        question = vary(question, self._rng) if self._rng.random() < VARIED_SHARE else question
        words = telling(question)
        most = max((len(words & other.words) for other in others if other is not segment), default=0)
        return Ask(question, segment.page, segment.place) if len(words & segment.words) > most else None

    def _drawn(self, size: int, count: int) -> list[str]:
        """Pieces of one text that follow each other, or any."""
        rng = self._rng
        texts = self._pieces[size]
        if rng.random() < NEIGHBOUR_SHARE:
            pieces = rng.choice(texts)
            first = rng.randrange(len(pieces) - count + 1)
            return pieces[first : first + count]
        return rng.sample([piece for pieces in texts for piece in pieces], count)


def spans(text: str) -> Iterator[tuple[int, int]]:
    """Where sentences, headings, rows of tables and what else stands alone begin and end, without the marks of lists and headings."""
    at = 0
    for end, after in [*((match.start(), match.end()) for match in _BREAK.finditer(text)), (len(text), len(text))]:
        marker = _MARKER.match(text, at)
        start = min(marker.end(), end) if marker else at
        if text[start:end].strip():
            yield start, end
        at = after


def _tokens(texts: Sequence[str]) -> list[int]:
    return [-(-len(text) // CHARS_PER_TOKEN) for text in texts]
