"""The exact tier's front: answers in memory, in front of the store."""

import sys
from collections import OrderedDict
from collections.abc import Callable

from cache.entry import Entry

OVERHEAD_BYTES = 1024
"""What an entry costs besides its answer, text and vector: its object, four hash strings, its place in the LRU."""


class AnswerLru:
    """Least-recently-used answers, limited by size in bytes. Expired entries are not returned.

    Belongs to one event loop: it is not thread-safe. `clock` gives seconds since the epoch.
    """

    def __init__(self, max_bytes: int, clock: Callable[[], float]) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[tuple[str, str], Entry] = OrderedDict()
        self._bytes = 0

    def get(self, namespace: str, key: str) -> Entry | None:
        """The live entry with this exact key, which becomes the most recently used."""
        entry = self._entries.get((namespace, key))
        if entry is None:
            return None
        if not entry.live(self._clock()):
            self.discard(namespace, key)
            return None
        self._entries.move_to_end((namespace, key))
        return entry

    def put(self, entry: Entry) -> None:
        """Keeps the entry, unless it is larger than the whole limit; an older one with its key goes in any case."""
        self.discard(entry.namespace, entry.exact_key)
        size = size_of(entry)
        if size > self._max_bytes:
            return
        while self._bytes + size > self._max_bytes:
            self._bytes -= size_of(self._entries.popitem(last=False)[1])
        self._entries[entry.namespace, entry.exact_key] = entry
        self._bytes += size

    def discard(self, namespace: str, key: str) -> None:
        """Forgets an entry. An unknown key is ignored."""
        entry = self._entries.pop((namespace, key), None)
        if entry is not None:
            self._bytes -= size_of(entry)

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
    """Memory that an entry holds, in bytes: all of the entry, since all of it stays alive, and a fixed overhead."""
    text = 0 if entry.text is None else sys.getsizeof(entry.text)
    vector = 0 if entry.vector is None else entry.vector.nbytes
    return len(entry.answer) + text + vector + OVERHEAD_BYTES
