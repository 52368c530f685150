"""Negation, as words and inside words."""

from cache.guards.text import Question


class Negation:
    """Both questions are negated, or neither: an even number of negations is none."""

    name = "negation"

    def refuses(self, a: Question, b: Question) -> bool:
        return (a.negations - b.negations) % 2 == 1
