"""Work in the background, one piece after the other, in a thread of its own."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable

from cache.errors import CacheError
from retrieval.errors import RetrievalError, Stopping

log = logging.getLogger("ray.serve")

MAX_WAITING = 10_000
"""Pieces of work; of more the oldest is forgotten, because whoever asked for it will ask again."""
CLOSE_LIMIT_S = 5.0
"""How long `close` waits for what is being done."""


class Upkeep:
    """Thread-safe."""

    def __init__(self, first: Callable[[], None]) -> None:
        """`first`: what the thread begins with."""
        self._work: OrderedDict[str, Callable[[], None]] = OrderedDict(first=first)
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def ask(self, name: str, work: Callable[[], None]) -> None:
        """It is done once, if it is asked for again before its turn."""
        with self._changed:
            if name not in self._work:
                self._work[name] = work
                self._changed.notify()
            while len(self._work) > MAX_WAITING:
                self._work.popitem(last=False)

    def step(self) -> bool:
        """Does one piece. False: there was none. What fails is logged."""
        with self._changed:
            if not self._work:
                return False
            name, work = self._work.popitem(last=False)
        try:
            work()
        except Stopping:
            pass
        except (RetrievalError, CacheError) as error:
            log.warning("upkeep of the indexes failed", extra={"work": name, "error": str(error)[:500]})
        except Exception:  # a thread that ends would be missed by nobody
            log.exception("upkeep of the indexes failed", extra={"work": name})
        return True

    def start(self) -> None:
        # A daemon: k-means, which may take minutes, cannot be stopped, and must not hold up the process's end.
        self._thread = threading.Thread(target=self._run, name="index-upkeep", daemon=True)
        self._thread.start()

    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def close(self) -> None:
        """Twice does no harm."""
        self._stopping.set()
        with self._changed:
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(CLOSE_LIMIT_S)

    def _run(self) -> None:
        while not self.is_stopping():
            if not self.step():
                with self._changed:
                    self._changed.wait_for(lambda: self._work or self.is_stopping())
