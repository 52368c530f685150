"""Training texts in which documents stand before several questions, laid out as the retrieval tier does."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from deployments.demo_model.data import label
from deployments.demo_model.samples import HINTS, Message
from deployments.demo_model.tokenizer import ASSISTANT, END, USER, render


@dataclass(frozen=True)
class Ask:
    """A question and its answer. `support` is the place of the document that the answer cites, or None for no citation."""

    question: str
    answer: str
    support: int | None


@dataclass(frozen=True)
class Reading:
    """Documents and what is asked of them. Each question is asked alone: none sees another."""

    documents: Sequence[str]
    asks: Sequence[Ask]


@dataclass(frozen=True)
class Segment:
    """A text, and which of its characters are learnt: those from `learnt_from` on."""

    text: str
    learnt_from: int


@dataclass(frozen=True)
class Tree:
    """A text that several others continue. None of these sees another."""

    trunk: str
    branches: Sequence[Segment]


def labels(count: int, rng: random.Random) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found[label(rng)] = None
    return list(found)


def blocks(documents: Sequence[str], names: Sequence[str]) -> str:
    return "".join(f"[{name}]\n{text}\n\n" for name, text in zip(names, documents, strict=True))


def rank_line(names: Sequence[str]) -> str:
    return HINTS[0].format(" ".join(f"[{name}]" for name in names))


def tree(reading: Reading, before: Sequence[Message], rng: random.Random) -> Tree:
    """The documents in random order under random labels. The line with the ranks tells nothing: no question stands for it."""
    order = rng.sample(range(len(reading.documents)), len(reading.documents))
    names = labels(len(order), rng)
    shown = blocks([reading.documents[place] for place in order], names)
    trunk = f"{render(before)}{USER}\n{shown}{rank_line(rng.sample(names, len(names)))}\n"
    return Tree(trunk, [_branch(ask, None if ask.support is None else names[order.index(ask.support)]) for ask in reading.asks])


def _branch(ask: Ask, name: str | None) -> Segment:
    question = f"\n{ask.question}{END}\n{ASSISTANT}\n"
    answer = ask.answer if name is None else f"{ask.answer} [{name}]"
    return Segment(f"{question}{answer}{END}\n", len(question))
