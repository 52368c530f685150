"""Invented facts from `data/relations.json`: random names, things and values, in sentences with questions that fit them."""

import json
import random
from dataclasses import dataclass
from typing import Any

from deployments.demo_model.data import DATA, nonsense

SYNONYMS = {
    "built": "made",
    "keep": "hold",
    "keeps": "holds",
    "stop": "end",
    "size": "extent",
    "price": "cost",
    "cost": "price",
    "begin": "start",
    "fast": "quick",
    "large": "big",
    "small": "little",
    "old": "aged",
    "timeout": "time limit",
    "remove": "delete",
    "removes": "deletes",
    "repair": "fix",
    "repairs": "fixes",
}


@dataclass(frozen=True)
class Statement:
    """A sentence, and questions that it answers. Statements of one `topic` are easily taken for one another."""

    sentence: str
    questions: tuple[str, ...]
    topic: str


class Inventor:
    """Draws statements. `name` is drawn anew for each, unless one is given."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._data: dict[str, Any] = json.loads((DATA / "relations.json").read_text())

    def statement(self, name: str | None = None) -> Statement:
        kind = self._rng.random()
        if kind < 0.45:
            return self.related(name or self.name())
        if kind < 0.65:
            return self.attributed(name or self.thing())
        return self.acting(name or self.thing())

    def name(self) -> str:
        """Of a person, a place, a tool or a thing."""
        rng = self._rng
        kind = rng.random()
        if kind < 0.35:
            return self.thing()
        if kind < 0.5:
            return f"{rng.choice(self._data['people'])} {nonsense(rng).split()[0].capitalize()}"
        word = " ".join(nonsense(rng).split()[:1])
        if kind < 0.6:
            return f"{word}{rng.choice('_-.')}{rng.choice(self._data['nouns'])}"
        if kind < 0.75:
            return f"the {word.capitalize()} {rng.choice(self._data['nouns'])}"
        return word.capitalize()

    def thing(self) -> str:
        rng = self._rng
        noun = rng.choice(self._data["nouns"])
        if rng.random() < 0.25:
            noun = f"{rng.choice(self._data['nouns'])} {noun}"
        return f"the {rng.choice(self._data['adjectives'])} {noun}" if rng.random() < 0.7 else f"the {noun}"

    def related(self, name: str) -> Statement:
        relation = self._rng.choice(self._data["relations"])
        slots = {"name": name, **self._slots()}
        sentence = self._rng.choice(relation["sentences"]).format(**slots)
        return Statement(self._finished(sentence), tuple(question.format(**slots) for question in relation["questions"]), name)

    def attributed(self, thing: str) -> Statement:
        """The attribute of a thing."""
        rng = self._rng
        attribute = rng.choice(self._data["attributes"])
        value = self.value()
        forms = (
            f"the {attribute} of {thing} is {value}.",
            f"{thing} has a {attribute} of {value}.",
            f"for {thing}, the {attribute} is {value}.",
            f"{value} is the {attribute} of {thing}.",
        )
        questions = (
            f"What is the {attribute} of {thing}?",
            f"Which {attribute} does {thing} have?",
            f"{thing} {attribute}",
            f"What {attribute} has {thing}?",
        )
        return Statement(self._finished(rng.choice(forms)), questions, thing)

    def acting(self, thing: str) -> Statement:
        """A thing that does something to another one: somewhere, at some time, somehow or for a reason."""
        rng = self._rng
        base, third, participle = rng.choice(self._data["verbs"])
        other, role = self.thing(), rng.choice(("time", "where", "how", "why"))
        circumstance = rng.choice(self._data["values"][role])
        word = {"time": "When", "where": "Where", "how": "How", "why": "Why"}[role]
        forms = (
            f"{thing} {third} {other} {circumstance}.",
            f"{circumstance}, {thing} {third} {other}.",
            f"{other} is {participle} by {thing} {circumstance}.",
            f"{thing} {third} {other}.",
        )
        bare = other.removeprefix("the ")
        questions = (
            f"What does {thing} {base}?",
            f"What {third} {other}?",
            f"{word} does {thing} {base} {other}?",
            f"{word} is {other} {participle}?",
            f"Which part {third} {other}?",
            f"Who {third} the {bare}?",
            f"What happens to {other}?",
            f"{thing.removeprefix('the ')} {base} {bare}",
        )
        form = rng.randrange(4)
        usable = questions if form < 3 else (questions[0], questions[1], questions[4], questions[5], questions[6], questions[7])
        return Statement(self._finished(forms[form]), usable, thing)

    def value(self) -> str:
        rng, values = self._rng, self._data["values"]
        kind = rng.random()
        if kind < 0.45:
            return f"{self.number()} {rng.choice(values['unit'])}"
        if kind < 0.6:
            return f"{rng.choice(self._data['adjectives'])} {rng.choice(self._data['nouns'])}"
        if kind < 0.7:
            return str(rng.choice(values["material"]))
        if kind < 0.8:
            return str(rng.choice(values["colour"]))
        return nonsense(rng).split()[0].capitalize()

    def number(self) -> str:
        rng = self._rng
        number = rng.choice((rng.randint(2, 20), rng.randint(20, 999), rng.randint(1000, 99999), rng.randint(1, 99) * 100))
        return f"{number:,}" if rng.random() < 0.3 else str(number)

    def _slots(self) -> dict[str, str]:
        rng, data = self._rng, self._data
        values = data["values"]
        return {
            "name2": self.name(),
            "place": nonsense(rng).split()[0].capitalize(),
            "person": f"{rng.choice(data['people'])} {nonsense(rng).split()[0].capitalize()}",
            "number": self.number(),
            "pet": rng.choice(data["pets"]),
            "noun": rng.choice(data["nouns"]),
            "noun2": rng.choice(data["nouns"]),
            "adj": rng.choice(data["adjectives"]),
            "verbs": rng.choice(data["verbs"])[1],
            **{kind: rng.choice(values[kind]) for kind in ("year", "colour", "material", "unit", "food", "time", "where", "why")},
        }

    def _finished(self, sentence: str) -> str:
        """A capital at its start, sometimes behind a few words, or with a few more at its end."""
        rng = self._rng
        if rng.random() < 0.1:
            sentence = rng.choice(self._data["starts"]) + sentence
        if rng.random() < 0.1:
            sentence = sentence.removesuffix(".") + rng.choice(self._data["ends"]) + "."
        return sentence[0].upper() + sentence[1:]


def reworded(question: str, rng: random.Random) -> str:
    """Some words exchanged for others of the same meaning."""
    return " ".join(SYNONYMS[word] if word in SYNONYMS and rng.random() < 0.5 else word for word in question.split(" "))
