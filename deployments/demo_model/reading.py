"""Training texts in which documents stand before questions, laid out as the retrieval tier does."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from deployments.demo_model.samples import HINTS, Message
from deployments.demo_model.tokenizer import ASSISTANT, END, USER, render
from retrieval.prompt import ALPHABET, LABEL_CHARS


@dataclass(frozen=True)
class Page:
    """A document's text, and where each of its sentences begins and ends, in characters."""

    text: str
    sentences: Sequence[tuple[int, int]]

    @classmethod
    def of(cls, sentences: Sequence[str], joints: Sequence[str]) -> "Page":
        """`joints`: what stands before each sentence but the first."""
        text, spans = "", list[tuple[int, int]]()
        for joint, sentence in zip(("", *joints), sentences, strict=True):
            start = len(text) + len(joint)
            text += joint + sentence
            spans.append((start, len(text)))
        return cls(text, spans)


@dataclass(frozen=True)
class Ask:
    """A question, and the page and the sentence that answer it."""

    question: str
    page: int
    sentence: int


@dataclass(frozen=True)
class Reading:
    """Pages, most relevant first, and what is asked of them. Each question is asked alone: none sees another."""

    pages: Sequence[Page]
    asks: Sequence[Ask]


@dataclass(frozen=True)
class Shown:
    """Where a page is in the trunk, in characters."""

    label: tuple[int, int]
    sentences: Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Branch:
    """A question and its answer: the label in brackets, then the sentence with the white space that stands before it."""

    question: str
    answer: str
    page: int
    sentence: int


@dataclass(frozen=True)
class Tree:
    """A text that several others continue. None of these sees another."""

    trunk: str
    pages: Sequence[Shown]
    ranks_at: int
    """Where the line with the ranks begins, in characters of the trunk."""
    branches: Sequence[Branch]


def label(rng: random.Random) -> str:
    """A name for a document, as the retrieval tier gives them: it means nothing."""
    return "".join(rng.choice(ALPHABET) for _ in range(LABEL_CHARS))


def labels(count: int, rng: random.Random) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found[label(rng)] = None
    return list(found)


def rank_line(names: Sequence[str]) -> str:
    return HINTS[0].format(" ".join(f"[{name}]" for name in names))


def tree(reading: Reading, before: Sequence[Message], rng: random.Random) -> Tree:
    """The pages in random order under random labels, and the line with their ranks."""
    names = labels(len(reading.pages), rng)
    trunk = f"{render(before)}{USER}\n"
    shown: dict[int, Shown] = {}
    for place in rng.sample(range(len(names)), len(names)):
        page, start = reading.pages[place], len(trunk) + 1
        trunk += f"[{names[place]}]\n"
        shown[place] = Shown((start, start + LABEL_CHARS), [(len(trunk) + first, len(trunk) + last) for first, last in page.sentences])
        trunk += f"{page.text}\n\n"
    ranks_at = len(trunk)
    trunk += f"{rank_line(names)}\n"
    branches = [_branch(ask, names[ask.page], reading.pages[ask.page]) for ask in reading.asks]
    return Tree(trunk, [shown[place] for place in range(len(names))], ranks_at, branches)


def _branch(ask: Ask, name: str, page: Page) -> Branch:
    start, end = page.sentences[ask.sentence]
    space = page.text[start - 1] if start else "\n"
    return Branch(f"\n{ask.question}{END}\n{ASSISTANT}\n", f"[{name}]{space}{page.text[start:end]}{END}\n", ask.page, ask.sentence)
