"""Ids in order, for an index that holds them in a dictionary."""

from bisect import bisect_right
from collections.abc import Container, Sized
from itertools import islice
from typing import Protocol


class Held(Container[str], Sized, Protocol):
    """The ids that count."""


class SortedIds:
    """Pages through what `held` holds, in ascending order. Sorts when somebody asks: most ids are in order from the last time."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._ids: list[str] = []
        self._in_order = True

    def add(self, entry_id: str) -> None:
        """To be called for each id that `held` got. What it lost need not be told."""
        self._ids.append(entry_id)
        self._in_order = False
        if len(self._ids) > 2 * len(self._held) + 1000:
            self._tidy()

    def page(self, after: str, limit: int) -> list[str]:
        """At most `limit` ids above `after`."""
        if not self._in_order:
            self._tidy()
        above = islice(self._ids, bisect_right(self._ids, after), None)
        return list(islice((entry_id for entry_id in above if entry_id in self._held), max(limit, 0)))

    def _tidy(self) -> None:
        self._ids.sort()
        self._ids = [entry_id for entry_id in dict.fromkeys(self._ids) if entry_id in self._held]
        self._in_order = True
