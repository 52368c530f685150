"""The contract of entry stores: SQL is the truth."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from cache.entry import Entry


class EntryStore(Protocol):
    """Keeps entries. Thread-safe; every call may block on I/O; every call may raise `StoreError`.

    An entry is identified by `id`, and is unique by (`namespace`, `exact_key`): putting a second one replaces the first.
    An id that another (`namespace`, `exact_key`) holds is refused, as is a text that UTF-8 cannot express.
    Reads return live entries only (`now < expires_at`), and only of the namespace that was asked for.
    """

    def put(self, entry: Entry) -> str | None:
        """Stores the entry durably. Returns the id of the entry that it replaced, if any."""

    def find_exact(self, namespace: str, exact_key: str, now: float) -> Entry | None:
        """The live entry with this exact key."""

    def get_live(self, namespace: str, fingerprint: str, ids: Sequence[str], now: float) -> list[Entry]:
        """Those of `ids` that are live and of this namespace and fingerprint, in the order of `ids`."""

    def touch(self, entry_id: str, now: float) -> None:
        """Counts a hit and remembers the time of use. An unknown id is ignored."""

    def scan(self, now: float) -> Iterator[Entry]:
        """Every live entry with a vector, of all namespaces: to rebuild an index. Not a snapshot: others may write meanwhile."""

    def evict(self, max_entries: int, now: float) -> list[str]:
        """Removes what has expired and, past `max_entries`, what was used longest ago. Returns the removed ids."""

    def count(self) -> int:
        """Rows in the store, expired ones included."""

    def close(self) -> None:
        """Releases connections. Calling it twice is harmless."""
