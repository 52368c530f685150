"""All, some, most, only."""

from typing import Final

from cache.guards.closeness import close
from cache.guards.text import Question
from cache.guards.vocabulary import heads

_ALL: Final = heads(
    "all every each everyone everybody everything everywhere both always entire 所有 全部 每个 任何 全都 总是 每天 每 一切 整个"
)
_SOME: Final = heads(
    "some several few sometimes partly half most many mostly somebody someone 有些 部分 一些 有的 偶尔 有时 大多数 少数 一半 多数"
)
_NONE: Final = heads("no none nobody nothing never neither 从不 没有")
_ONLY: Final = heads("only solely merely exclusively 只 只有 只能 仅 仅仅")


class Quantifiers:
    """Not `all` in one question where the other has `some` or `no`; `only` in both or in neither."""

    name = "quantifiers"

    def refuses(self, a: Question, b: Question) -> bool:
        left, right = frozenset(a.terms), frozenset(b.terms)
        if left == right or not close(a, b):
            return False
        return _crosses(left, right) or _crosses(right, left) or left.isdisjoint(_ONLY) != right.isdisjoint(_ONLY)


def _crosses(left: frozenset[str], right: frozenset[str]) -> bool:
    """One side has a word for all and none for some, the other the reverse."""
    if left.isdisjoint(_ALL) or not right.isdisjoint(_ALL) or not left.isdisjoint(_SOME):
        return False
    return not right.isdisjoint(_SOME) or right.isdisjoint(_NONE) != left.isdisjoint(_NONE)
