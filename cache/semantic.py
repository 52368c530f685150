"""The semantic cache, first form: the closest stored question within one cosine threshold."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cache.config import SemanticConfig
from cache.entry import Entry, Vector
from cache.errors import StoreError, VectorIndexError
from cache.stores.base import EntryStore
from cache.vectors.base import Neighbour, VectorIndex, check_vector

log = logging.getLogger(__name__)


class MissReason(StrEnum):
    """Why a search found nothing to serve."""

    EMPTY = "empty"
    """Nothing is kept for this namespace and fingerprint."""
    BELOW_THRESHOLD = "below_threshold"
    """The closest question is not close enough."""
    STALE = "stale"
    """A question was close enough, but its row is gone, expired, or of another fingerprint."""


@dataclass(frozen=True, slots=True)
class Match:
    """An entry that may be served."""

    entry: Entry
    similarity: float


@dataclass(frozen=True, slots=True)
class Miss:
    """Nothing to serve. `similarity` is that of the closest vector, None if there was none."""

    reason: MissReason
    similarity: float | None = None


def is_indistinct(similarity: float, text: str | None, other: str | None) -> bool:
    """Two texts that an encoder gives one vector: whatever tells them apart (case, accents, line breaks), it does not see."""
    return similarity >= 1 - 1e-5 and text != other


class SemanticCache:
    """Keeps entries in a store, which is the truth, and in an index, which only proposes.

    Thread-safe if the two are. `clock` gives seconds since the epoch. Any method may raise `StoreError` or
    `VectorIndexError`; a failed search is to be taken as a miss. The store holds at most `max_entries`, and up to one
    in a hundred more between two evictions.
    """

    def __init__(
        self, store: EntryStore, index: VectorIndex, clock: Callable[[], float], config: SemanticConfig, max_entries: int = 100_000
    ) -> None:
        self._store = store
        self._index = index
        self._clock = clock
        self._config = config
        self._max_entries = max_entries
        self._evict_every = max(1, max_entries // 100)
        self._lock = threading.Lock()
        self._inserts = 0

    def find_exact(self, namespace: str, key: str) -> Entry | None:
        """The live entry of exactly this request. Counts as a use of it."""
        now = self._clock()
        entry = self._store.find_exact(namespace, key, now)
        if entry is not None:
            self._touch(entry, now)
        return entry

    def search(self, namespace: str, fingerprint: str, vector: Vector) -> Match | Miss:
        """The live entry of the closest question, if that is within the threshold. A match counts as a use of it."""
        neighbours = self._index.search(namespace, fingerprint, vector, self._config.top_k)
        if not neighbours:
            return Miss(MissReason.EMPTY)
        close = [neighbour for neighbour in neighbours if neighbour.similarity >= self._config.threshold]
        if not close:
            return Miss(MissReason.BELOW_THRESHOLD, neighbours[0].similarity)
        return self._confirm(namespace, fingerprint, close)

    def insert(self, entry: Entry) -> None:
        """Keeps an entry in place of the one with its exact key; it can be searched for if it has a vector."""
        if entry.vector is not None:
            check_vector(entry.vector, self._index.dimension)
        # The store first: after a crash in between the index lacks an entry, which costs a miss until it is rebuilt.
        replaced = self._store.put(entry)
        if replaced is not None:
            self._index.delete([replaced])
        if entry.vector is not None:
            self._index.upsert(entry.namespace, entry.fingerprint, entry.id, entry.vector)
        if self._eviction_is_due():
            self.evict()

    def evict(self) -> int:
        """Forgets what has expired and, past the limit, what was used longest ago. Returns how many went."""
        gone = self._store.evict(self._max_entries, self._clock())
        self._index.delete(gone)
        return len(gone)

    def rebuild(self) -> int:
        """Loads the index from the store and returns the number of vectors. Those of another embedder's dimension stay out."""
        loaded = 0
        for entry in self._store.scan(self._clock()):
            if entry.vector is not None and _fits(entry.vector, self._index.dimension):
                self._index.upsert(entry.namespace, entry.fingerprint, entry.id, entry.vector)
                loaded += 1
        return loaded

    def _confirm(self, namespace: str, fingerprint: str, close: Sequence[Neighbour]) -> Match | Miss:
        """The first neighbour that the store calls live. Vectors of those that it does not are removed."""
        now = self._clock()
        live = {entry.id: entry for entry in self._store.get_live(namespace, fingerprint, [neighbour.id for neighbour in close], now)}
        if len(live) < len(close):
            self._index.delete([neighbour.id for neighbour in close if neighbour.id not in live])
        for neighbour in close:
            if neighbour.id in live:
                self._touch(live[neighbour.id], now)
                return Match(live[neighbour.id], neighbour.similarity)
        return Miss(MissReason.STALE, close[0].similarity)

    def _touch(self, entry: Entry, now: float) -> None:
        try:
            self._store.touch(entry.id, now)
        except StoreError as error:
            # The entry was read, so it may be served; only the order of eviction suffers.
            log.warning("a use of a cache entry was not recorded: %s", error)

    def _eviction_is_due(self) -> bool:
        with self._lock:
            self._inserts += 1
            return self._inserts % self._evict_every == 0


def _fits(vector: Vector, dimension: int) -> bool:
    try:
        check_vector(vector, dimension)
    except VectorIndexError:
        return False
    return True
