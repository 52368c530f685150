"""Draws documents with questions: from invented statements, from disguised sentences of the project, and from the known facts."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from deployments.demo_model.data import NOT_SAID, Fact, OffTopic
from deployments.demo_model.invented import Inventor, Statement, reworded
from deployments.demo_model.prose import Disguise, asked, own_sentences, sentences, telling
from deployments.demo_model.reading import Ask, Reading
from deployments.demo_model.samples import vary

MADE_QUESTIONS = 3
SMALL_TALK = "talk-"
JOINTS = (" ", " ", " ", " ", "\n", "\n\n")


@dataclass(frozen=True)
class Size:
    """Limits of a reading: documents, sentences in each, questions in all."""

    documents: int
    sentences: int
    asks: int


@dataclass(frozen=True)
class Shares:
    """Of questions: how many ask for a known fact that a document holds, for a known fact that none holds, for what nothing answers."""

    known: float = 0.0
    known_elsewhere: float = 0.0
    unanswered: float = 0.06


class Librarian:
    """Draws readings; the same random numbers give the same readings."""

    def __init__(self, facts: Sequence[Fact], off_topic: OffTopic, words: Sequence[str], rng: random.Random) -> None:
        self._facts = [fact for fact in facts if not fact.id.startswith(SMALL_TALK)]
        self._off_topic, self._rng = off_topic, rng
        self._inventor = Inventor(rng)
        self._disguise = Disguise(words, rng)
        self._own = own_sentences()

    def reading(self, size: Size, shares: Shares) -> Reading:
        """Documents of 1 to `size.sentences` statements, and questions for statements anywhere in them."""
        rng = self._rng
        counts = [rng.randint(1, size.sentences) for _ in range(size.documents)]
        statements = self._statements(sum(counts))
        shelves = [[statements.pop() for _ in range(count)] for count in counts]
        known = {place: rng.choice(self._facts) for place in range(size.documents) if rng.random() < 2 * shares.known}
        texts = [self._text(shelf, known.get(place)) for place, shelf in enumerate(shelves)]
        return Reading(texts, [self._ask(shelves, known, shares) for _ in range(size.asks)])

    def _statements(self, count: int) -> list[Statement]:
        """Distinct ones, of which some are about the same thing."""
        rng = self._rng
        names = [self._inventor.name() for _ in range(max(2, count * 2 // 3))]
        source, made, seen = rng.random(), list[Statement](), set[str]()
        while len(made) < count:
            drawn = rng.random() if source < 0.5 else source
            statement = (
                self._inventor.statement(rng.choice(names)) if drawn < 0.7 else self._from_fact() if drawn < 0.82 else self._from_prose()
            )
            if statement.sentence not in seen:
                seen.add(statement.sentence)
                made.append(statement)
        return made

    def _from_fact(self) -> Statement:
        """A sentence of an answer, with the fact's questions as far as they share a word with it."""
        fact = self._rng.choice(self._facts)
        sentence = self._rng.choice(sentences(fact.answer)[:2])
        fitting = [question for question in fact.questions if telling(question) & telling(sentence)]
        own = Statement(sentence, tuple(fitting or [asked(sentence, self._rng)]), "")
        return self._disguise.statement(own, self._rng.uniform(0.3, 0.8))

    def _from_prose(self) -> Statement:
        rng = self._rng
        sentence = rng.choice(self._own)
        statement = Statement(sentence, tuple(asked(sentence, rng) for _ in range(MADE_QUESTIONS)), "")
        return self._disguise.statement(statement, rng.uniform(0.2, 0.7)) if rng.random() < 0.6 else statement

    def _text(self, shelf: Sequence[Statement], fact: Fact | None) -> str:
        rng = self._rng
        parts = [statement.sentence for statement in shelf]
        if fact:
            parts.insert(rng.randint(0, len(parts)), fact.answer)
        text = parts[0]
        for part in parts[1:]:
            text += rng.choice(JOINTS) + part
        title = rng.choice(shelf).topic.removeprefix("the ")
        return f"# {title}\n{text}" if title and rng.random() < 0.1 else text

    def _ask(self, shelves: Sequence[Sequence[Statement]], known: dict[int, Fact], shares: Shares) -> Ask:
        rng = self._rng
        kind = rng.random()
        if kind < shares.unanswered:
            question = self._off_topic.draw(rng) if rng.random() < 0.4 else rng.choice(self._statements(1)[0].questions)
            return Ask(self._varied(question), NOT_SAID, None)
        kind -= shares.unanswered
        if kind < shares.known_elsewhere:
            fact = rng.choice([fact for fact in rng.sample(self._facts, 8) if fact not in known.values()])
            return Ask(self._varied(rng.choice(fact.questions)), fact.answer, None)
        if kind - shares.known_elsewhere < shares.known and known:
            place = rng.choice(list(known))
            return Ask(self._varied(rng.choice(known[place].questions)), known[place].answer, place)
        place = rng.randrange(len(shelves))
        statement = rng.choice(shelves[place])
        return Ask(self._varied(reworded(rng.choice(statement.questions), rng)), statement.sentence, place)

    def _varied(self, question: str) -> str:
        question = question[:1].upper() + question[1:] if self._rng.random() < 0.7 else question
        return vary(question, self._rng) if self._rng.random() < 0.4 else question
