"""The shared cache as one object: what a deployment holds, and calls from several threads."""

import hashlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from cache.cascade import Cascade, Decision, Query, Reason
from cache.database import Database
from cache.decision.belief import Prior
from cache.decision.beliefs import Beliefs
from cache.decision.intervals import interval
from cache.decision.priors import PRIORS
from cache.embedders.base import Embedder
from cache.entry import Entry
from cache.errors import CacheError, StoreError
from cache.guards.normal import REMEMBERED_CHARS, normal_key
from cache.indexer import Differences, Indexer
from cache.overlay import Overlay
from cache.policy import Policy
from cache.stores.base import ALL, UNLIMITED, Collected, EntryInfo, EntryStore, Filter, Known, Quota, Stats
from cache.stores.evidence import Observation, SqlEvidenceStore
from cache.stores.leases import SqlLeaseStore
from cache.stores.query_log import LoggedQuery, SqlQueryLog
from cache.stores.sql import SqlEntryStore
from cache.vectors.base import VectorIndex, VectorRecord, check_vector
from cache.verifiers.base import Verifier

log = logging.getLogger(__name__)

GRACE_S = 60.0
"""How long a tombstone stays after its vector is gone: a reader may hold its id."""
GARBAGE_BATCH, GARBAGE_ROUNDS = 500, 20
"""Entries of one transaction, which others wait for, and transactions of one call."""
USES_BATCH = 500
"""Entries whose hits are written in one transaction."""
MAX_LOGGED = 1_000_000
"""Lines of the query log; the oldest go."""
AUDITED_S = 30 * 86_400.0
"""Older audits say little of today's hits."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found, and what led to it. No entry: a miss."""

    decision: Decision
    entry: Entry | None = None


@dataclass(frozen=True, slots=True)
class Audits:
    """Hits whose answer was also computed anew, and the 95 % interval of the share of all hits that were wrong."""

    number: int
    wrong: int
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Parts:
    """What a cache is made of. The stores share one database."""

    store: EntryStore
    evidence: SqlEvidenceStore
    leases: SqlLeaseStore
    queries: SqlQueryLog
    index: VectorIndex
    verifier: Verifier
    embedder: str
    """Name of the embedder whose vectors the index holds."""
    priors: dict[str, Prior]
    """By kind of score (`cache.cascade`)."""

    @property
    def scorer(self) -> str:
        """Names verifier and embedder, whose scores are learnt about."""
        return hashlib.sha256(f"{self.verifier.name}\0{self.embedder}".encode()).hexdigest()

    @classmethod
    def on(cls, database: Database, index: VectorIndex, verifier: Verifier, embedder: str) -> Self:
        """With all stores on one database, which the cache closes."""
        stores = SqlEntryStore(database), SqlEvidenceStore(database), SqlLeaseStore(database), SqlQueryLog(database)
        return cls(*stores, index, verifier, embedder, PRIORS)


class SemanticCache:
    """Thread-safe. Any method may raise `StoreError`, `VectorIndexError` or `VerifierError`: to a request that is a miss."""

    def __init__(
        self,
        parts: Parts,
        clock: Callable[[], float],
        quota: Quota = UNLIMITED,
        quotas: Mapping[str, Quota] | None = None,
        overlay: Overlay | None = None,
    ) -> None:
        """`clock` gives seconds since the epoch; `quota` is of each namespace that has none of its own in `quotas`."""
        self._parts = parts
        self._store = parts.store
        self._clock = clock
        self._quota = quota
        self._quotas = quotas or {}
        self._overlay = overlay or Overlay(clock)
        self._beliefs = Beliefs(parts.evidence, parts.priors, parts.scorer, clock)
        self._cascade = Cascade(parts.store, parts.index, self._overlay, parts.verifier, self._beliefs, clock)
        self._indexer = Indexer(parts.store, parts.index, self._overlay, parts.embedder, clock)
        self._uses: Counter[str] = Counter()
        self._grown: set[str] = set()
        """Namespaces that may be over their quota."""
        self._is_loading = False
        """`load` has begun and not ended: the index has some of its vectors."""
        self._lock = threading.Lock()

    # Look-ups

    def epoch(self, namespace: str) -> int:
        """To be read before the work on an answer begins, and given to `insert` with it."""
        return self._store.epoch(namespace)

    def find(self, namespace: str, key: str, fingerprint: str, text: str | None) -> Known:
        """See `Known`. `text`: the question, if it may be worded otherwise. What is found counts as used."""
        is_long = text is not None and len(text) > REMEMBERED_CHARS  # then its form takes longer than asking twice
        known = self._store.look_up(
            namespace, key, fingerprint, None if text is None or is_long else normal_key(text, namespace), self._clock()
        )
        if text is not None and is_long and known.exact is None:
            known = replace(self._store.look_up(namespace, key, fingerprint, normal_key(text, namespace), self._clock()), epoch=known.epoch)
        self._used(known.exact or known.reworded)
        return known

    def find_exact(self, namespace: str, key: str) -> Entry | None:
        """The servable entry of exactly this request. Counts as a use of it."""
        return self._used(self._store.find_exact(namespace, key, self._clock()))

    def search(self, query: Query, policy: Policy) -> Found:
        """The answer to an equivalent question, or why there is none. A hit counts as a use."""
        check_vector(query.vector, self._parts.index.dimension)
        decision = self._cascade.decide(query, policy)
        if decision.reason is not Reason.HIT or decision.candidate is None:
            return Found(decision)
        entry = self._used(self._store.get(query.namespace, decision.candidate.id, self._clock()))
        if entry is None or entry.fingerprint != query.fingerprint:
            decision.reason = Reason.STALE
            return Found(decision)
        return Found(decision, entry)

    def used(self, hits: Mapping[str, int]) -> None:
        """Counts uses of entries that were given without a look-up here, by id."""
        with self._lock:
            self._uses.update(hits)

    # Changes

    def insert(self, entry: Entry) -> None:
        """Keeps an entry in place of the one with its exact key; it can be searched for if it has text and vector."""
        self.insert_all([entry])

    def insert_all(self, entries: Sequence[Entry]) -> None:
        """As `insert`, in one transaction: all of them, or none."""
        ready = [self._ready(entry) for entry in entries]
        self._store.put_all(ready)
        for entry in ready:
            if entry.vector is not None:
                self._overlay.add(VectorRecord(entry.id, entry.namespace, entry.fingerprint, entry.vector))
        with self._lock:
            self._grown |= {each.namespace for each in ready if self._quotas.get(each.namespace, self._quota) != UNLIMITED}

    def _ready(self, entry: Entry) -> Entry:
        if entry.vector is not None:
            check_vector(entry.vector, self._parts.index.dimension)
            entry = replace(entry, embedder=self._parts.embedder)
        return entry if entry.text is None else replace(entry, normal_key=normal_key(entry.text, entry.namespace))

    def delete(self, namespace: str, ids: Sequence[str]) -> int:
        """Returns how many of the entries there were."""
        return self._store.delete(namespace, ids, self._clock())

    def invalidate(self, namespace: str, scope: str) -> int:
        """Ends everything in a scope (see `cache.stores.base`), at once. Returns the new epoch. With `ALL` goes the query log, too."""
        epoch = self._store.invalidate(namespace, scope, self._clock())
        if scope == ALL:
            self._parts.queries.clear(namespace)
        return epoch

    def page(self, namespace: str, wanted: Filter, after: str, limit: int) -> list[EntryInfo]:
        return self._store.page(namespace, wanted, after, limit, self._clock())

    def get(self, namespace: str, entry_id: str) -> Entry | None:
        return self._store.get(namespace, entry_id, self._clock())

    def get_all(self, namespace: str, ids: Sequence[str]) -> list[Entry]:
        """Those of the entries that are servable."""
        found = (self.get(namespace, entry_id) for entry_id in ids)
        return [entry for entry in found if entry is not None]

    def stats(self, namespace: str) -> Stats:
        return self._store.stats(namespace, self._clock())

    def log(self, lines: Sequence[LoggedQuery]) -> None:
        """Writes lines of the query log."""
        self._parts.queries.append(lines)

    # What is learnt

    def learn(self, namespace: str, decision: Decision, correct: bool, *, served: bool = False) -> None:
        """Whether the candidate of a decision would have been right. `served`: it was a hit, checked afterwards."""
        if not decision.teaches or decision.candidate is None or decision.score is None:
            return
        now = self._clock()
        seen = Observation(namespace, decision.candidate.id, decision.kind, decision.score, correct, now, self._parts.scorer)
        self._parts.evidence.observe(seen, audited=served)

    def deny(self, namespace: str, entry_id: str, question: str) -> bool:
        """The entry was a wrong answer to the question, and never answers it again. False: there is no such entry."""
        if self._store.get(namespace, entry_id, self._clock()) is None:
            return False
        self._parts.evidence.deny(entry_id, question, self._clock())
        return True

    def audits(self, namespace: str) -> Audits:
        """What the namespace's audits of the last `AUDITED_S` seconds say of its hits."""
        number, wrong = self._parts.evidence.audited(namespace, self._clock() - AUDITED_S)
        return Audits(number, wrong, *interval(wrong, number))

    # Single flight

    def acquire(self, namespace: str, key: str, owner: str, for_s: float) -> bool:
        """Whether `owner` is to compute the answer; False: another one does."""
        return self._parts.leases.acquire(namespace, key, owner, self._clock(), for_s)

    def release(self, namespace: str, key: str, owner: str) -> None:
        self._parts.leases.release(namespace, key, owner)

    # Upkeep, called now and then by whoever owns the cache

    def load(self) -> int:
        """Fills an index that is empty: in memory after a start, or new. Returns how many vectors it got. If it fails, call it again."""
        if self._parts.index.count() and not self._is_loading:
            return 0
        self._is_loading = True
        loaded = self._indexer.load()
        self._is_loading = False
        return loaded

    def embed_again(self, embedder: Embedder) -> int:
        """Gives every entry that another embedder had seen a vector of this one; returns how many. May also raise `EmbedderError`."""
        return self._indexer.embed_again(embedder)

    def apply(self) -> int:
        """Brings the index in step with the store; returns the number of changes."""
        return self._indexer.apply()

    def reconcile(self) -> Differences:
        differences = self._indexer.reconcile()
        if differences.missing or differences.orphaned:
            log.warning("the vector index differed from the store: %d missing, %d orphaned", differences.missing, differences.orphaned)
        return differences

    def enforce_quotas(self) -> int:
        """Ends what saves least in each namespace that has grown past its quota. Returns how many entries."""
        with self._lock:
            grown, self._grown = self._grown, set()
        try:
            return sum(self._store.evict(each, self._quotas.get(each, self._quota), self._clock()) for each in grown)
        except StoreError:
            with self._lock:
                self._grown |= grown
            raise

    def evict(self, max_entries: int) -> int:
        """Ends what saves least until the whole store has at most so many entries."""
        return self._store.evict(None, Quota(max_entries), self._clock())

    def collect(self) -> Collected:
        """Ends what has expired or was invalidated, and removes what ended a while ago; the rest of much in later calls."""
        self._parts.leases.collect(self._clock())
        self._parts.queries.trim(MAX_LOGGED)
        self._parts.evidence.forget_audits(self._clock() - AUDITED_S)
        collected = Collected()
        for _ in range(GARBAGE_ROUNDS):
            some = self._store.collect(self._clock(), GRACE_S, GARBAGE_BATCH)
            collected += some
            if some.most < GARBAGE_BATCH:
                break
        return collected

    def flush_uses(self) -> None:
        """Writes hit counts. They are gathered in memory: a crash loses those of the last moments, which only eviction misses."""
        with self._lock:
            uses, self._uses = self._uses, Counter()
        left = list(uses.items())
        try:
            while left:
                self._store.use(dict(left[:USES_BATCH]), self._clock())
                del left[:USES_BATCH]
        except StoreError:
            with self._lock:
                self._uses.update(dict(left))
            raise

    def close(self) -> None:
        try:
            self.flush_uses()
            self.apply()
        except CacheError as error:
            log.warning("the cache was closed with work left, which the next start does: %s", error)
        self._parts.index.close()
        self._store.close()

    def _used(self, entry: Entry | None) -> Entry | None:
        if entry is not None:
            with self._lock:
                self._uses[entry.id] += 1
        return entry
