"""What the tests of the stores have in common."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from cache.entry import Entry
from cache.stores.sql import SqlEntryStore

NOW = 1_000_000.0


def put(store: SqlEntryStore, *entries: Entry) -> None:
    for entry in entries:
        store.put(entry)


def apply(store: SqlEntryStore, now: float = NOW, embedder: str = "") -> dict[str, bool]:
    """Applies the outbox to an index that is only a dictionary: which ids it was told to hold, and which to drop."""
    told: dict[str, bool] = {}
    while changes := store.claim(100, now, 60, embedder):
        told |= {change.entry_id: change.record is not None for change in changes}
        store.confirm(changes)
    return told


def found(store: SqlEntryStore, *entries: Entry, now: float = NOW) -> list[str]:
    """The ids of those that are servable, by the three ways to read them, which must agree."""
    by_key = [entry.id for entry in entries if (hit := store.find_exact(entry.namespace, entry.exact_key, now)) and hit.id == entry.id]
    by_id = [entry.id for entry in entries if store.get(entry.namespace, entry.id, now)]
    with_text = [entry for entry in entries if entry.text is not None]
    as_candidates = [
        candidate.id for entry in with_text for candidate in store.candidates(entry.namespace, entry.fingerprint, [entry.id], "k", now)
    ]
    assert by_key == by_id
    assert as_candidates == [entry.id for entry in with_text if entry.id in by_id]
    return by_id


def at_once(work: Callable[[int], object], times: int) -> None:
    barrier = threading.Barrier(times)

    def start(number: int) -> None:
        barrier.wait()
        work(number)

    with ThreadPoolExecutor(times) as pool:
        list(pool.map(start, range(times)))
