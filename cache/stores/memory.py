"""Entries in a dictionary: the contract of `EntryStore` without a database. Nothing outlives the process."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cache.entry import Entry
from cache.errors import StoreError


@dataclass(slots=True)
class _Row:
    entry: Entry
    last_used_at: float
    hits: int = 0


class MemoryEntryStore:
    """An `EntryStore` for tests and for trying things out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[str, _Row] = {}
        self._ids: dict[tuple[str, str], str] = {}

    def put(self, entry: Entry) -> str | None:
        _check_text(entry.text)
        key = (entry.namespace, entry.exact_key)
        with self._lock:
            replaced = self._ids.get(key)
            if replaced != entry.id and entry.id in self._rows:
                raise StoreError("another entry has this id")
            if replaced is not None:
                del self._rows[replaced]
            self._ids[key] = entry.id
            self._rows[entry.id] = _Row(entry, entry.created_at)
        return replaced

    def find_exact(self, namespace: str, exact_key: str, now: float) -> Entry | None:
        with self._lock:
            entry_id = self._ids.get((namespace, exact_key))
            entry = None if entry_id is None else self._rows[entry_id].entry
        return entry if entry is not None and entry.live(now) else None

    def get_live(self, namespace: str, fingerprint: str, ids: Sequence[str], now: float) -> list[Entry]:
        with self._lock:
            found = [self._rows[entry_id].entry for entry_id in ids if entry_id in self._rows]
        return [entry for entry in found if (entry.namespace, entry.fingerprint) == (namespace, fingerprint) and entry.live(now)]

    def touch(self, entry_id: str, now: float) -> None:
        with self._lock:
            row = self._rows.get(entry_id)
            if row is not None:
                row.hits += 1
                row.last_used_at = now

    def scan(self, now: float) -> Iterator[Entry]:
        with self._lock:
            every = [row.entry for row in self._rows.values()]
        return (entry for entry in every if entry.vector is not None and entry.live(now))

    def evict(self, max_entries: int, now: float) -> list[str]:
        with self._lock:
            expired = [entry_id for entry_id, row in self._rows.items() if not row.entry.live(now)]
            self._delete(expired)
            oldest_first = sorted(self._rows, key=lambda entry_id: (self._rows[entry_id].last_used_at, entry_id))
            unused = oldest_first[: max(0, len(self._rows) - max_entries)]
            self._delete(unused)
        return expired + unused

    def count(self) -> int:
        return len(self._rows)

    def close(self) -> None:
        """Keeps the entries: there is nothing to release."""

    def _delete(self, ids: Sequence[str]) -> None:
        for entry_id in ids:
            entry = self._rows.pop(entry_id).entry
            del self._ids[entry.namespace, entry.exact_key]


def _check_text(text: str | None) -> None:
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        raise StoreError("the text holds a lone surrogate, which UTF-8 cannot express") from None
