"""The contract of entry stores: SQL is the truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from cache.entry import Entry, Vector
from cache.vectors.base import VectorRecord

ALL = "all"
"""The scope of everything in a namespace."""


def model_scope(model: str) -> str:
    return f"model:{model}"


def tag_scope(tag: str) -> str:
    return f"tag:{tag}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a decision needs to know of a servable entry; its answer is read when it is to be served."""

    id: str
    text: str
    is_denied: bool = False
    """Feedback forbids its answer to the question."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a request without comparing it: the namespace's epoch and, if there is one, a servable entry."""

    epoch: int
    exact: Entry | None = None
    """Of exactly this request."""
    reworded: Entry | None = None
    """Else, of those whose question is worded the same but for what never changes an answer, the newest that feedback does not forbid."""


@dataclass(frozen=True, slots=True)
class Change:
    """A line of the outbox: the vector index may differ from the store in this entry."""

    seq: int
    entry_id: str
    record: VectorRecord | None
    """What the index shall hold of the entry; None: nothing."""


@dataclass(frozen=True, slots=True)
class EntryInfo:
    """An entry as its tenant sees it in a list."""

    id: str
    model: str
    text: str | None
    created_at: float
    expires_at: float
    last_used_at: float
    hits: int
    tokens: int
    size: int
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries of a namespace: those that agree in everything that is given."""

    model: str | None = None
    tag: str | None = None
    ids: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Stats:
    """Sums over the servable entries of a namespace. `tokens_saved` is tokens x hits."""

    entries: int
    bytes: int
    hits: int
    tokens_saved: int


@dataclass(frozen=True, slots=True)
class Quota:
    """The most that a namespace may hold. None: no limit."""

    max_entries: int | None = None
    max_bytes: int | None = None


UNLIMITED = Quota()


@dataclass(frozen=True, slots=True)
class Collected:
    """What was ended, by reason."""

    expired: int = 0
    invalidated: int = 0
    purged: int = 0
    """Rows that were ended before, whose vectors are gone by now, and that were removed for good."""

    @property
    def most(self) -> int:
        return max(self.expired, self.invalidated, self.purged)

    def __add__(self, other: "Collected") -> "Collected":
        return Collected(self.expired + other.expired, self.invalidated + other.invalidated, self.purged + other.purged)


class EntryStore(Protocol):
    """Keeps entries, and says which of them may be served. Thread-safe; every call may block on I/O and may raise `StoreError`.

    An entry goes through three states: `pending` (kept; its vector may not be in the index yet), `live` (the index has it),
    `dead` (a tombstone; the index may still have it). It is servable while it is not dead, not expired (`now < expires_at`) and no
    scope of its own (everything, its model, each of its tags) has been invalidated since its epoch. Reads return servable entries
    only, of the namespace that was asked for, and without their vectors. `id` is unique, and so is (`namespace`, `exact_key`)
    among those that are not dead. Whatever changes what a namespace serves, apart from new keys and time, raises its epoch.

    What concerns the index goes through the outbox, in the same transaction as the change itself.
    """

    def put(self, entry: Entry) -> None:
        """Stores the entry durably; one with the same exact key dies. An entry whose id is taken, or with text that UTF-8 cannot
        express, is refused."""

    def put_all(self, batch: Sequence[Entry]) -> None:
        """As `put`, in one transaction: all of them, or none."""

    def epoch(self, namespace: str) -> int:
        """The namespace's epoch, 0 at first. To be read before the work on an answer begins."""

    def find_exact(self, namespace: str, exact_key: str, now: float) -> Entry | None:
        """The servable entry with this exact key."""

    def look_up(self, namespace: str, exact_key: str, fingerprint: str, normal_key: str | None, now: float) -> Known:
        """See `Known`; all of one moment. `normal_key` is of the question, if it may be worded otherwise."""

    def candidates(self, namespace: str, fingerprint: str, ids: Sequence[str], normal_key: str, now: float) -> list[Candidate]:
        """Those of `ids` that are servable, have a text, and are of this namespace and fingerprint, in the order of `ids`.
        `normal_key` is of the question that is asked."""

    def get(self, namespace: str, entry_id: str, now: float) -> Entry | None:
        """The servable entry with this id."""

    def use(self, hits: Mapping[str, int], now: float) -> None:
        """Counts hits by entry id, and remembers the time. Unknown ids are ignored."""

    def delete(self, namespace: str, ids: Sequence[str], now: float) -> int:
        """Ends these entries of the namespace, and returns how many there were."""

    def invalidate(self, namespace: str, scope: str, now: float) -> int:
        """Ends what the namespace has kept in this scope (`ALL`, `model_scope`, `tag_scope`), at once. Returns the new epoch."""

    def page(self, namespace: str, wanted: Filter, after: str, limit: int, now: float) -> list[EntryInfo]:
        """At most `limit` entries with an id above `after`, in the order of their ids."""

    def stats(self, namespace: str, now: float) -> Stats: ...

    def claim(self, limit: int, now: float, hold_s: float, embedder: str) -> list[Change]:
        """Takes at most `limit` lines of the outbox for `hold_s` seconds, oldest first; nobody else gets them meanwhile.

        Vectors of other embedders than this one have no place in the index: they come as records of None.
        """

    def confirm(self, changes: Sequence[Change]) -> None:
        """Removes lines that were applied; entries that were pending become live. The line of an entry that died meanwhile stays, to
        be applied again: the index may have got the entry after another worker had it dropped."""

    def enqueue(self, ids: Sequence[str]) -> None:
        """Adds a line for each id: what the index holds of it is to be made right."""

    def backlog(self) -> int:
        """Lines in the outbox."""

    def scan(self, after: str, limit: int, now: float, embedder: str) -> list[VectorRecord]:
        """At most `limit` live entries with a vector of this embedder and an id above `after`, in the order of their ids.

        Pending ones and those of which the outbox has a line are left out: the index need not have them yet.
        """

    def known(self, ids: Sequence[str]) -> set[str]:
        """Which of these ids belong to entries that are not dead, or of which the outbox has a line."""

    def outdated(self, embedder: str, after: str, limit: int, now: float) -> list[tuple[str, str]]:
        """Id and text of at most `limit` servable entries whose vector another embedder made, with an id above `after`, in order."""

    def embed(self, vectors: Mapping[str, Vector], embedder: str) -> None:
        """Gives entries that are not dead the vector of another embedder. They are pending again. Unknown ids are ignored."""

    def collect(self, now: float, grace_s: float, limit: int) -> Collected:
        """Ends entries that have expired or were invalidated, and removes those that have been dead for `grace_s` seconds and that
        the outbox does not know. At most `limit` of each kind."""

    def evict(self, namespace: str | None, quota: Quota, now: float) -> int:
        """Ends what saves least (`value`) until the namespace (None: the whole store) is within its quota. Returns how many."""

    def count(self) -> int:
        """Servable and dead rows together."""

    def close(self) -> None:
        """Releases connections. Calling it twice is harmless."""
