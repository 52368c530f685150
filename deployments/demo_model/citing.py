"""Measures how well a model reads documents: whether it cites the right one, and copies the right sentence, wherever that stands."""

import json
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from deployments.demo_model import DOCUMENTS
from deployments.demo_model.data import LABEL_LETTERS, OffTopic, load_facts
from deployments.demo_model.passages import Librarian, Shares, Size
from deployments.demo_model.prose import sentences
from deployments.demo_model.reading import blocks, labels, rank_line
from deployments.demo_model.samples import Message

Answers = Callable[[list[list[Message]]], list[str]]
CITED = re.compile(rf"\[([{LABEL_LETTERS}]{{6}})\]")
SEED = 20_000
"""Training draws from small seeds."""


@dataclass(frozen=True)
class Citation:
    """A prompt, the label that its answer has to cite (None: none), where that document stands, and the sentences that may be copied."""

    messages: list[Message]
    label: str | None
    place: int
    accepted: frozenset[str]


@dataclass(frozen=True)
class Score:
    """Shares of the cases."""

    cases: int
    cited: float
    text: float
    by_place: tuple[float, ...]


def citation(documents: Sequence[str], support: int | None, question: str, accepted: Iterable[str], rng: random.Random) -> Citation:
    """The documents as they are ordered, under random labels; the line with the ranks is in random order."""
    names = labels(len(documents), rng)
    text = f"{blocks(documents, names)}{rank_line(rng.sample(names, len(names)))}\n\n{question}"
    label = None if support is None else names[support]
    return Citation([{"role": "user", "content": text}], label, support or 0, frozenset(accepted))


def project_cases(documents: int, seed: int = SEED) -> list[Citation]:
    """Each question of `documents/project.jsonl`, its document among others of the file; the place goes round."""
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = [json.loads(line) for line in DOCUMENTS.read_text().splitlines()]
    cases = []
    for number, row in enumerate(rows):
        shown = [other["text"] for other in rng.sample([other for other in rows if other is not row], documents - 1)]
        shown.insert(number % documents, row["text"])
        cases.append(citation(shown, number % documents, row["question"], sentences(row["text"]), rng))
    return cases


def invented_cases(documents: int, sentences_each: int, count: int, words: Sequence[str], seed: int = SEED) -> list[Citation]:
    """Statements of the kinds that training shows, with other names and values."""
    rng = random.Random(seed + documents)
    librarian = Librarian(load_facts(), OffTopic(), words, rng)
    cases = []
    for number in range(count):
        reading = librarian.reading(Size(documents, sentences_each, 1), Shares(unanswered=0.0))
        ask, texts = reading.asks[0], list(reading.documents)
        if ask.support is not None:
            place = number % documents
            texts.insert(place, texts.pop(ask.support))
            cases.append(citation(texts, place, ask.question, [ask.answer], rng))
    return cases


def score(cases: Sequence[Citation], answers: Answers) -> Score:
    given = answers([case.messages for case in cases])
    cited = [set(CITED.findall(answer)) == ({case.label} if case.label else set()) for case, answer in zip(cases, given, strict=True)]
    copied = [re.sub(r" \[[^]]*\]$", "", answer) in case.accepted for case, answer in zip(cases, given, strict=True)]
    places = range(max(case.place for case in cases) + 1)
    return Score(
        len(cases),
        _share(cited),
        _share(copied),
        tuple(_share([right for case, right in zip(cases, cited, strict=True) if case.place == place]) for place in places),
    )


def _share(values: Sequence[bool]) -> float:
    return sum(values) / max(1, len(values))
