"""A flight's lease: which process of the cluster computes the answer to a request."""

import asyncio
import logging
import random
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from cache.entry import Entry

log = logging.getLogger("ray.serve")

T = TypeVar("T")
FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.25


class Key(NamedTuple):
    """What makes requests equal. The epoch is one of it: what is asked after an invalidation is not answered by work from before it."""

    namespace: str
    key: str
    epoch: int


class LeaseService(Protocol):
    """The shared cache. Any call may raise, or never return."""

    async def acquire(self, namespace: str, key: str, epoch: int, owner: str, for_s: float) -> Entry | bool:
        """The servable entry of this request, if there is one by now; else whether `owner` has the lease for `for_s` seconds from now.

        Looks for the entry after it has asked for the lease, and does not hold the lease of a request that it has the entry of: so
        whoever gets a lease that another one released also learns what that one has written. Prolongs one's own.
        """

    async def release(self, namespace: str, key: str, epoch: int, owner: str) -> None:
        """Gives one's lease back; another one's stays."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Past any of them a request is computed alone. Times in seconds."""

    max_keys: int = 4096
    max_followers: int = 1000
    """Of each key."""
    follow_s: float = 60.0
    """How long a follower waits. Its leader is known to be at work, unlike another process, and computing anew takes as long again."""
    lead_s: float = 600.0
    """A leader that has not ended by then is forgotten, and so is its lease: a guard against one that never does."""
    poll_s: float = 10.0
    """How long another process is waited for, but not longer than `lease_s`."""
    lease_s: float = 30.0
    """When a process that died with a lease has lost it. Prolonged at half of it."""
    call_s: float = 0.5
    """A cache that answers later is taken for one that does not."""


class Lease:
    """The try for one lease, and its life. Needs a running event loop, whose clock it uses. `chance`: a random number in [0, 1)."""

    def __init__(self, cache: LeaseService, key: Key, limits: Limits, chance: Callable[[], float] = random.random) -> None:
        loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[Entry | bool] = loop.create_future()
        """Another process's answer; True: compute it, also because the cache does not answer; False: another one took too long."""
        self._cache = cache
        self._key = key
        self._owner = uuid.uuid4().hex  # of this flight, not of the process: else it would release its next flight's lease
        self._limits = limits
        self._chance = chance
        self._clock = loop.time
        self._over = asyncio.Event()

    def end(self) -> None:
        """The lease is not needed any longer: the answer has been written, or there will be none."""
        self._over.set()

    async def live(self) -> None:
        """To be run as a task of its own, which no client's leaving cancels. Ends soon after `end`, with the lease released."""
        try:
            self.outcome.set_result(await self._win())
        finally:
            if not self.outcome.done():  # the task was cancelled, which is no reason to let a request wait for ever
                self.outcome.set_result(True)
        if self.outcome.result() is True and await self._hold():
            await self._bounded(self._cache.release(*self._key, self._owner))

    async def _win(self) -> Entry | bool:
        """What `outcome` says."""
        until = self._clock() + min(self._limits.poll_s, self._limits.lease_s)
        pause = FIRST_PAUSE_S
        while (answer := await self._ask()) is False:
            jittered = pause * (0.5 + self._chance() / 2)
            if self._clock() >= until or await self._is_over_within(jittered):
                return False
            pause = min(2 * pause, LONGEST_PAUSE_S)
        return True if answer is None else answer

    async def _hold(self) -> bool:
        """Prolongs the lease until it is over. Whether it is still ours then, for all that is known."""
        until = self._clock() + self._limits.lead_s
        while self._clock() < until and not await self._is_over_within(self._limits.lease_s / 2):
            if await self._ask() not in (True, None):
                return False
        return True

    async def _ask(self) -> Entry | bool | None:
        """None: the cache does not answer."""
        return await self._bounded(self._cache.acquire(*self._key, self._owner, self._limits.lease_s))

    async def _is_over_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._over.wait()
        except TimeoutError:
            return False

    async def _bounded(self, call: Awaitable[T]) -> T | None:
        try:
            async with asyncio.timeout(self._limits.call_s):
                return await call
        except Exception as error:  # such calls raise errors of many types; without a lease the answer is computed here
            log.warning("lease call failed", extra={"error": type(error).__name__})
            return None
