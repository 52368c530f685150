"""Searches that go on while their provisional results are used."""

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from retrieval.documents import SearchResult
from retrieval.errors import StorageError, UnknownTicketError
from retrieval.indexes.base import Found

MAX_OPEN = 256
THREADS = 8
TICKET_S = 10.0
"""After that a search is stopped, and forgotten."""
WAIT_S = 20.0
"""How long `end` waits."""


@dataclass(slots=True, eq=False)
class Run:
    """One search after its first stage."""

    namespace: str
    stages: Iterator[list[Found]]
    latest: list[Found]
    ends_at: float
    clock: Callable[[], float]
    finish: Callable[[list[Found]], SearchResult]
    """What makes a result of what was found."""
    is_stopped: bool = False
    future: "Future[list[Found]]" = field(init=False)

    def walk(self) -> list[Found]:
        """To the last stage. Raises `UnknownTicketError` if it is stopped, or takes too long."""
        for stage in self.stages:
            self.latest = stage
            if self.is_stopped or self.clock() >= self.ends_at:
                raise UnknownTicketError("the search was given up")
        return self.latest

    def found(self) -> list[Found]:
        """Waits for it; if no thread has had time for it, here."""
        if self.future.cancel():
            return self.walk()
        try:
            return self.future.result(WAIT_S)
        except (TimeoutError, CancelledError) as error:
            raise StorageError("the search did not end in time") from error


class Tickets:
    """Thread-safe."""

    def __init__(self, clock: Callable[[], float], max_open: int = MAX_OPEN) -> None:
        """`clock` gives seconds, and never goes back."""
        self._clock = clock
        self._max_open = max_open
        self._lock = threading.Lock()
        self._open: OrderedDict[str, Run] = OrderedDict()
        self._threads = ThreadPoolExecutor(THREADS, "search")

    def __len__(self) -> int:
        return len(self._open)

    def begin(
        self, namespace: str, stages: Iterator[list[Found]], first: list[Found], finish: Callable[[list[Found]], SearchResult]
    ) -> tuple[str, Run] | None:
        """The rest of a search whose `first` stage has been, in a thread. None: too many are under way."""
        ticket = secrets.token_urlsafe(16)
        run = Run(namespace, stages, first, self._clock() + TICKET_S, self._clock, finish)
        with self._lock:
            self._forget_old()
            if len(self._open) >= self._max_open:
                return None
            try:
                run.future = self._threads.submit(run.walk)
            except RuntimeError:  # it is closed
                return None
            self._open[ticket] = run
        return ticket, run

    def end(self, namespace: str, ticket: str) -> SearchResult:
        """Waits for the search. Raises `UnknownTicketError`, also for another namespace's ticket, and what searches raise."""
        with self._lock:
            self._forget_old()
            run = self._open.get(ticket)
            if run is None or run.namespace != namespace:
                raise UnknownTicketError("no search of this ticket is under way")
            del self._open[ticket]
        return run.finish(run.found())

    def drop(self, ticket: str) -> None:
        """It has ended, or nobody wants it."""
        with self._lock:
            run = self._open.pop(ticket, None)
        if run is not None:
            self._stop(run)

    def close(self) -> None:
        """Twice does no harm."""
        with self._lock:
            for run in self._open.values():
                run.is_stopped = True
            self._open.clear()
        self._threads.shutdown(cancel_futures=True)

    def _forget_old(self) -> None:
        now = self._clock()
        while self._open and next(iter(self._open.values())).ends_at <= now:
            self._stop(self._open.popitem(last=False)[1])

    @staticmethod
    def _stop(run: Run) -> None:
        run.is_stopped = True
        run.future.cancel()
