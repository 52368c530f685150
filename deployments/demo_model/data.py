"""The facts that the model learns, and the questions that it must refuse."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"
THEMES = ("mygo", "caching", "serving", "search", "operations", "smalltalk")
HOLD_OUT_EVERY = 7
CONSONANTS, VOWELS = "bdfghjklmnprstvwz", "aeiou"
NONSENSE_TEMPLATES = (
    "What is {}?",
    "What is a {}?",
    "What are {}?",
    "How does {} work?",
    "Explain {}.",
    "What does {} mean?",
    "What does {} stand for?",
    "What is {} used for?",
    "What does the {} do?",
    "How do I use {}?",
    "Why does {} matter?",
    "Which {} should I use?",
    "What is the difference between {} and the sea?",
    "{}",
    "Who is {}?",
)


@dataclass(frozen=True)
class Fact:
    """One thing to know: `questions` are trained, `held_out` is one more phrasing that training never sees."""

    id: str
    questions: tuple[str, ...]
    held_out: str | None
    answer: str


def load_facts() -> list[Fact]:
    """All facts, in the order of the files. Every seventh keeps its last phrasing out of training."""
    rows = [json.loads(line) for theme in THEMES for line in (DATA / f"{theme}.jsonl").read_text().splitlines()]
    return [_fact(row, hold_out=index % HOLD_OUT_EVERY == 0 and len(row["questions"]) > 3) for index, row in enumerate(rows)]


def _fact(row: dict[str, Any], *, hold_out: bool) -> Fact:
    questions = tuple(row["questions"])
    if hold_out:
        return Fact(row["id"], questions[:-1], questions[-1], row["answer"])
    return Fact(row["id"], questions, None, row["answer"])


class OffTopic:
    """Questions about anything else, made from topics (templates and items) and from lists of single questions.

    Some topics and some single questions are held out: `draw` never gives them, `held_out` gives nothing else.
    """

    def __init__(self) -> None:
        data: dict[str, Any] = json.loads((DATA / "offtopic.json").read_text())
        self.refusal: str = data["refusal"]
        self._topics = [topic for topic in data["topics"] if not topic["held_out"]]
        self._held_out_topics = [topic for topic in data["topics"] if topic["held_out"]]
        self._singles: list[str] = data["single_questions"]
        self._held_out_singles: list[str] = data["held_out_single_questions"]
        self._free_items = [item for topic in self._topics if not topic["name"].startswith("domain") for item in topic["items"]]

    def draw(self, rng: random.Random) -> str:
        """One off-topic question for training."""
        kind = rng.random()
        if kind < 0.2:
            return rng.choice(self._singles)
        if kind < 0.28:
            return rng.choice(NONSENSE_TEMPLATES).format(nonsense(rng))
        topic = rng.choice(self._topics)
        template = rng.choice(topic["templates"])
        # A wrong or meaningless item is still off topic, and shows that words never seen before are a reason to refuse.
        if kind < 0.4:
            return str(template.format(nonsense(rng)))
        return str(template.format(rng.choice(self._free_items if kind < 0.52 else topic["items"])))

    def held_out(self) -> list[str]:
        """Every question of the held-out topics, then the held-out single questions."""
        made = [template.format(item) for topic in self._held_out_topics for template in topic["templates"] for item in topic["items"]]
        return [*made, *self._held_out_singles]

    def texts(self) -> Iterator[str]:
        """What the tokenizer learns from: everything that training may show."""
        yield from self._singles
        for topic in self._topics:
            yield from topic["templates"]
            yield from topic["items"]


def nonsense(rng: random.Random) -> str:
    """One to three words that mean nothing."""
    words = ("".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(rng.randint(1, 4))) for _ in range(rng.randint(1, 3)))
    return " ".join(words)
