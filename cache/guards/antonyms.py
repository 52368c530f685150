"""Opposites."""

from cache.guards.text import Question
from cache.guards.vocabulary import OPPOSITES


class Antonyms:
    """Neither question has a word in whose place the other has its opposite."""

    name = "antonyms"

    def refuses(self, a: Question, b: Question) -> bool:
        left = a.bag - b.bag
        right = b.bag - a.bag
        if not left or not right:
            return False
        return any(word in OPPOSITES and not OPPOSITES[word].isdisjoint(right) for word in left)
