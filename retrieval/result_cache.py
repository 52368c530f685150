"""Remembers which chunks a search found: of the very same search, or of one for nearly the same query.

Row ids and scores only, never texts or answers. (The approximate part is the idea of Proximity, arXiv 2503.05530: a retrieval is spared
when an earlier query's vector is within a tolerance.)
"""

import sys
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from cache.config import Section
from cache.entry import Vector
from cache.vectors.codes import inner_products
from retrieval.indexes.base import Found

OVERHEAD_BYTES, FOUND_BYTES = 440, 130
"""What an entry takes besides its vector and its text, in objects and places in dictionaries, and what each row that was found takes."""

MAX_COMPOSED = 2000
"""Characters of a text whose characters are composed. Python puts n accents behind one letter in order in n² steps, and lets no other
thread run meanwhile: for a megabyte, minutes."""


class ResultCacheConfig(Section):
    """Searches whose results are remembered, for as long as no collection of theirs changes."""

    enabled: bool = True
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """A search takes the results of one whose query has at least the cosine 1 - `tolerance` to its own; 98 of 100 rows are then the right
    ones (`benchmarks/result_cache.py`). 0: of equal texts only."""
    max_entries: Annotated[int, Field(ge=1)] = 10_000
    max_bytes: Annotated[int, Field(ge=1)] = 64 * 1024 * 1024
    ttl_s: Annotated[float, Field(gt=0)] = 3600.0
    """Results older than this are searched anew."""


@dataclass(frozen=True, slots=True)
class SearchKey:
    """All of a search but its query. Searches of unequal keys share nothing."""

    access: str
    """Who may see the results: the namespace, or whatever else decides what a search may find."""
    stores: tuple[str, ...]
    versions: tuple[int, ...]
    """Of each collection: the newest there is. Any change of one makes all earlier results worthless."""
    top_k: int
    filters: str = ""
    """Their digest."""
    threshold: float | None = None
    """The least score."""


@dataclass(slots=True)
class Counts:
    """Since the beginning. `misses` are searches that neither part had."""

    exact: int = 0
    near: int = 0
    misses: int = 0
    evicted: int = 0
    """Because there was no room."""
    outdated: int = 0
    """Because a collection had changed, or time was over."""


@dataclass(slots=True, eq=False)
class _Group:
    """Searches whose keys are equal but for versions, all of the same versions."""

    versions: tuple[int, ...]
    entries: dict[str, "_Entry"] = field(default_factory=dict)
    """By the query's text."""
    slots: list[int] = field(default_factory=list)
    owners: list["_Entry"] = field(default_factory=list)
    """The entries with a vector, and where their vectors are."""


@dataclass(slots=True, eq=False)
class _Entry:
    key: SearchKey
    """Without versions."""
    text: str
    found: list[Found]
    ends_at: float
    size: int
    slot: int | None


class ResultCache:
    """Least-recently-used results, limited in number and in bytes. Thread-safe.

    Ask `exact` first, then, with the query's vector, `near`, and `put` what a search has found. The vectors of a key are compared one
    by one.
    """

    def __init__(self, config: ResultCacheConfig, clock: Callable[[], float]) -> None:
        """`clock` gives seconds, and never goes back."""
        self._config = config
        self._clock = clock
        self._lock = threading.Lock()
        self._groups: dict[SearchKey, _Group] = {}
        self._order: OrderedDict[_Entry, None] = OrderedDict()
        self._vectors: npt.NDArray[np.float32] | None = None
        """A place for each entry that can have a vector. The system gives memory to those that are used."""
        self._free: list[int] = []
        self._bytes = 0
        self._counts = Counts()

    @property
    def counts(self) -> Counts:
        with self._lock:
            return replace(self._counts)

    @property
    def bytes(self) -> int:
        """What all entries take."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._order)

    def exact(self, key: SearchKey, text: str) -> list[Found] | None:
        """What a search for this text found, white space and forms of characters aside."""
        with self._lock:
            group = self._group(key)
            entry = None if group is None else self._alive(group.entries.get(normal(text)))
            if entry is None:
                return None
            self._counts.exact += 1
            return self._used(entry)

    def near(self, key: SearchKey, text: str, vector: Vector) -> list[Found] | None:
        """What a search for the nearest query within the tolerance found; its scores are that query's.

        From then on, it is the exact result for this text, too.
        """
        with self._lock:
            entry = self._nearest(self._group(key), vector)
            if entry is None:
                self._counts.misses += 1
                return None
            self._counts.near += 1
            found = self._used(entry)
            self._keep(key, normal(text), found, None, entry.ends_at)
            return found

    def put(self, key: SearchKey, text: str, vector: Vector, found: Sequence[Found]) -> None:
        """Keeps what a search with this key found. Nothing is kept of versions older than those that are known."""
        with self._lock:
            self._keep(key, normal(text), list(found), vector if self._config.tolerance else None, self._clock() + self._config.ttl_s)

    def _group(self, key: SearchKey) -> _Group | None:
        """That of the key's versions. One of older versions is forgotten."""
        name = _unversioned(key)
        group = self._groups.get(name)
        if group is None or group.versions == key.versions:
            return group
        if not _older(key.versions, group.versions):
            for entry in list(group.entries.values()):
                self._counts.outdated += 1
                self._forget(entry)
        return None

    def _nearest(self, group: _Group | None, vector: Vector) -> _Entry | None:
        if group is None or not group.slots or self._vectors is None or vector.shape != self._vectors.shape[1:]:
            return None
        vector = np.ascontiguousarray(vector, np.float32)
        products = inner_products(vector, self._vectors, np.array(group.slots, np.int64))
        best = int(products.argmax())
        # Rounding aside: an equal vector is within any tolerance.
        return self._alive(group.owners[best]) if products[best] >= 1 - self._config.tolerance - 1e-6 else None

    def _alive(self, entry: _Entry | None) -> _Entry | None:
        if entry is not None and self._clock() >= entry.ends_at:
            self._counts.outdated += 1
            self._forget(entry)
            return None
        return entry

    def _used(self, entry: _Entry) -> list[Found]:
        self._order.move_to_end(entry)
        return list(entry.found)

    def _keep(self, key: SearchKey, text: str, found: list[Found], vector: Vector | None, ends_at: float) -> None:
        name = _unversioned(key)
        group = self._group(key)
        if group is None:
            if name in self._groups:  # of newer versions
                return
            group = _Group(key.versions)
        elif text in group.entries:
            self._forget(group.entries[text])
        size = OVERHEAD_BYTES + sys.getsizeof(text) + FOUND_BYTES * len(found) + (0 if vector is None else vector.nbytes)
        if size > self._config.max_bytes:
            return
        while len(self._order) >= self._config.max_entries or self._bytes + size > self._config.max_bytes:
            self._counts.evicted += 1
            self._forget(next(iter(self._order)))
        entry = _Entry(name, text, found, ends_at, size, None if vector is None else self._placed(vector))
        self._groups[name] = group
        group.entries[text] = entry
        if entry.slot is not None:
            group.slots.append(entry.slot)
            group.owners.append(entry)
        self._order[entry] = None
        self._bytes += size

    def _placed(self, vector: Vector) -> int:
        if self._vectors is None:
            self._vectors = np.empty((self._config.max_entries, len(vector)), np.float32)
            self._free = list(range(self._config.max_entries - 1, -1, -1))
        slot = self._free.pop()
        self._vectors[slot] = vector
        return slot

    def _forget(self, entry: _Entry) -> None:
        group = self._groups[entry.key]
        del self._order[entry]
        del group.entries[entry.text]
        self._bytes -= entry.size
        if entry.slot is not None:
            place = group.slots.index(entry.slot)
            group.slots[place], group.owners[place] = group.slots[-1], group.owners[-1]
            group.slots.pop()
            group.owners.pop()
            self._free.append(entry.slot)
        if not group.entries:
            del self._groups[entry.key]


def normal(text: str) -> str:
    """Texts of one normal form have one result: encoders do not tell them apart."""
    if len(text) <= MAX_COMPOSED:
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.split())


def _unversioned(key: SearchKey) -> SearchKey:
    return replace(key, versions=())


def _older(versions: tuple[int, ...], others: tuple[int, ...]) -> bool:
    """Whether these are of an earlier moment: a slow search's."""
    return len(versions) == len(others) and all(a <= b for a, b in zip(versions, others, strict=True))
