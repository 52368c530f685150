"""Lists of words, all found in one pass by an Aho-Corasick automaton."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import ahocorasick

from serve_app.content.base import Match, Rule, Scan
from serve_app.content.folding import fold, is_accent, is_of_word, origins
from serve_app.content.invisible import visible
from serve_app.content.look_alikes import differs_in_script, is_disguise, looks, looks_of_word, looks_small


class _Word(NamedTuple):
    """A word of one rule. The automaton has it by what it looks like."""

    folded: str
    rule: Rule


class _Look(NamedTuple):
    """What one or more words look like."""

    length: int
    begins: bool
    """Its first character is of a script that has spaces: what stands before must end a word."""
    ends: bool
    words: tuple[_Word, ...]


class WordMatcher:
    """A `Matcher`. Words of scripts with spaces match whole words, those of others (Chinese) wherever they stand.

    A text is looked at as it is written and in small letters: a capital may look like another letter than its small one does. One with
    letters that only look like a word's is in question as `look_alikes` says.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        """At least one rule has a word."""
        by_look: defaultdict[str, dict[_Word, None]] = defaultdict(dict)
        for rule in rules:
            for word in map(visible, rule.words):
                for look in looks_of_word(word):
                    by_look[look][_Word(fold(word), rule)] = None
        self._longest = max(map(len, by_look))
        self._automaton = ahocorasick.Automaton()
        for look, words in by_look.items():
            self._automaton.add_word(look, _Look(len(look), is_of_word(look[0]), is_of_word(look[-1]), tuple(words)))
        self._automaton.make_automaton()

    def scan(self, text: str, start: int, is_last: bool) -> Scan:
        folded = fold(text)
        written, small = looks(text), looks_small(folded)
        shown = [written] if written == small else [written, small]
        origin = origins(text, folded)
        first = start if origin is None else len(fold(text[:start]))
        unsettled = None if is_last else self._unsettled(folded, shown, first)
        settled = len(text) if unsettled is None else unsettled if origin is None else origin[unsettled]
        matches: list[Match] = []
        for look in shown:
            for last, found in self._automaton.iter(look, first):
                begin = last - found.length + 1
                if look is not written and written.startswith(look[begin : last + 1], begin):
                    continue  # it has been found
                at, end = (begin, last + 1) if origin is None else (origin[begin], origin[last] + 1)
                if at < settled and _is_whole(folded, begin, last, found):
                    matches += (Match(at, end, word.rule) for word in found.words if _is_word(folded[begin : last + 1], word))
        return Scan(settled, matches)

    def begins(self, lines: str) -> Iterator[int]:
        return (match.start for match in self.scan(lines, 0, is_last=True).matches)

    def _unsettled(self, folded: str, shown: list[str], first: int) -> int | None:
        """Where the first word begins that may end later, or whose end may be inside a longer one. None: there is none."""
        for begin in range(max(first, len(folded) - self._longest), len(folded)):
            for look in shown:
                if self._automaton.match(look[begin:]) and not (_continues(folded, begin) and is_of_word(look[begin])):
                    return begin
        return None


def _is_word(folded: str, word: _Word) -> bool:
    """Of a text that looks like it."""
    if folded == word.folded:
        return True
    return differs_in_script(folded, word.folded) and (word.rule.look_alikes == "all" or is_disguise(folded))


def _continues(folded: str, begin: int) -> bool:
    """Whether what stands before the character is of a word."""
    return begin > 0 and is_of_word(folded[begin - 1])


def _is_whole(folded: str, begin: int, last: int, found: _Look) -> bool:
    following = folded[last + 1 : last + 2]
    if following and (is_accent(following) or (found.ends and is_of_word(following))):
        return False
    return not (found.begins and _continues(folded, begin))
