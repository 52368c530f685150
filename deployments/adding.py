"""Work that waits for the encoder for minutes, in threads of its own, of which no tenant can take all: nothing else waits behind it."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from retrieval.errors import BusyError, StorageError
from retrieval.sharing import has_room

PLACES = 32

T = TypeVar("T")


class Adding:
    """Thread-safe."""

    def __init__(self, places: int = PLACES) -> None:
        """`places`: what is done at once."""
        self._places = places
        self._threads = ThreadPoolExecutor(places, "adding")
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()
        self._stopping = threading.Event()

    async def do(self, namespace: str, work: Callable[[Callable[[], bool]], T]) -> T:
        """The result of `work`, which is called with what tells whether it is still wanted: not when this is cancelled, or to stop.

        It has its place until it has ended, waited for or not. Raises `BusyError`, and `StorageError` where this is stopped.
        """
        is_left = threading.Event()
        running = self._begun(namespace, lambda: work(lambda: not (is_left.is_set() or self._stopping.is_set())))
        try:
            return await asyncio.wrap_future(running)
        finally:
            is_left.set()

    def _begun(self, namespace: str, work: Callable[[], T]) -> "Future[T]":
        with self._lock:
            if not has_room(self._taken[namespace], self._taken.total(), 1, self._places):
                raise BusyError(f"yours of the {self._places} requests that may add documents at once")
            self._taken[namespace] += 1
        try:
            running = self._threads.submit(work)
        except RuntimeError as error:  # the threads are shut down
            self._ended(namespace)
            raise StorageError("the document store is being closed") from error
        running.add_done_callback(lambda done: self._ended(namespace))
        return running

    def _ended(self, namespace: str) -> None:
        with self._lock:
            self._taken[namespace] -= 1
            if not self._taken[namespace]:
                del self._taken[namespace]

    def stop(self) -> None:
        """Blocks until nothing is done any more."""
        self._stopping.set()
        self._threads.shutdown(cancel_futures=True)
