"""Numbers, units, dates, times, versions, sums."""

from collections import Counter
from typing import Final

from cache.guards.text import Question
from cache.guards.vocabulary import UNITS

_OPERATORS: Final = frozenset("+*/^=<>×÷√-")
_MOST_PAIRED: Final = 16


class Numbers:
    """The same numbers with the same units, as often as each occurs."""

    name = "numbers"

    def refuses(self, a: Question, b: Question) -> bool:
        if a.quantities != b.quantities and _differ(a, b):
            return True
        return _operators(a) != _operators(b)


class Units:
    """The same units of measure, counted or not: `miles in a marathon` is not `kilometres in a marathon`."""

    name = "units"

    def refuses(self, a: Question, b: Question) -> bool:
        left, right = UNITS & a.bag, UNITS & b.bag
        return bool(left - right and right - left)


def _differ(a: Question, b: Question) -> bool:
    left, right = Counter(a.quantities), Counter(b.quantities)
    over, under = list((left - right).elements()), list((right - left).elements())
    return not _pair_off(over, under, a, b)


def _pair_off(over: list[tuple[str, str]], under: list[tuple[str, str]], a: Question, b: Question) -> bool:
    """Quantities may differ by a unit that one side leaves out, and by a 1 that the other side writes as a word."""
    if max(len(over), len(under)) > _MOST_PAIRED:
        return False
    for number, unit in over:
        partner = next((other for other in under if _agree((number, unit), other)), None)
        if partner is not None:
            under.remove(partner)
        elif not (number == "1" and _says_one(b)):
            return False
    return all(number == "1" and _says_one(a) for number, _ in under)


def _agree(one: tuple[str, str], other: tuple[str, str]) -> bool:
    same = one[0] == other[0] or {one[0], other[0]} == {one[0].removesuffix("th"), one[0].removesuffix("th") + "th"}
    return same and (one[1] == other[1] or not one[1] or not other[1])


def _says_one(question: Question) -> bool:
    return not question.bag.isdisjoint(("one", "a", "an", "single", "一", "一个"))


def _operators(question: Question) -> Counter[str] | None:
    if question.bag.isdisjoint(_OPERATORS):
        return None
    return Counter(word for word in question.words if word in _OPERATORS)
