"""The word lists as the guards use them: phrases to terms, terms to classes, terms to their opposites."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from cache.guards import lexicon
from cache.guards.stems import stem
from cache.guards.tokens import clean, scan


@dataclass(slots=True)
class Node:
    """A trie over stems. `term` is what the phrase that ends here stands for."""

    term: str | None = None
    children: dict[str, "Node"] = field(default_factory=dict)


def stemmed(phrase: str) -> list[str]:
    return [stem(word) for word in scan(clean(phrase)).words]


def _insert(root: Node, phrase: str, term: str) -> None:
    """The first list that names a phrase decides about it."""
    node = root
    for part in stemmed(phrase):
        node = node.children.setdefault(part, Node())
    if node.term is None:
        node.term = term


def _names() -> Iterator[tuple[str, str, list[str]]]:
    """(section, the term, its spellings)."""
    for section, names in lexicon.sections("names"):
        yield section, "_".join(stemmed(names[0].rstrip("*"))), names


def _units() -> Iterator[tuple[str, list[str]]]:
    for group in lexicon.groups("units"):
        yield "_".join(stemmed(group[0].rstrip("*"))), group


def _is_symbol(name: str) -> bool:
    """A unit's sign that is a word or a part of words as well, so that it is a unit only after a number."""
    return name.endswith("*") or (len(name) == 1 and not name.isascii() and name.isalpha())


def _phrases() -> Node:
    root = Node()
    for _, term, names in _names():
        for name in names:
            if not name.endswith("*"):
                _insert(root, name, term)
    for unit, group in _units():
        for name in group:
            if not _is_symbol(name):
                _insert(root, name, unit)
    for source in ("synonyms", "synonyms_zh"):
        for group in lexicon.groups(source):
            for entry in group:
                _insert(root, entry, "_".join(stemmed(group[0])))
    return root


PHRASES: Final = _phrases()
"""Every phrase of more than one spelling, by its stems."""

NAME_CLASS: Final = {term: section for section, term, _ in _names()}
PLAIN_NAMES: Final = frozenset(term for _, term, names in _names() if not names[0].endswith("*"))
"""Names in any case of letters."""

CASED_NAMES: Final = {name.rstrip("*"): term for _, term, names in _names() for name in names if name.endswith("*")}
"""Words that are names only when written with a capital."""

UNITS: Final = frozenset(unit for unit, _ in _units())
UNIT_SYMBOLS: Final = {name.rstrip("*"): unit for unit, group in _units() for name in group if _is_symbol(name)}
"""Symbols that are units only after a number."""


def head(entry: str) -> str:
    """The term of a word or phrase of the lists."""
    node: Node | None = PHRASES
    parts = stemmed(entry)
    for part in parts:
        node = node.children.get(part) if node else None
    return node.term if node and node.term else "_".join(parts)


def single_term(part: str) -> str | None:
    """The term of one stem alone, None if no list knows it."""
    node = PHRASES.children.get(part)
    return node.term if node else None


def heads(entries: str) -> frozenset[str]:
    """The words of a list in every form in which a question may hold them: as written, stemmed, as a term."""
    return frozenset(form for word in entries.split() for form in (word, stem(word), head(word)))


def _opposites() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for source in ("antonyms", "antonyms_zh"):
        for left, right in lexicon.opposites(source):
            for one, other in ((left, right), (right, left)):
                for entry in one:
                    for key in {head(entry), "_".join(stemmed(entry)), entry}:
                        found.setdefault(key, set()).update(form for word in other for form in {head(word), "_".join(stemmed(word)), word})
    return {key: frozenset(others - {key}) for key, others in found.items()}


OPPOSITES: Final = _opposites()
FUNCTION: Final = heads(" ".join(lexicon.words("function")))
NEGATED: Final = {stem(line.split()[0]): stem(line.split()[1]) for line in lexicon.lines("negatives")}
