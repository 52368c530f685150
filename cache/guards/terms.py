"""Words to terms: stems, with phrases, synonyms, units and names each under one head."""

from dataclasses import dataclass
from typing import Final

from cache.guards.stems import stem
from cache.guards.tokens import Tokens
from cache.guards.vocabulary import CASED_NAMES, NEGATED, PHRASES, UNIT_SYMBOLS, Node

_GLUED_ONLY: Final = frozenset({"in", "a", "t", "d", "y", "n", "j", "pa", "ha", "won", "cal", "mo", "deg", "c", "v", "w"})
_MIN_TITLE_WORDS: Final = 4


@dataclass(slots=True)
class Terms:
    """`heads` with, for each, the index of its first word in the tokens."""

    heads: list[str]
    starts: list[int]
    titled: bool
    """Written with capitals throughout, so that capitals say nothing."""
    cased: set[int]
    """Where words that may be names are written as names."""
    listed: set[int]
    """Where the word lists know the word, so that a capital makes no name of it."""


def terms_of(tokens: Tokens) -> Terms:
    """The terms of folded tokens."""
    words, stems = tokens.words, [stem(word) for word in tokens.words]
    terms = Terms([], [], _titled(tokens), set(), set())
    at, size = 0, len(words)
    while at < size:
        used, head = _phrase(stems, at)
        if used == 1 and (name := _cased(tokens, at, terms.titled)):
            head = name
            terms.cased.add(at)
        elif used == 1:
            head = _symbol(tokens, at) or _letter(tokens, at, terms.titled) or head
        if head is None and (plain := NEGATED.get(stems[at])):
            terms.heads.append("not")
            terms.starts.append(at)
            head = _phrase([plain], 0)[1] or plain
        if head is not None:
            terms.listed.add(at)
        terms.heads.append(head or stems[at])
        terms.starts.append(at)
        at += used
    return terms


def _phrase(stems: list[str], at: int) -> tuple[int, str | None]:
    """The longest phrase that begins here: how many words it takes, and its head."""
    used, head = 1, None
    node: Node | None = PHRASES.children.get(stems[at])
    end = at + 1
    while node is not None:
        if node.term is not None:
            used, head = end - at, node.term
        if end == len(stems):
            break
        node = node.children.get(stems[end])
        end += 1
    return used, head


def _symbol(tokens: Tokens, at: int) -> str | None:
    """A unit's symbol after a number. Symbols that are words as well count only without a space: 5in, not 5 in."""
    word = tokens.words[at]
    if word not in UNIT_SYMBOLS or not at or not tokens.words[at - 1][-1].isdigit():
        return None
    return UNIT_SYMBOLS[word] if tokens.glued[at] or word not in _GLUED_ONLY else None


def _cased(tokens: Tokens, at: int, titled: bool) -> str | None:
    """A name that is a word as well, written as a name: Turkey, US, C."""
    name = CASED_NAMES.get(tokens.words[at])
    if name is None or titled or not tokens.surfaces[at][:1].isupper():
        return None
    surface = tokens.surfaces[at]
    return name if not tokens.initial[at] or (len(surface) > 1 and surface.isupper()) else None


def _letter(tokens: Tokens, at: int, titled: bool) -> str | None:
    """A capital A in the middle of a sentence is a name, not an article: from A to B."""
    return "A" if tokens.surfaces[at] == "A" and not titled and not tokens.initial[at] else None


def _titled(tokens: Tokens) -> bool:
    """Most longer words begin with a capital."""
    longer = [
        surface
        for surface, first in zip(tokens.surfaces, tokens.initial, strict=True)
        if len(surface) > 3 and not first and surface[0].isalpha()
    ]
    latin = [surface for surface in longer if surface.isascii()]
    capitals = sum(surface[0].isupper() for surface in latin)
    shout = bool(latin) and all(surface.isupper() for surface in tokens.surfaces if surface.isascii() and surface.isalpha())
    return shout or (len(latin) >= _MIN_TITLE_WORDS and capitals * 10 >= len(latin) * 7)
