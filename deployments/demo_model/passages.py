"""Draws documents with questions: from invented statements, from disguised sentences of the project, and from the known facts."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from deployments.demo_model.data import Fact
from deployments.demo_model.invented import Inventor, Statement, reworded
from deployments.demo_model.prose import Disguise, asked, own_lines, own_sentences, sentences, telling
from deployments.demo_model.reading import Ask, Page, Reading
from deployments.demo_model.samples import vary

MADE_QUESTIONS = 3
LINE_SHARE = 0.08
WRAPPED_SHARE, MIN_WRAPPED = 0.1, 5
SMALL_TALK = "talk-"
JOINTS = (" ", " ", " ", " ", "\n", "\n\n")


@dataclass(frozen=True)
class Size:
    """Limits of a reading: pages, sentences in each, questions in all."""

    pages: int
    sentences: int
    asks: int
    rank_share: float = 1.0
    """Of the questions that no page before answers, a page answers this share; 1: all pages are asked as often, and ranks tell nothing."""


class Librarian:
    """Draws readings; the same random numbers give the same readings."""

    def __init__(self, facts: Sequence[Fact], words: Sequence[str], rng: random.Random) -> None:
        self._facts = [fact for fact in facts if not fact.id.startswith(SMALL_TALK)]
        self._rng = rng
        self._inventor = Inventor(rng)
        self._disguise = Disguise(words, rng)
        self._own, self._lines = own_sentences(), own_lines()

    def reading(self, size: Size) -> Reading:
        """Pages of statements, and questions for statements anywhere in them."""
        rng = self._rng
        counts = [rng.randint(1, size.sentences) for _ in range(size.pages)]
        statements = self._statements(sum(counts))
        shelves = [[statements.pop(), *(self._or_line(statements.pop()) for _ in range(count - 1))] for count in counts]
        pages = [Page.of([self._wrapped(each.sentence) for each in shelf], [rng.choice(JOINTS) for _ in shelf[1:]]) for shelf in shelves]
        return Reading(pages, [self._ask(shelves, size.rank_share) for _ in range(size.asks)])

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

    def _ask(self, shelves: Sequence[Sequence[Statement]], rank_share: float) -> Ask:
        rng = self._rng
        page = rng.choices(range(len(shelves)), [rank_share**place for place in range(len(shelves))])[0]
        place = rng.choice([place for place, statement in enumerate(shelves[page]) if statement.questions])
        return Ask(self._varied(reworded(rng.choice(shelves[page][place].questions), rng)), page, place)

    def _wrapped(self, sentence: str) -> str:
        """Now and then with a line break, as in texts of a fixed width."""
        words = sentence.split(" ")
        if len(words) < MIN_WRAPPED or self._rng.random() > WRAPPED_SHARE:
            return sentence
        at = self._rng.randrange(2, len(words) - 1)
        return f"{' '.join(words[:at])}\n{' '.join(words[at:])}"

    def _or_line(self, statement: Statement) -> Statement:
        """Now and then a line that nobody asks for."""
        return Statement(self._rng.choice(self._lines), (), "") if self._rng.random() < LINE_SHARE else statement

    def _varied(self, question: str) -> str:
        question = question[:1].upper() + question[1:] if self._rng.random() < 0.7 else question
        return vary(question, self._rng) if self._rng.random() < 0.4 else question
