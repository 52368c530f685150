"""Single flight: equal requests that are in flight are computed once, in this process by a table, in the cluster by leases.

join ─┬─ alone      turned off, a limit was reached, or nothing came of the flight: computes for itself
      ├─ leader     computes for all, until it has   landed   its answer is kept: the followers get it
      │                                              ended    there is nothing to keep: the followers go on, each alone
      │                                              left     its client is gone: the first follower in line leads
      └─ follower   waits, and has the entry; or becomes one of the other two
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Literal

from cache.entry import Entry
from serve_app.flights_lease import Key, Lease, LeaseService, Limits
from serve_app.metrics import Metrics

SingleFlight = Literal["off", "process", "cluster"]
"""Where equal requests are computed once: nowhere, in each ingress process, or also across them."""
Role = Literal["leader", "follower", "alone"]
Outcome = Literal["led", "followed", "alone", "timeout", "reelected"]
"""What became of a request, as it is counted, once for each."""


class _Word(Enum):
    """What a follower is told instead of an entry."""

    LEAD = 1
    GO_ALONE = 2


@dataclass(slots=True, eq=False)
class _Flight:
    """One computation, whoever leads it."""

    key: Key
    until: float
    """On the event loop's clock: when it is forgotten."""
    flights: "Flights"
    places: dict[asyncio.Future[Entry | _Word], None] = field(default_factory=dict)
    """The followers in line."""
    lease: Lease | None = None

    async def claim(self) -> Entry | bool:
        """See `Lease.outcome`. The next leader waits for the same lease, or has it already."""
        self.lease = self.lease or self.flights.open_lease(self.key)
        return True if self.lease is None else await asyncio.shield(self.lease.outcome)

    def close(self, word: Entry | _Word) -> None:
        """Nobody joins from now on; those who wait are told."""
        self.flights.forget(self)
        for place in self.places:
            if not place.done():
                place.set_result(word)

    def end(self) -> None:
        self.close(_Word.GO_ALONE)
        if self.lease is not None:
            self.lease.end()

    def leave(self) -> None:
        """The first in line leads, if anybody waits."""
        first = next((place for place in self.places if not place.done()), None)
        if first is None:
            self.end()
        else:
            first.set_result(_Word.LEAD)


class Ticket:
    """A request's part in a flight. Its methods may be called in any state: they do nothing unless this request leads.

    As a context it ends the flight when an error passes, and leaves it when a cancellation does.
    """

    def __init__(self, entry: Entry | None = None, flight: _Flight | None = None, outcome: Outcome = "led") -> None:
        self.entry = entry
        """The answer, if another request has computed it."""
        self._flight = flight  # until this request has landed, ended or left
        self._lease: Lease | None = None
        self._outcome = outcome

    @property
    def role(self) -> Role:
        if self._flight is not None:
            return "leader"
        return "alone" if self.entry is None else "follower"

    async def claim(self) -> Entry | None:
        """To be awaited once, before the engine is asked: the entry, if another process computes it and is done in time.

        Costs one call to the cache when nobody else computes it. Never raises.
        """
        if self._flight is None:
            return self.entry
        flights, found = self._flight.flights, await self._flight.claim()
        if isinstance(found, Entry):
            self.entry = found
            self.landed(found)
        flights.count("followed" if self.entry else self._outcome if found else "timeout")
        return self.entry

    def landed(self, entry: Entry) -> None:
        """The answer is complete and on its way into the store: followers get it now. `written` must follow."""
        if flight := self._take():
            self._lease = flight.lease
            flight.close(entry)

    def written(self) -> None:
        """The entry is in the store, or was given up. The lease ends no sooner, so that others find the one or the other."""
        if self._lease is not None:
            self._lease.end()

    def ended(self) -> None:
        """The work is over. If nothing has landed, the followers compute their answers, all at once."""
        if flight := self._take():
            flight.end()

    def left(self) -> None:
        """The client is gone, and its work with it: the first follower in line leads from now on, under the same lease."""
        if flight := self._take():
            flight.leave()

    def _take(self) -> _Flight | None:
        flight, self._flight = self._flight, None
        return flight

    def __enter__(self) -> "Ticket":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, Exception):
            self.ended()
        elif error is not None:
            self.left()


ALONE = Ticket()
"""For requests that take no part."""
_DEFAULTS = Limits()


class Flights:
    """One for each ingress process; belongs to its event loop, whose clock it uses. `chance`: a random number in [0, 1)."""

    def __init__(
        self,
        cache: LeaseService,
        metrics: Metrics,
        mode: SingleFlight = "cluster",
        limits: Limits = _DEFAULTS,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._cache = cache
        self._metrics = metrics
        self._mode = mode
        self._limits = limits
        self._chance = chance
        self._table: dict[Key, _Flight] = {}
        self._leases: dict[asyncio.Task[None], Lease] = {}

    def __len__(self) -> int:
        """Keys in flight."""
        return len(self._table)

    async def join(self, namespace: str, key: str, epoch: int) -> Ticket:
        """At once for a leader; a follower waits. For requests that may be answered by an entry and kept as one, and have missed.

        `epoch`: the namespace's, read after the request came in. A leader must land, end or leave, whatever happens to it.
        """
        if self._mode == "off":
            return ALONE
        name = Key(namespace, key, epoch)
        flight = self._current(name)
        if flight is not None and len(flight.places) < self._limits.max_followers:
            return await self._follow(flight)
        if flight is not None or len(self._table) >= self._limits.max_keys:
            return self._alone("alone")
        flight = self._table[name] = _Flight(name, asyncio.get_running_loop().time() + self._limits.lead_s, self)
        return Ticket(flight=flight)

    def _current(self, name: Key) -> _Flight | None:
        flight = self._table.get(name)
        if flight is None or asyncio.get_running_loop().time() < flight.until:
            return flight
        flight.end()
        return None

    async def _follow(self, flight: _Flight) -> Ticket:
        place: asyncio.Future[Entry | _Word] = asyncio.get_running_loop().create_future()
        flight.places[place] = None
        try:
            async with asyncio.timeout(self._limits.follow_s):
                await place
        except TimeoutError:
            pass  # what it was told in the same moment counts
        except asyncio.CancelledError:
            if not place.cancelled() and place.result() is _Word.LEAD:  # elected, and gone before it knew
                flight.leave()
            raise
        finally:
            del flight.places[place]
        return self._alone("timeout") if place.cancelled() else self._told(flight, place.result())

    def _told(self, flight: _Flight, word: Entry | _Word) -> Ticket:
        if word is _Word.LEAD:
            return Ticket(flight=flight, outcome="reelected")
        if not isinstance(word, Entry):
            return self._alone("alone")
        self.count("followed")
        return Ticket(word)

    def _alone(self, outcome: Outcome) -> Ticket:
        self.count(outcome)
        return ALONE

    def count(self, outcome: Outcome) -> None:
        self._metrics.operation("flight", outcome)

    def forget(self, flight: _Flight) -> None:
        if self._table.get(flight.key) is flight:
            del self._table[flight.key]

    def open_lease(self, key: Key) -> Lease | None:
        """None: leases are not asked for."""
        if self._mode != "cluster":
            return None
        lease = Lease(self._cache, key, self._limits, self._chance)
        task = asyncio.get_running_loop().create_task(lease.live())
        self._leases[task] = lease
        task.add_done_callback(self._leases.pop)
        return lease

    async def stop(self) -> None:
        """Returns when all leases are given back. To be called when no answer is computed or written any longer."""
        for lease in self._leases.values():
            lease.end()
        await asyncio.gather(*self._leases, return_exceptions=True)
