"""Bounds and extremes."""

from typing import Final

from cache.guards.closeness import close
from cache.guards.lexicon import bag
from cache.guards.text import Question

_PHRASES: Final = {
    ("at", "least"): "lower", ("at", "most"): "upper", ("more", "than"): "over", ("less", "than"): "under",
    ("up", "to"): "upper", ("no", "more"): "upper", ("no", "less"): "lower", ("greater", "than"): "over",
    ("few", "than"): "under", ("fewer", "than"): "under",
}  # fmt: skip
_WORDS: Final = {
    "minimum": "lower", "maximum": "upper", "至少": "lower", "起码": "lower", "最少": "lower", "最多": "upper", "至多": "upper",
    "超过": "over", "不到": "under", "以上": "over", "以下": "under", "大于": "over", "小于": "under", "高于": "over", "低于": "under",
}  # fmt: skip
_EXTREMES: Final = bag(
    "biggest smallest longest shortest tallest highest lowest oldest youngest deepest heaviest "
    "richest poorest coldest hottest slowest strongest"
)


class Comparisons:
    """The same bounds (at least, at most, more than), and the largest of something only for the largest."""

    name = "comparisons"

    def refuses(self, a: Question, b: Question) -> bool:
        return (_bounds(a) != _bounds(b) or _extremes(a) != _extremes(b)) and close(a, b)


def _bounds(question: Question) -> set[str]:
    found = {_WORDS[word] for word in question.bag if word in _WORDS}
    if not question.bag.isdisjoint(("than", "at", "to", "no")):
        found.update(_PHRASES[pair] for pair in zip(question.words, question.words[1:], strict=False) if pair in _PHRASES)
    return found


def _extremes(question: Question) -> frozenset[str]:
    return _EXTREMES & question.bag
