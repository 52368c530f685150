"""Measures how well a model reads documents: whether it cites the right one and quotes a sentence of it, wherever that stands."""

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from deployments.demo_model import DOCUMENTS
from deployments.demo_model.chapters import Chapters
from deployments.demo_model.data import load_facts
from deployments.demo_model.passages import Librarian, Size
from deployments.demo_model.prose import sentences
from deployments.demo_model.reading import Ask, Page, Reading, tree
from deployments.demo_model.samples import Message
from deployments.demo_model.tokenizer import USER
from retrieval.prompt import ALPHABET, LABEL_CHARS

Answers = Callable[[list[list[Message]]], list[str]]
CITED = re.compile(rf"\[([{ALPHABET}]{{{LABEL_CHARS}}})\]")
SEED = 20_000
"""Training draws from small seeds."""


@dataclass(frozen=True)
class Citation:
    """A prompt, the label that its answer has to cite, at which place among the documents that stands, and what may be quoted."""

    messages: list[Message]
    label: str
    place: int
    accepted: frozenset[str]


@dataclass(frozen=True)
class Score:
    """Shares of the cases."""

    cases: int
    cited: float
    quoted: float
    by_place: tuple[float, ...]


def project_cases(count: int, rank: int | None = None, seed: int = SEED) -> list[Citation]:
    """Each question of `documents/project.jsonl`, its document among `count` of the file. `rank`: of the right one, or any (None)."""
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = [json.loads(line) for line in DOCUMENTS.read_text().splitlines()]
    cases = []
    for row in rows:
        shown = rng.sample([other for other in rows if other is not row], count - 1)
        at = rng.randrange(count) if rank is None else rank
        shown.insert(at, row)
        pages = [Page.of(parts := sentences(other["text"]), [" "] * (len(parts) - 1)) for other in shown]
        cases += _cases(Reading(pages, [Ask(row["question"], at, 0)]), rng, sentences(row["text"]))
    return cases


def invented_cases(pages: int, sentences_each: int, count: int, words: Sequence[str], seed: int = SEED) -> list[Citation]:
    """Statements of the kinds that training shows, with other names and values."""
    rng = random.Random(seed + pages)
    librarian = Librarian(load_facts(), words, rng)
    return [case for _ in range(count) for case in _cases(librarian.reading(Size(pages, sentences_each, 1)), rng)]


def markdown_cases(pieces: int, count: int, words: Sequence[str], seed: int = SEED) -> list[Citation]:
    """Pieces of the project's Markdown, most of them with words exchanged."""
    rng = random.Random(seed + pieces)
    chapters, found = Chapters(words, rng), list[Citation]()
    while len(found) < count:
        found += _cases(chapters.reading(pieces, 1), rng)
    return found


def _cases(reading: Reading, rng: random.Random, accepted: Sequence[str] = ()) -> list[Citation]:
    """`accepted`: what may be quoted; without, the sentence that answers."""
    made = tree(reading, [], rng)
    begun = sorted(page.label[0] for page in made.pages)
    found = []
    for ask, branch in zip(reading.asks, made.branches, strict=True):
        at, (first, last) = made.pages[branch.page].label[0], reading.pages[ask.page].sentences[ask.sentence]
        content = made.trunk.removeprefix(f"{USER}\n") + f"\n{ask.question}"
        quotes = frozenset(accepted or [reading.pages[ask.page].text[first:last]])
        found.append(Citation([{"role": "user", "content": content}], made.trunk[at : at + LABEL_CHARS], begun.index(at), quotes))
    return found


def score(cases: Sequence[Citation], answers: Answers) -> Score:
    given = answers([case.messages for case in cases])
    cited = [CITED.findall(answer) == [case.label] for case, answer in zip(cases, given, strict=True)]
    quoted = [CITED.sub("", answer, count=1).strip() in case.accepted for case, answer in zip(cases, given, strict=True)]
    places = range(max(case.place for case in cases) + 1)
    by_place = [_share([right for case, right in zip(cases, cited, strict=True) if case.place == place]) for place in places]
    return Score(len(cases), _share(cited), _share(quoted), tuple(by_place))


def _share(values: Sequence[bool]) -> float:
    return sum(values) / max(1, len(values))
