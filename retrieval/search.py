"""Opens collections for searches: each one's index is brought up to the newest version in SQL, and looked after in the background."""

import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager

from retrieval.collection import Collection
from retrieval.collection_reader import CollectionReader, Key, serves
from retrieval.errors import BusyError, UnknownStoreError
from retrieval.reads import State
from retrieval.sources import IndexSource, index_name
from retrieval.store import DocumentStore
from retrieval.upkeep import Upkeep

SEARCH_THREADS = 32
"""Of the deployment, which call this."""
MAX_OPENING = SEARCH_THREADS // 2
"""Searches that open a collection, or wait for that, at once; those beyond wait for `OPENING_S` only. So others have threads left."""
MAX_WAITING = 3 * MAX_OPENING // 4
"""Of these, searches that wait. So those of one collection leave room for opening others."""
OPENING_S = 1.0


class _Slot:
    """A place for the newest known version of a collection."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.name = index_name(*key)
        self.lock = threading.Lock()
        """Held by who makes another version."""
        self.collection: Collection | None = None
        self.opening: Future[Collection] | None = None
        """What one search is doing, while there is no version yet, and others wait for."""
        self.is_gone = False


class CollectionCache:
    """Keeps the indexes of at most `max_loaded` collections, dropping the least recently searched. Thread-safe.

    A collection's first search in a process maps its saved index, in 3 to 6 s for a million rows, or reads all vectors from SQL and saves
    them, in 20 s; searches of other collections go on meanwhile. What then changes is added and removed row by row, and what takes
    longer (structures, files) is done in the background beside the version that is searched. So a search waits for reading what was added
    since the last one, 40,000 rows a second, and, each time 2 % have been added, for those to be put into the structure: a second
    for each 20,000 of them, and more than 65,536 are left to the background.
    """

    def __init__(self, store: DocumentStore, source: IndexSource, max_loaded: int) -> None:
        self._store = store
        self._reader = CollectionReader(store, source)
        self._source = source
        self._max_loaded = max_loaded
        self._lock = threading.Lock()
        self._loaded: OrderedDict[Key, _Slot] = OrderedDict()
        self._slots: weakref.WeakValueDictionary[Key, _Slot] = weakref.WeakValueDictionary()
        """Those that are loaded, and those that somebody still works on."""
        self._opening = threading.BoundedSemaphore(MAX_OPENING)
        self._waiting = threading.BoundedSemaphore(MAX_WAITING)
        self._upkeep = Upkeep(self._tidy)

    def open(self, namespace: str, store_id: str) -> Collection:
        """The newest version at the time of the call, or a newer one.

        Raises `UnknownStoreError`, `StorageError`, `BusyError`, `cache.errors.VectorIndexError`.
        """
        key = namespace, store_id
        try:
            state = self._store.state(*key)
        except UnknownStoreError:
            self._drop(key)
            raise
        slot = self._slot(key)
        try:
            collection = self._newest(slot, state)
        except UnknownStoreError:  # deleted meanwhile: what was made of it goes, too
            self.forget(*key)
            raise
        if self._source.is_due(collection.index):
            place = weakref.ref(slot)
            self._upkeep.ask(slot.name, lambda: self._tend(place()))
        return collection

    def forget(self, namespace: str, store_id: str) -> None:
        """The collection has been deleted: its index goes, too, in the background."""
        self._drop((namespace, store_id))
        name = index_name(namespace, store_id)
        self._upkeep.ask(f"forget {name}", lambda: self._source.forget(name))

    def start(self) -> None:
        """Upkeep begins, with what was deleted while nobody was there."""
        self._upkeep.start()

    def tend(self) -> bool:
        """Does one piece of upkeep in this thread. False: there was none."""
        return self._upkeep.step()

    def close(self) -> None:
        self._upkeep.close()
        self._source.close()

    def __len__(self) -> int:
        """How many collections are loaded."""
        return len(self._loaded)

    def _slot(self, key: Key) -> _Slot:
        with self._lock:
            slot = self._loaded.get(key) or self._slots.get(key) or _Slot(key)
            self._slots[key] = self._loaded[key] = slot
            self._loaded.move_to_end(key)
            while len(self._loaded) > self._max_loaded:
                self._loaded.popitem(last=False)
        return slot

    def _drop(self, key: Key) -> None:
        with self._lock:
            slot = self._loaded.pop(key, None) or self._slots.get(key)
            self._slots.pop(key, None)
        if slot is not None:
            slot.is_gone = True

    def _newest(self, slot: _Slot, state: State) -> Collection:
        collection = slot.collection
        if collection is None:
            collection = self._opened(slot, state)
        return collection if serves(collection, state) else self._newer(slot, state)

    def _opened(self, slot: _Slot, state: State) -> Collection:
        """One search opens the collection; the others wait for that, and fail if it does."""
        with self._lock:
            if slot.collection is not None:
                return slot.collection
            opening, is_first = slot.opening or Future[Collection](), slot.opening is None
            slot.opening = opening
        if is_first:
            self._open(slot, state, opening)
        elif wait([opening], OPENING_S).not_done:
            with _permit(self._waiting), _permit(self._opening):
                wait([opening])
        return opening.result()

    def _open(self, slot: _Slot, state: State, opening: "Future[Collection]") -> None:
        try:
            with _permit(self._opening, OPENING_S):
                opening.set_result(self._newer(slot, state))
        except BaseException as error:  # the others wait without a limit
            opening.set_exception(error)
        finally:
            with self._lock:
                slot.opening = None

    def _newer(self, slot: _Slot, state: State) -> Collection:
        """One thread makes the version; the others that want it wait for that."""
        with slot.lock:
            collection = slot.collection
            if collection is None or not serves(collection, state):
                slot.collection = collection = self._reader.newest(slot.key, collection, state)
        return collection

    def _tend(self, slot: _Slot | None) -> None:
        """Does what is due to the index, and then brings it up to the version that is searched meanwhile."""
        before = slot.collection if slot else None
        if slot is None or before is None or slot.is_gone or not self._source.is_due(before.index):
            return
        index = self._source.tended(slot.name, before.index, self._upkeep.is_stopping)
        tended = Collection(before.number, index, before.members)
        try:
            tended = self._reader.newest(slot.key, tended, self._store.state(*slot.key))
            with slot.lock:
                slot.collection = self._reader.newest(slot.key, tended, self._store.state(*slot.key))
        except UnknownStoreError:
            slot.is_gone = True
        if slot.is_gone:
            self._source.forget(slot.name)

    def _tidy(self) -> None:
        kept = self._source.kept()  # first: what is made from now on is not looked at
        known = {index_name(*key) for key in self._store.all_ids()} if kept else set()
        for name in kept:
            if name not in known:
                self._source.forget(name)


@contextmanager
def _permit(permits: threading.Semaphore, wait_s: float = 0.0) -> Iterator[None]:
    if not permits.acquire(timeout=wait_s):
        raise BusyError("searches of collections whose indexes are being opened")
    try:
        yield
    finally:
        permits.release()
