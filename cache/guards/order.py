"""Who does what to whom, from where to where, what before what."""

from typing import Final

from cache.guards.lexicon import bag
from cache.guards.text import Question
from cache.guards.vocabulary import FUNCTION, heads

_DIRECTIONAL: Final = heads(
    "from to into than over before after by for of with against in as until without on "
    "从 到 的 把 被 比 之前 之后 以前 以后 成 给 对 换成 翻译成 向 先 后 去 往 飞"
)
_JOINING: Final = bag("and or vs versus & 和 与 跟 还是 或 或者 及 以及 同")
_SYMMETRIC: Final = heads(
    "far distance differ different differenc similar similarity same compare meet marry between equal relation relationship "
    "多远 距离 相同 相似 区别 比较 关系 认识"
)
_PERSONS: Final = {
    **dict.fromkeys(bag("i me myself we us 我 我们"), "me"),
    **dict.fromkeys(bag("he him himself she her herself they them 他 她 他们"), "them"),
    **dict.fromkeys(bag("you yourself 你 您 你们"), "you"),
}
_PERSONAL: Final = frozenset(_PERSONS.values())
_LINKING: Final = bag("be have will would shall should can could may might must")
_PASSIVE: Final = frozenset({"by", "被"})
_MOST_EXTRA: Final = 2
_MOST_TERMS: Final = 24


class Order:
    """Where two parts of one question have changed places in the other, nothing directional lies between them."""

    name = "order"

    def refuses(self, a: Question, b: Question) -> bool:
        if a.terms == b.terms or len(a.terms) > _MOST_TERMS or len(b.terms) > _MOST_TERMS or not a.bag.isdisjoint(_SYMMETRIC):
            return False
        if _roles_exchanged(a, b):
            return True
        left, right = _sequence(a, b), _sequence(b, a)
        if {_asks_for_object(a), _asks_for_object(b)} == {True, False} and set(a.content) == set(b.content):
            return True
        if left == right or sorted(left) != sorted(right) or _extra(a, left) > _MOST_EXTRA or _extra(b, right) > _MOST_EXTRA:
            return False
        if a.bag.isdisjoint(_PASSIVE) != b.bag.isdisjoint(_PASSIVE):
            return False
        between = _exchanged(left, right)
        if between == 0:
            return (_is_predication(a) and _is_predication(b)) or _numbers_exchanged(a, b)
        return between is not None


def _roles_exchanged(a: Question, b: Question) -> bool:
    """The same persons and content in another order: I teach him, or he teaches me. What stood in front may have moved behind."""
    left, right = _roles(a), _roles(b)
    if left == right or sorted(left) != sorted(right) or _PERSONAL.isdisjoint(left):
        return False
    return not (_moves_front(left, right) or _moves_front(right, left))


def _moves_front(one: list[str], other: list[str]) -> bool:
    """`In Perl, how do I …` and `how do I … in Perl`."""
    return any(one[at:] + one[:at] == other and _PERSONAL.isdisjoint(one[:at]) for at in range(1, len(one)))


def _roles(question: Question) -> list[str]:
    roles = ((term, _PERSONS.get(term.rpartition("_")[2])) for term in question.terms)  # `can I` is one term
    return [person or term for term, person in roles if person or term == "only" or term not in FUNCTION]


def _sequence(a: Question, b: Question) -> list[str]:
    """What `a` shares with `b` of content and directional words; parts joined by `and`, `or`, `vs` in alphabetical order."""
    shared = [term for term in a.terms if term in b.bag and (term in _DIRECTIONAL or term not in FUNCTION)]
    return shared if a.bag.isdisjoint(_JOINING) else _sorted_joins(a, frozenset(shared))


def _sorted_joins(question: Question, kept: frozenset[str]) -> list[str]:
    """Runs of words without a function word between them; the runs that a joining word joins are one, and sorted."""
    runs: list[list[str]] = [[]]
    joining, joined = False, False
    for term in question.terms:
        if term in _JOINING:
            joining = joined = True
        elif term in _DIRECTIONAL or term in FUNCTION:
            if not joining:
                runs[-1] = sorted(runs[-1]) if joined else runs[-1]
                runs.append([term] if term in kept and term in _DIRECTIONAL else [])
                runs.append([])
                joined = False
        elif term in kept:
            runs[-1].append(term)
            joining = False
    runs[-1] = sorted(runs[-1]) if joined else runs[-1]
    return [term for run in runs for term in run]


def _extra(question: Question, sequence: list[str]) -> int:
    kept = set(sequence)
    return sum(term not in kept for term in question.content)


def _exchanged(left: list[str], right: list[str]) -> int | None:
    """If left is `u X P Y v` and right `u Y P X v`, the length of P; None if they differ in another way."""
    start, end = 0, len(left)
    while left[start] == right[start]:
        start += 1
    while left[end - 1] == right[end - 1]:
        end -= 1
    one, other = left[start:end], right[start:end]
    size = len(one)
    for first in range(1, size):
        for last in range(1, size - first + 1):
            if (
                one[:first] == other[size - first :]
                and one[size - last :] == other[:last]
                and one[first : size - last] == other[last : size - first]
            ):
                return size - first - last
    return None


def _numbers_exchanged(a: Question, b: Question) -> bool:
    """2 to the 3rd is not 3 to the 2nd, in whatever words."""
    return len(a.quantities) == 2 and a.quantities == b.quantities[::-1] and a.bag.isdisjoint(_JOINING)


def _asks_for_object(question: Question) -> bool | None:
    """`Who did Plato teach` asks for the object, `who taught Plato` for the subject; None for other questions."""
    if len(question.terms) < 2 or question.terms[0] not in ("who", "what") or question.terms[1] in _LINKING:
        return None
    return question.terms[1] == "do"


def _is_predication(question: Question) -> bool:
    return question.terms[:1] == ("be",) and question.bag.isdisjoint(_JOINING)
