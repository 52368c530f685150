"""Past, present, future."""

from typing import Final

from cache.guards.text import Question

_PAST: Final = frozenset({"was", "were", "did"})
_PRESENT: Final = frozenset({"is", "are", "does", "do", "am"})
_FUTURE: Final = frozenset({"will", "shall"})


class Tense:
    """What was is not what will be, and who is it not who was; else the present stands for both too often to tell."""

    name = "tense"

    def refuses(self, a: Question, b: Question) -> bool:
        left, right = _tense(a), _tense(b)
        if left == right or not left or not right:
            return False
        return "present" not in (left, right) or (_asks_who_is(a) and _asks_who_is(b) and set(a.content) == set(b.content))


def _asks_who_is(question: Question) -> bool:
    return question.terms[:2] == ("who", "be")


def _tense(question: Question) -> str:
    """The tense of the first auxiliary."""
    for word in question.words:
        if word in _PAST:
            return "past"
        if word in _FUTURE:
            return "future"
        if word in _PRESENT:
            return "present"
    return ""
