"""The exact tier's front: answers in memory, in front of the store."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cache.entry import Entry

OVERHEAD_BYTES = 1536
"""What an entry costs besides its answer: its objects, four hash strings, its place in the LRU. Measured by `benchmarks/hit_memory.py`."""


@dataclass(slots=True)
class Held:
    """An entry in memory, without what only its search needs, and what its reader has made of it."""

    entry: Entry
    size: int
    """In bytes, `made` included."""
    made: Any = None


class AnswerLru:
    """Least-recently-used answers, limited by size in bytes. Expired entries are not returned.

    Belongs to one event loop: it is not thread-safe. `clock` gives seconds since the epoch.
    """

    def __init__(self, max_bytes: int, clock: Callable[[], float]) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[tuple[str, str], Held] = OrderedDict()
        self._bytes = 0

    def get(self, namespace: str, key: str) -> Entry | None:
        """The live entry with this exact key, which becomes the most recently used."""
        held = self.held(namespace, key)
        return None if held is None else held.entry

    def held(self, namespace: str, key: str) -> Held | None:
        """As `get`."""
        held = self._entries.get((namespace, key))
        if held is None:
            return None
        if not held.entry.live(self._clock()):
            self.discard(namespace, key)
            return None
        self._entries.move_to_end((namespace, key))
        return held

    def put(self, entry: Entry) -> None:
        """Keeps the entry, unless it is larger than the whole limit; an older one with its key goes in any case."""
        self.discard(entry.namespace, entry.exact_key)
        size = size_of(entry)
        if size > self._max_bytes:
            return
        self._entries[entry.namespace, entry.exact_key] = Held(replace(entry, text=None, vector=None, tags=()), size)
        self._grow(size)

    def attach(self, held: Held, made: Any, size: int) -> None:
        """Keeps what the reader of an entry has made of it, for the next reader; `size` bytes are counted with the entry."""
        if self._entries.get((held.entry.namespace, held.entry.exact_key)) is held:
            held.made = made
            held.size += size
            self._grow(size)

    def _grow(self, size: int) -> None:
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._bytes -= self._entries.popitem(last=False)[1].size

    def discard(self, namespace: str, key: str) -> None:
        """Forgets an entry. An unknown key is ignored."""
        held = self._entries.pop((namespace, key), None)
        if held is not None:
            self._bytes -= held.size

    def clear(self) -> None:
        self._entries.clear()
        self._bytes = 0

    @property
    def bytes(self) -> int:
        """Size of everything kept, by `size_of`."""
        return self._bytes

    def __len__(self) -> int:
        """How many entries are kept, expired ones included."""
        return len(self._entries)


def size_of(entry: Entry) -> int:
    """Memory that an entry holds here, in bytes, before anything is made of it: its answer and a fixed overhead."""
    return len(entry.answer) + OVERHEAD_BYTES
