"""Citations in an answer: from the labels that the prompt gave its documents to numbers.

A label is the same in every prompt, so an engine can reuse a document's keys and values wherever it stands, and a citation names its
document whatever the order was. People read numbers: they are given afterwards, in the order of the answer.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from retrieval.prompt import LABEL_CHARS, LONG_LABEL_CHARS

_LABEL = rf"[a-z2-9]{{{LABEL_CHARS},{LONG_LABEL_CHARS}}}"
_GROUP = re.compile(rf"\[\s?({_LABEL}(?:[,;\s]{{1,3}}{_LABEL})*)\s?\]")
"""One label in brackets, or several. Each character can be only one part of it: what a model writes must not make the search slow."""
_BETWEEN = re.compile(r"[,;\s]+")
_MAX_OPEN = 200
_OPEN = re.compile(rf"\[[a-z2-9,;\s]{{0,{_MAX_OPEN}}}\Z")
"""What may become one with the text to come."""


@dataclass(frozen=True, slots=True)
class Citation:
    number: int
    """As the answer has it, from 1 on."""
    hit: int
    """The place of what is cited among the hits."""
    at: int
    """Where its bracket begins, in characters of the answer's text."""


class Citer:
    """One answer's text, piece by piece. Labels that no document of the prompt has are left as they are."""

    def __init__(self, labels: Sequence[str], shown: Callable[[Citation], str] = lambda citation: str(citation.number)) -> None:
        """`labels`: of the hits; `shown`: what stands between the brackets instead."""
        self._hits = {label: hit for hit, label in enumerate(labels)}
        self._shown = shown
        self._numbers: dict[int, int] = {}
        self._open = ""
        self._length = 0

    def feed(self, text: str) -> tuple[str, list[Citation]]:
        """What can be said by now, and the citations in it. What may be the beginning of a label is held back."""
        text = self._open + text
        held = _OPEN.search(text)
        end = held.start() if held else len(text)
        self._open = text[end:]
        return self._numbered(text[:end])

    def end(self) -> str:
        """What is left when nothing more will come."""
        rest, self._open = self._open, ""
        return rest

    def _numbered(self, text: str) -> tuple[str, list[Citation]]:
        parts, citations, done = [], [], 0
        for group in _GROUP.finditer(text):
            hits = [self._hits.get(label) for label in _BETWEEN.split(group[1])]
            if None in hits:
                continue
            parts.append(text[done : group.start()])
            self._length += len(parts[-1])
            for hit in dict.fromkeys(hit for hit in hits if hit is not None):
                citation = Citation(self._numbers.setdefault(hit, len(self._numbers) + 1), hit, self._length)
                citations.append(citation)
                parts.append(f"[{self._shown(citation)}]")
                self._length += len(parts[-1])
            done = group.end()
        parts.append(text[done:])
        self._length += len(parts[-1])
        return "".join(parts), citations
