"""Minimal edits of questions, made by rule: pairs a word apart, of which human-labelled collections have few.

Most edits ask for something else (a word of the same slot, a name, a number, a negation, an opposite, the question word, the order,
a restriction); some ask the same (another frame, a contraction, a greeting, case, a synonym). What a rule takes for different is so
but for a few per cent, as with labels made by people.
"""

import itertools
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from cache.guards import lexicon
from cache.verifiers.pairs import LabelledPair

LONGEST: Final = 14
"""Words of a question that is edited: in a long one, a word is less of the whole."""
TRIES: Final = 6

_WORD: Final = re.compile(r"[A-Za-z]{3,}")
_NUMBER: Final = re.compile(r"\d{1,4}")
_FUNCTION: Final = frozenset(lexicon.words("function")) | lexicon.bag(
    "the and for with from are you your what why how who when where which"
)
_QUESTION_WORD: Final = re.compile(r"^(why|how|when|where) (?=(?:do|does|did|is|are|was|were|can|should)\b)", re.IGNORECASE)
_ARTICLE: Final = re.compile(r"\b(?:the|a|an) ", re.IGNORECASE)
_AUXILIARY: Final = re.compile(r"\b(is|are|do|does|did|can|could|should|will|would|has|have|was|were)\b(?! not\b|n't)", re.IGNORECASE)
_OPERANDS: Final = re.compile(r"(?:(?<=from )(\w{3,}) (to) (\w{3,})|\b(\w{3,}) (into|than|over|versus|vs) (\w{3,}))\b", re.IGNORECASE)
_RESTRICTION: Final = re.compile(r"(?<=[a-z]) ((?:in|for|at|on|with|without|near|under|after|before) (?:[\w']+ ?){1,3})\?$")
_FRAMES: Final = (
    (
        "how do i ",
        "how can i ",
        "how to ",
        "how do you ",
        "what is the best way to ",
        "how does one ",
        "what's the way to ",
        "how should i ",
    ),
    ("what is ", "what's ", "can you tell me what is ", "i want to know: what is "),
    ("what are ", "which are ", "do you know what are "),
)
_CONTRACTIONS: Final = (
    ("is not", "isn't"),
    ("do not", "don't"),
    ("cannot", "can't"),
    ("does not", "doesn't"),
    ("what is", "what's"),
    ("who is", "who's"),
)
_GREETINGS: Final = ("Please tell me: ", "Hi, ", "Hello! ", "Quick question: ", "I would like to know, ")
_THANKS: Final = (" Thanks!", " Please help.", " Thank you.")


def edited(questions: Sequence[str], number: int, seed: int) -> list[LabelledPair]:
    """`number` edits of these questions, by all rules in turn: two that differ for one that is the same. Deterministic."""
    rng = random.Random(seed)
    short = [question for question in questions if 3 <= len(question.split()) <= LONGEST]
    slots = _Slots(short)
    different: tuple[_Rule, ...] = (
        slots.word,
        slots.name,
        _number,
        _negate,
        slots.opposite,
        _question_word,
        _swap,
        slots.restrict,
        slots.word,
        slots.name,
    )
    same: tuple[_Rule, ...] = (_reframe, _contract, _greet, _recase, slots.synonym)
    found: list[LabelledPair] = []
    while short and len(found) < number:
        is_same = len(found) % 3 == 2
        rule = rng.choice(same if is_same else different)
        pair = _first(rule, short, rng)
        if pair:
            found.append(LabelledPair(*pair, is_same))
    return found


_Rule = Callable[[str, random.Random], str | None]


def _first(rule: _Rule, questions: Sequence[str], rng: random.Random) -> tuple[str, str] | None:
    """The first question, of some drawn, that the rule has an edit for."""
    for _ in range(TRIES * 10):
        question = rng.choice(questions)
        other = rule(question, rng)
        if other and other != question:
            return question, other
    return None


class _Slots:
    """What stands where in a collection of questions: words by the word before them, restrictions, and the word lists."""

    def __init__(self, questions: Iterable[str]) -> None:
        self._after: dict[str, list[str]] = defaultdict(list)
        self._restrictions: list[str] = []
        for question in questions:
            words = question.rstrip("?").split()
            for before, word in itertools.pairwise(words):
                if _WORD.fullmatch(word):
                    self._after[before.lower()].append(word)
            found = _RESTRICTION.search(question)
            if found:
                self._restrictions.append(found[1])
        self._opposites = _exchanges((left, right) for left, right in lexicon.opposites("antonyms"))
        self._synonyms = _exchanges((group[:1], group[1:]) for group in lexicon.groups("synonyms"))

    def word(self, question: str, rng: random.Random) -> str | None:
        """Another word of the same slot, case and ending in place of a content word."""
        return self._exchange(question, rng, str.islower)

    def name(self, question: str, rng: random.Random) -> str | None:
        return self._exchange(question, rng, lambda word: not word.islower())

    def _exchange(self, question: str, rng: random.Random, fits: Callable[[str], bool]) -> str | None:
        words = question.rstrip("?").split()
        places = [i for i in range(1, len(words)) if _WORD.fullmatch(words[i]) and fits(words[i]) and words[i].lower() not in _FUNCTION]
        if not places:
            return None
        place = rng.choice(places)
        for _ in range(TRIES):
            other = rng.choice(self._after[words[place - 1].lower()])
            if fits(other) and other.lower() not in _FUNCTION and _is_another(other, words[place]):
                return " ".join([*words[:place], other, *words[place + 1 :]]) + "?"
        return None

    def opposite(self, question: str, rng: random.Random) -> str | None:
        return _replace_one(question, self._opposites, rng)

    def synonym(self, question: str, rng: random.Random) -> str | None:
        return _replace_one(question, self._synonyms, rng)

    def restrict(self, question: str, rng: random.Random) -> str | None:
        if not question.endswith("?") or _RESTRICTION.search(question):
            return None
        return f"{question[:-1]} {rng.choice(self._restrictions)}?" if self._restrictions else None


def _is_another(word: str, of: str) -> bool:
    """Not a form of the same word, and by its ending perhaps of the same kind."""
    return word[:4].lower() != of[:4].lower() and word[-1] == of[-1]


def _exchanges(sides: Iterable[tuple[Sequence[str], Sequence[str]]]) -> dict[str, list[str]]:
    """For each word, what may take its place from the other side."""
    found: dict[str, list[str]] = defaultdict(list)
    for left, right in sides:
        for word in left:
            found[word] += right
        for word in right:
            found[word] += left
    return found


def _replace_one(question: str, exchanges: dict[str, list[str]], rng: random.Random) -> str | None:
    places = [word for word in dict.fromkeys(_WORD.findall(question)) if word in exchanges]
    if not places:
        return None
    word = rng.choice(places)
    return re.sub(rf"\b{word}\b", rng.choice(exchanges[word]), question, count=1)


def _number(question: str, rng: random.Random) -> str | None:
    found = _NUMBER.search(question)
    if not found:
        return None
    value = int(found[0])
    other = rng.choice([value + 1, max(0, value - 1), value * 10, value + 10, value * 2 + 3])
    return question[: found.start()] + str(other) + question[found.end() :]


def _negate(question: str, rng: random.Random) -> str | None:
    found = _AUXILIARY.search(question)
    if not found:
        return None
    said = found[0].lower()
    if rng.random() < 0.5:
        contracted = {"can": "can't", "will": "won't"}.get(said, f"{said}n't")
        return question[: found.start()] + (contracted.capitalize() if found.start() == 0 else contracted) + question[found.end() :]
    words = question[found.end() :].split()
    if len(words) < 2:
        return None
    return f"{question[: found.end()]} {words[0]} not {' '.join(words[1:])}"


def _question_word(question: str, rng: random.Random) -> str | None:
    found = _QUESTION_WORD.search(question)
    if not found:
        return None
    others = [word for word in ("Why", "How", "When", "Where") if word.lower() != found[1].lower()]
    return f"{rng.choice(others)} {question[found.end() :]}"


def _swap(question: str, rng: random.Random) -> str | None:
    found = _OPERANDS.search(question)
    if not found:
        return None
    left, between, right = (group for group in found.groups() if group)
    if {left.lower(), right.lower()} & _FUNCTION:
        return None
    return f"{question[: found.start()]}{right} {between} {left}{question[found.end() :]}"


def _reframe(question: str, rng: random.Random) -> str | None:
    for frames in _FRAMES:
        for frame in frames:
            if question.lower().startswith(frame):
                other = rng.choice([each for each in frames if each != frame])
                return other.capitalize() + question[len(frame) :]
    return None


def _contract(question: str, rng: random.Random) -> str | None:
    for long, short in _CONTRACTIONS:
        for said, other in ((long, short), (short, long)):
            if said in question.lower():
                return re.sub(said, other, question, count=1, flags=re.IGNORECASE)
    return None


def _greet(question: str, rng: random.Random) -> str | None:
    if rng.random() < 0.5:
        return rng.choice(_GREETINGS) + question[0].lower() + question[1:]
    return question + rng.choice(_THANKS)


def _recase(question: str, rng: random.Random) -> str | None:
    without = _ARTICLE.sub("", question) if rng.random() < 0.5 else question
    return rng.choice([without.lower(), without.rstrip("?"), without.lower().rstrip("?.!")])
