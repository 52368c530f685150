"""Whom a question is about."""

from typing import Final

from cache.guards.closeness import close
from cache.guards.lexicon import bag
from cache.guards.text import Question

_ASKING: Final = bag("who what where how when which")
_HIM: Final = bag("he him his himself she her hers herself 他 她")
_ME: Final = bag("i me my mine myself we us our 我 我的 我们")
_YOU: Final = bag("you your yours yourself 你 你的 您 你们")


class Person:
    """A third person in one question is not the asker of the other. I, you, one and we are mostly the same in how-to questions."""

    name = "person"

    def refuses(self, a: Question, b: Question) -> bool:
        if (_asks_about(a, _ME, _YOU) and _asks_about(b, _YOU, _ME)) or (_asks_about(a, _YOU, _ME) and _asks_about(b, _ME, _YOU)):
            return set(a.content) == set(b.content)
        return a.bag.isdisjoint(_HIM) != b.bag.isdisjoint(_HIM) and _names_somebody(a) and _names_somebody(b) and close(a, b)


def _asks_about(question: Question, person: frozenset[str], other: frozenset[str]) -> bool:
    """`Who am I`, `what is your name`, `how old are you`: a fact about one of the two who talk."""
    states = bool(question.terms) and question.terms[0] in _ASKING and "be" in question.terms[1:3]
    return (
        (states or "谁" in question.bag or "什么" in question.bag)
        and not question.bag.isdisjoint(person)
        and question.bag.isdisjoint(other)
    )


def _names_somebody(question: Question) -> bool:
    return not (question.bag.isdisjoint(_HIM) and question.bag.isdisjoint(_ME) and question.bag.isdisjoint(_YOU))
