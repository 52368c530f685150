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
_SEPARATOR_CHARS = 3


@dataclass(frozen=True, slots=True)
class Citation:
    number: int
    """As the answer has it, from 1 on."""
    hit: int
    """The place of what is cited among the hits."""
    at: int
    """Where its bracket begins, in characters of the answer's text."""


class Citer:
    """One answer's text, piece by piece. Labels that no document of the prompt has stay."""

    def __init__(self, labels: Sequence[str], shown: Callable[[Citation], str] | None = lambda citation: str(citation.number)) -> None:
        """`labels`: of the hits; `shown`: what stands between the brackets instead; None: the text stays as it is."""
        self._hits = {label: hit for hit, label in enumerate(labels)}
        self._shown = shown
        self._longest = sum(len(label) + _SEPARATOR_CHARS for label in labels)
        """Of what can stand in one bracket: every label once."""
        self._may_follow = re.compile(rf"\[[a-z2-9,;\s]{{0,{self._longest}}}\Z")
        """What may become a citation with the text to come."""
        self._numbers: dict[int, int] = {}
        self._open = ""
        self._length = 0

    def feed(self, text: str) -> tuple[str, list[Citation]]:
        """What can be said by now, and the citations in it. What may be the beginning of a label is held back."""
        text = self._open + text
        held = self._may_follow.search(text)
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
            written = dict.fromkeys(_BETWEEN.split(group[1]))
            if len(group[0]) - len("[]") > self._longest or not written.keys() & self._hits.keys():
                continue
            parts.append(text[done : group.start()])
            self._length += len(parts[-1])
            rewritten = ""
            for label in written:
                hit = self._hits.get(label)
                if hit is None:
                    rewritten += f"[{label}]"
                    continue
                at = self._length + len(rewritten) if self._shown else self._length
                citations.append(citation := Citation(self._numbers.setdefault(hit, len(self._numbers) + 1), hit, at))
                rewritten += f"[{self._shown(citation)}]" if self._shown else ""
            parts.append(rewritten if self._shown else group[0])
            self._length += len(parts[-1])
            done = group.end()
        parts.append(text[done:])
        self._length += len(parts[-1])
        return "".join(parts), citations
