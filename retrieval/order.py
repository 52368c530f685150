"""How far documents may move from their ranks.

The order of documents decides how much of a prompt is cached, and models attend to places differently. So a bound says how many places a
document may be from its rank. Documents that are equally relevant may always change places.
"""

from collections.abc import Sequence

Order = tuple[int, ...]
"""Places in the list of hits, best first; perhaps only the beginning of an order."""


class Ranks:
    """Of one request's hits, best first."""

    def __init__(self, scores: Sequence[float], max_displacement: int, tie: float = 0.0) -> None:
        """`scores` fall. `tie`: hits whose scores differ by no more, one after the other, are equally relevant."""
        self._count = len(scores)
        self._is_free = max_displacement >= self._count - 1
        groups = _groups(scores, tie)
        self._earliest = [low - max_displacement for low, _ in groups]
        self._latest = [high + max_displacement for _, high in groups]

    def allows(self, order: Order, following: int) -> bool:
        """Whether `following` may come next behind this beginning, such that the rest can still be put in order."""
        if self._is_free:
            return True
        at = len(order)
        if self._earliest[following] > at:
            return False
        rest = (hit for hit in range(self._count) if hit != following and hit not in order)
        # If any order of the rest is in bounds, that by rank is: both bounds rise with the rank.
        return all(place <= self._latest[hit] for place, hit in enumerate(rest, at + 1))

    def completed(self, beginning: Order, preference: Sequence[float]) -> Order:
        """A whole order: next comes what is preferred most of those that may, and of equals the most relevant."""
        order = list(beginning)
        rest = [hit for hit in range(self._count) if hit not in beginning]
        while rest:
            chosen = max((hit for hit in rest if self.allows(tuple(order), hit)), key=lambda hit: (preference[hit], -hit))
            order.append(chosen)
            rest.remove(chosen)
        return tuple(order)


def displacement(order: Order) -> int:
    """The most places that any document is from its rank."""
    return max((abs(place - hit) for place, hit in enumerate(order)), default=0)


def _groups(scores: Sequence[float], tie: float) -> list[tuple[int, int]]:
    """First and last place of those that are equally relevant, for each place."""
    groups: list[list[int]] = []
    for place, score in enumerate(scores):
        if groups and scores[place - 1] - score <= tie:
            groups[-1].append(place)
        else:
            groups.append([place])
    return [(group[0], group[-1]) for group in groups for _ in group]
