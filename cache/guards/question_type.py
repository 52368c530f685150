"""What kind of answer is asked for: a person, a time, a place, a reason, a manner, an amount, yes or no."""

from typing import Final

from cache.guards.lexicon import bag
from cache.guards.text import Question
from cache.guards.vocabulary import heads

_AUXILIARIES: Final = bag("be do have will would shall should can could may might must or and")
_ENGLISH: Final = {
    "who": "who", "whom": "who", "whose": "who", "when": "when", "where": "where", "why": "why", "how": "how", "how_to": "how",
    "what": "what", "which": "what", "mean": "what",
    "what_tim": "what_time", "what_time": "what_time", "what_year": "what_year", "what_day": "what_day",
}  # fmt: skip
_CHINESE: Final = {
    "谁": "who", "什么时候": "when", "哪一年": "what_year", "哪天": "what_day", "哪里": "where", "为什么": "why", "怎么": "how",
    "多少": "how_much", "几": "how_much",
    "多久": "how_long", "什么": "what", "什么是": "what", "哪些": "what", "哪个": "what", "多远": "how_far", "多大": "how_old",
    "多高": "how_tall", "多长": "how_long", "多重": "how_heavy",
}  # fmt: skip
_MEASURED: Final = heads("many much long far old often tall big fast deep high heavy large wide hot cold soon late")
_TELLING: Final = heads("explain describe tell show list give suggest help recommend clarify")
_ASKS_FOR_TIME_OR_PLACE: Final = frozenset({"where", "when", "who"})
_COMPATIBLE: Final = (
    {"how", "where"},
    {"when", "what_time"},
    {"when", "what_year"},
    {"when", "what_day"},
    {"how_long", "when"},
    {"how_soon", "when"},
    {"how_soon", "how_long"},
)


class QuestionType:
    """Not two types that cannot share an answer; of doubtful ones only where the questions are else the same."""

    name = "question_type"

    def refuses(self, a: Question, b: Question) -> bool:
        left, right = question_types(a), question_types(b)
        if not left or not right or not left.isdisjoint(right):
            return False
        if any({one, other} in _COMPATIBLE for one in left for other in right):
            return False
        doubtful = "what" in left or "what" in right or "is" in left or "is" in right
        return not doubtful or (_ask_apart(left, right) and set(a.content) == set(b.content))


def _ask_apart(left: set[str], right: set[str]) -> bool:
    """`What is` is not `where is`, `is it` is not `why is it`; `what` and `how` often ask for the same."""
    kinds = left | right
    if "is" in kinds:
        return kinds.isdisjoint(("what", "how")) and not any(kind.startswith("how_") for kind in kinds)
    return not kinds.isdisjoint(_ASKS_FOR_TIME_OR_PLACE)


def question_types(question: Question) -> set[str]:
    """All types that a question asks for: who, when, where, why, how, how_much ..., what, is (yes or no); empty if none is known."""
    terms, found = question.terms, set()
    for at, term in enumerate(terms):
        if term in _CHINESE:
            found.add(_CHINESE[term])
        elif term in _ENGLISH:
            following = terms[at + 1] if at + 1 < len(terms) else ""
            if term == "how" and following in _MEASURED:
                found.add(f"how_{following}")
            elif at == 0 or following in _AUXILIARIES or term in ("how", "how_to", "why") or "_" in term:
                found.add(_ENGLISH[term])
    return found or _yes_no(question)


def _yes_no(question: Question) -> set[str]:
    terms = question.terms
    if "吗" in question.bag or "是否" in question.bag:
        return {"is"}
    if not terms or not (terms[0] in _AUXILIARIES or terms[0] == "can_i"):
        return set()
    return set() if not _TELLING.isdisjoint(terms[1:3]) else {"is"}
