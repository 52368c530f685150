"""Which replica a request goes to."""

import itertools
from collections.abc import Sequence
from typing import Protocol

from deployments.replicas import Replica


class RoutingPolicy(Protocol):
    """Ranks replicas for one request."""

    def rank(self, candidates: Sequence[Replica]) -> list[Replica]:
        """All candidates, best first: a request spills to the next when one is dead, full or draining."""


class RoundRobin:
    """Each replica in turn."""

    def __init__(self) -> None:
        self._turn = itertools.count()

    def rank(self, candidates: Sequence[Replica]) -> list[Replica]:
        if not candidates:
            return []
        first = next(self._turn) % len(candidates)
        return [*candidates[first:], *candidates[:first]]
