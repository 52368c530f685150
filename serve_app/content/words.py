"""Lists of words, all found in one pass by an Aho-Corasick automaton."""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import ahocorasick

from serve_app.content.base import Match, Rule, Scan
from serve_app.content.folding import fold, is_accent, is_of_word, origins
from serve_app.content.invisible import visible


class _Word(NamedTuple):
    length: int
    """Folded."""
    begins: bool
    """Its first character is of a script that has spaces: what stands before must end a word."""
    ends: bool
    rules: tuple[Rule, ...]


class WordMatcher:
    """A `Matcher`. Words of scripts with spaces match whole words, those of others (Chinese) wherever they stand."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        """At least one rule has a word."""
        by_word: defaultdict[str, dict[Rule, None]] = defaultdict(dict)
        for rule in rules:
            for word in rule.words:
                by_word[fold(visible(word))][rule] = None
        self._longest = max(map(len, by_word))
        self._automaton = ahocorasick.Automaton()
        for word, those in by_word.items():
            self._automaton.add_word(word, _Word(len(word), is_of_word(word[0]), is_of_word(word[-1]), tuple(those)))
        self._automaton.make_automaton()

    def scan(self, text: str, start: int, is_last: bool) -> Scan:
        folded = fold(text)
        origin = origins(text, folded)
        first = start if origin is None else len(fold(text[:start]))
        unsettled = None if is_last else self._unsettled(folded, first)
        settled = len(text) if unsettled is None else unsettled if origin is None else origin[unsettled]
        matches: list[Match] = []
        for last, word in self._automaton.iter(folded, first):
            begin = last - word.length + 1
            at, end = (begin, last + 1) if origin is None else (origin[begin], origin[last] + 1)
            if at < settled and _is_whole(folded, begin, last, word):
                matches += (Match(at, end, rule) for rule in word.rules)
        return Scan(settled, matches)

    def _unsettled(self, folded: str, first: int) -> int | None:
        """Where the first word begins that may end later, or whose end may be inside a longer one. None: there is none."""
        for begin in range(max(first, len(folded) - self._longest), len(folded)):
            if self._automaton.match(folded[begin:]) and not (_continues(folded, begin) and is_of_word(folded[begin])):
                return begin
        return None


def _continues(folded: str, begin: int) -> bool:
    """Whether what stands before the character is of a word."""
    return begin > 0 and is_of_word(folded[begin - 1])


def _is_whole(folded: str, begin: int, last: int, word: _Word) -> bool:
    following = folded[last + 1 : last + 2]
    if following and (is_accent(following) or (word.ends and is_of_word(following))):
        return False
    return not (word.begins and _continues(folded, begin))
