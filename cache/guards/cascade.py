"""All guards, the cheapest first."""

from collections.abc import Iterator, Set
from typing import Final

from cache.guards.antonyms import Antonyms
from cache.guards.base import Guard, Refusal
from cache.guards.comparisons import Comparisons
from cache.guards.entities import Entities, SwappedNames
from cache.guards.identifiers import Identifiers
from cache.guards.near_identical import NearIdentical
from cache.guards.negation import Negation
from cache.guards.numbers import Numbers, Units
from cache.guards.order import Order
from cache.guards.person import Person
from cache.guards.quantifiers import Quantifiers
from cache.guards.question_type import QuestionType
from cache.guards.tense import Tense
from cache.guards.text import Question

GUARDS: Final[tuple[Guard, ...]] = (
    Negation(),
    Numbers(),
    Units(),
    Identifiers(),
    Antonyms(),
    Entities(),
    SwappedNames(),
    Quantifiers(),
    Comparisons(),
    Person(),
    Tense(),
    QuestionType(),
    Order(),
    NearIdentical(),
)


def refusals(a: Question, b: Question) -> Iterator[Refusal]:
    """Of every guard that does not let the two share an answer, each as it is asked for."""
    return (Refusal(guard.name) for guard in GUARDS if guard.refuses(a, b))


def first_refusal(a: Question, b: Question, settled: Set[str] = frozenset()) -> Refusal | None:
    """The first refusal, None if every guard but those in `settled` lets the two share an answer."""
    return next((refusal for refusal in refusals(a, b) if refusal.guard not in settled), None)
