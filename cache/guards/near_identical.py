"""The gate for questions that are the same but for a word or two."""

from collections import Counter
from typing import Final

from cache.guards import lexicon
from cache.guards.stems import stem
from cache.guards.text import Question
from cache.guards.vocabulary import FUNCTION, head, heads, single_term


def _loose() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    heading = ""
    for line in lexicon.lines("loose"):
        if line.startswith("["):
            heading = line.strip("[]")
            continue
        found.setdefault(heading, set()).update(form for word in line.split() for form in (word, stem(word), head(word.replace("_", " "))))
    return {name: frozenset(words) for name, words in found.items()}


_LOOSE: Final = _loose()
_LIGHT: Final = _LOOSE["light"]
_EVALUATIVE: Final = _LOOSE["evaluative"]
_RESTRICTING: Final = _LOOSE["restricting"]
_VAGUE: Final = _LOOSE["vague"] | _EVALUATIVE
_MOST_TOKENS: Final = 2
_SHORT: Final = 3
_PREPOSITIONS: Final = heads(
    "for in of on with without by under at during against via within through outside inside near around before after among per"
)
_ABOUT_WORDS: Final = heads(
    "mean meaning define definition spell translate pronounce rhyme synonym antonym plural etymology word "
    "differ difference different distinguish "
    "stand signify vs versus compare 意思 翻译 什么是 同义词 反义词 读音 区别 拼音 造句 比较"
)
_ENDINGS: Final = (
    "ically", "ical", "ally", "ic", "al", "ment", "ship", "ation", "ition", "tion", "ion", "iv", "ive", "ativ",
    "ful", "ness", "ly", "ity", "ous", "anc", "enc", "ant", "ent", "y", "at",
)  # fmt: skip


class NearIdentical:
    """When a content word or two are exchanged, in their place, or restrict what is asked, they are what is asked about."""

    name = "near_identical"

    def refuses(self, a: Question, b: Question) -> bool:
        if a.content == b.content:
            return _is_about_words(a) and _is_about_words(b) and _said(a) != _said(b)
        over, under = _changes(a, b), _changes(b, a)
        if len(over) > _MOST_TOKENS or len(under) > _MOST_TOKENS:
            return False
        if over and under:
            return _exchanges(a, b, over, under)
        return _restricts(a, b, over) or _restricts(b, a, under)


def _is_about_words(question: Question) -> bool:
    return not question.bag.isdisjoint(_ABOUT_WORDS)


def _said(question: Question) -> set[str]:
    """The words themselves: of two synonyms each has its own meaning, and they may be compared with one another."""
    stems = (stem(word) for word in question.words)
    return {part for part in stems if (single_term(part) or part) not in FUNCTION} - _ABOUT_WORDS


def _changes(a: Question, b: Question) -> list[str]:
    """The content of `a` that `b` lacks. 1 is what `one` and `a` say as well."""
    missing = Counter(_joined(a)) - Counter(_joined(b))
    missing.pop("1", None)
    return list(missing.elements())


def _joined(question: Question) -> list[str]:
    """The content, with neighbouring single Chinese characters as the one word that they are likely to be."""
    joined: list[str] = []
    neighbour = False
    for term in question.terms:
        single = len(term) == 1 and not term.isascii()
        if term in FUNCTION:
            neighbour = False
        elif single and neighbour:
            joined[-1] += term
        else:
            joined.append(term)
            neighbour = single
    return joined


def _exchanges(a: Question, b: Question, over: list[str], under: list[str]) -> bool:
    """Other words in the same places; in short questions, in any place."""
    if len(over) != len(under) and all(term.isascii() for term in over + under):
        return False
    if min(len(a.content), len(b.content)) > _SHORT and _outline(a, b) != _outline(b, a):
        return False
    return len(over) != len(under) or not all(_is_loose(one, other) for one, other in zip(over, under, strict=True))


def _outline(a: Question, b: Question) -> list[str]:
    """The content of `a` with gaps where `b` has other words; a run of gaps is one."""
    outline: list[str] = []
    known = frozenset(_joined(b))
    for term in _joined(a):
        kept = term if term in known else ""
        if kept or outline[-1:] != [""]:
            outline.append(kept)
    return outline


def _is_loose(one: str, other: str) -> bool:
    """Two general verbs, two words of praise or blame, two words of one root, or one word spelt in two ways."""
    return (
        any(one in words and other in words for words in (_LIGHT, _EVALUATIVE))
        or _root(one) == _root(other)
        or _squeezed(one) == _squeezed(other)
    )


def _root(word: str) -> str:
    if word.isascii():
        for ending in _ENDINGS:
            if word.endswith(ending) and len(word) - len(ending) >= 4:
                return word[: -len(ending)]
    return word


def _squeezed(word: str) -> str:
    return "".join(char for char, before in zip(word, " " + word, strict=False) if char != before) if len(word) > 6 else word


def _restricts(longer: Question, shorter: Question, added: list[str]) -> bool:
    """A content word is added as a qualification: in a prepositional phrase, or before or after another content word."""
    return any((word not in _VAGUE or word in _RESTRICTING) and _qualifies(longer, word) for word in added)


def _qualifies(question: Question, word: str) -> bool:
    if not word.isascii() or word in _RESTRICTING:
        return True
    terms = question.terms
    at = terms.index(word)
    before = next((term for term in reversed(terms[:at]) if term in _PREPOSITIONS or term not in FUNCTION), "")
    last, size = at == len(terms) - 1, len(question.content)
    if before in _PREPOSITIONS:
        return last or size <= _SHORT
    if last or terms[at + 1] not in FUNCTION:
        return size <= (_SHORT if last and before == terms[at - 1] else _SHORT - 1)
    return False
