"""Keeps the vector index in step with the store."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from cache.embedders.base import Embedder
from cache.entry import Vector
from cache.errors import EmbedderError
from cache.overlay import Overlay
from cache.stores.base import EntryStore
from cache.vectors.base import VectorIndex

log = logging.getLogger(__name__)

BATCH = 256
HOLD_S = 30.0
"""How long a worker may take for a batch before another one takes it over."""
EMBED_BATCH = 32


@dataclass(frozen=True, slots=True)
class Differences:
    """What a reconciliation found, and mended."""

    compared: int = 0
    missing: int = 0
    """Live entries that the index did not hold."""
    orphaned: int = 0
    """Ids in the index that no entry has."""


class Indexer:
    """Applies the outbox, compares, rebuilds. One or many for a store; each call may raise `StoreError` or `VectorIndexError`,
    and may then simply be called again. `embedder` names the one whose vectors the index holds."""

    def __init__(self, store: EntryStore, index: VectorIndex, overlay: Overlay, embedder: str, clock: Callable[[], float]) -> None:
        """`clock` gives seconds since the epoch."""
        self._store = store
        self._index = index
        self._overlay = overlay
        self._embedder = embedder
        self._clock = clock

    def apply(self) -> int:
        """Applies what the outbox holds now, and returns how many lines."""
        applied = 0
        while changes := self._store.claim(BATCH, self._clock(), HOLD_S, self._embedder):
            records = [change.record for change in changes if change.record is not None]
            self._index.upsert(records)
            self._index.delete([change.entry_id for change in changes if change.record is None])
            self._store.confirm(changes)
            self._overlay.settle([record.id for record in records], self._index.staleness_s)
            applied += len(changes)
        return applied

    def load(self) -> int:
        """Fills an index that is empty, such as one in memory after a start, and returns how many vectors it got."""
        loaded, after = 0, ""
        while records := self._store.scan(after, BATCH, self._clock(), self._embedder):
            self._index.upsert(records)
            loaded, after = loaded + len(records), records[-1].id
        return loaded

    def reconcile(self) -> Differences:
        """Walks through store and index side by side. What the index lacks goes to the outbox; what it has too much is deleted."""
        compared = missing = orphaned = 0
        after = ""
        while True:
            records = self._store.scan(after, BATCH, self._clock(), self._embedder)
            upto = records[-1].id if len(records) == BATCH else None
            held = self._held(after, upto)
            lacking = [record.id for record in records if record.id not in held]
            lacking = self._still_live(lacking)
            self._store.enqueue(lacking)
            orphaned += self._delete_orphans(held - {record.id for record in records})
            compared, missing = compared + len(records), missing + len(lacking)
            if upto is None:
                return Differences(compared, missing, orphaned)
            after = upto

    def _held(self, after: str, upto: str | None) -> set[str]:
        """Ids in the index above `after`, up to and with `upto`."""
        held: set[str] = set()
        while page := self._index.scan(after, BATCH):
            held |= {each for each in page if upto is None or each <= upto}
            after = page[-1]
            if upto is not None and after >= upto:
                break
        return held

    def _still_live(self, ids: list[str]) -> list[str]:
        """Those that the store still wants in the index: one may have been deleted, and dropped from the index, since the scan."""
        known = self._store.known(ids) if ids else set()
        return [each for each in ids if each in known]

    def _delete_orphans(self, ids: set[str]) -> int:
        known = self._store.known(sorted(ids)) if ids else set()
        orphans = sorted(ids - known)
        self._index.delete(orphans)
        return len(orphans)

    def embed_again(self, embedder: Embedder) -> int:
        """Gives every entry that another embedder had seen a vector of this one, and returns how many. The outbox tells the index.

        Raises `EmbedderError` if the embedder takes no text at all.
        """
        done, after = 0, ""
        while outdated := self._store.outdated(self._embedder, after, EMBED_BATCH, self._clock()):
            vectors = _embedded(embedder, dict(outdated))
            self._store.embed(vectors, self._embedder)
            done, after = done + len(vectors), outdated[-1][0]
        return done


def _embedded(embedder: Embedder, texts: dict[str, str]) -> dict[str, Vector]:
    """Vectors of those texts that the embedder can take and that they cover. One that it refuses does not hold up the others."""
    try:
        found = zip(texts, embedder.embed(list(texts.values())), embedder.covers(list(texts.values())), strict=True)
        return {entry_id: vector for entry_id, vector, covered in found if covered}
    except EmbedderError:
        if len(texts) == 1:
            return {}
    vectors = {entry_id: vector for each in texts.items() for entry_id, vector in _embedded(embedder, dict([each])).items()}
    if not vectors:
        raise EmbedderError("the embedder took none of the texts")
    return vectors
