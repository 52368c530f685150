"""Names of people, places, products, languages, elements, colours, months."""

from typing import Final

from cache.guards.text import Question
from cache.guards.vocabulary import NAME_CLASS

_SOFT_CLASSES: Final = frozenset({"colour", "element", "planet", "season", "day", "cipher"})
"""Common nouns: to leave one out is not yet another question, to exchange it is."""


class Entities:
    """The same names, by whatever well-known name they go, and in any case of letters."""

    name = "entities"

    def refuses(self, a: Question, b: Question) -> bool:
        if a.names == b.names:
            return False
        return _misses(a.names - b.bag) or _misses(b.names - a.bag)


def _misses(names: frozenset[str]) -> bool:
    return any(NAME_CLASS.get(name) not in _SOFT_CLASSES for name in names)


class SwappedNames:
    """Neither question has a name in whose place the other has another of its kind."""

    name = "swapped_names"

    def refuses(self, a: Question, b: Question) -> bool:
        left = {NAME_CLASS[name] for name in a.names - b.bag if name in NAME_CLASS}
        return bool(left) and any(NAME_CLASS.get(name) in left for name in b.names - a.bag)
