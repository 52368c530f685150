"""A question as the guards see it: parsed once, compared often."""

from dataclasses import dataclass
from functools import lru_cache

from cache.guards.features import literals, names, negations, quantities
from cache.guards.folding import fold
from cache.guards.normal import normal_form
from cache.guards.terms import terms_of
from cache.guards.tokens import clean, scan
from cache.guards.vocabulary import FUNCTION

__all__ = ["Question", "normal_form", "parse"]


REMEMBERED, REMEMBERED_CHARS = 4096, 256
"""Questions that are popular are neighbours of many others, and a third of a look-up is their parsing."""


@dataclass(frozen=True, slots=True)
class Question:
    """A parsed text. `terms` are stems with synonyms, units and names under one head, in the order of the text."""

    text: str
    """NFKC, straight quotes."""
    words: tuple[str, ...]
    """Lower-case words as written, contractions expanded, numbers in digits."""
    terms: tuple[str, ...]
    content: tuple[str, ...]
    """The terms that are not function words."""
    bag: frozenset[str]
    """Words and terms together."""
    quantities: tuple[tuple[str, str], ...]
    """(number, unit or ''), in the order of the text."""
    names: frozenset[str]
    literals: frozenset[str]
    """Code, paths, addresses, flags, quotations: what must not change by a letter."""
    negations: int


def parse(text: str, whose: str = "") -> Question:
    """Parses any text; never raises. Takes time linear in its length; of short texts, the last are remembered, for the namespace `whose`
    alone, lest the time tell others what was asked; empty: they are not.
    """
    return _remembered(text, whose) if whose and len(text) <= REMEMBERED_CHARS else _parsed(text)


def _parsed(text: str) -> Question:
    cleaned = clean(text)
    tokens = fold(scan(cleaned))
    terms = terms_of(tokens)
    return Question(
        text=cleaned,
        words=tuple(tokens.words),
        terms=tuple(terms.heads),
        content=tuple([term for term in terms.heads if term not in FUNCTION]),
        bag=frozenset(tokens.words).union(terms.heads),
        quantities=quantities(terms.heads),
        names=names(tokens, terms),
        literals=literals(cleaned),
        negations=negations(terms.heads),
    )


@lru_cache(REMEMBERED)
def _remembered(text: str, whose: str) -> Question:
    return _parsed(text)
