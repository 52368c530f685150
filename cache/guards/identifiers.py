"""Code, paths, addresses, flags, error codes, quotations."""

from typing import Final

from cache.guards.text import Question

_MOST_SEARCHED: Final = 16
"""Each search reads the whole text; with more than these, time would grow with the square of its length."""


class Identifiers:
    """What one question writes literally stands in the other, letter for letter; quotation marks may be left out."""

    name = "identifiers"

    def refuses(self, a: Question, b: Question) -> bool:
        return not (_all_in(a.literals, b) and _all_in(b.literals, a))


def _all_in(literals: frozenset[str], question: Question) -> bool:
    if len(literals) > _MOST_SEARCHED:
        return literals <= question.literals
    return all(literal in question.literals or _stands_in(literal, question.text) for literal in literals)


def _stands_in(literal: str, text: str) -> bool:
    """The literal occurs as a whole: `os.path` is not in `os.path.join`."""
    at = text.find(literal)
    while at >= 0:
        before, after = text[at - 1 : at], text[at + len(literal) : at + len(literal) + 2]
        if not _joins(before) and not (_joins(after[:1]) or (after[:1] in ".:" and _joins(after[1:]))):
            return True
        at = text.find(literal, at + 1)
    return False


def _joins(char: str) -> bool:
    return char.isascii() and (char.isalnum() or char in "_-/") and char != ""
