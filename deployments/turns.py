"""The queue before the engines: requests wait here while every replica has enough to do, and leave in a fair order.

Engines serve in order of arrival; so whoever sends ten times as much would have ten times as much. Here the tenant that has had the least
goes first (`cache/prefix/fair.py`), of its requests those of which most is cached, if `window` allows. What waits here has not chosen its
replica yet, and what would wait for too long is refused when it comes.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from cache.prefix.fair import FairQueue
from deployments.errors import QueueFullError
from deployments.peers import Peers

LOOK_S = 0.05
"""How often, at least, is looked for room while requests wait: predictions may be wrong, and other ingresses' requests end, too."""
MIN_LOOK_S = 0.001
YIELD_S = 0.005
"""How often, while there is room and other ingresses go first; it is looked as well when they tell that they have gone."""
CREDIT_S = 3.0
"""A tenant that has asked for less than its share may have its share of so many seconds at once"""
SURE = 0.75
"""What would wait for more than this share of its longest wait is refused when it comes: waits cannot be predicted better, as others come
meanwhile, and who is refused after the wait has waited in vain.
"""
LATE = 2.0
"""What has waited for so many times the longest wait waits no longer."""
KNOWN_S = 1.0
"""So long something must have waited until the pace is known."""
RATE_S = 5.0
"""The pace of the queue is that of the last seconds."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Whose a request is, and what its turn goes by."""

    name: str = ""
    weight: float = 1.0
    max_waiting: int | None = None
    """Requests of this flow that may wait at once."""
    priority: int = 0
    """Within the flow, the lowest goes first."""
    output_tokens: float = 0.0
    """Expected of its answer."""
    max_wait_s: float = math.inf
    """It is not worth its while to wait for longer."""


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """Of one ingress."""

    is_fair: bool = True
    """False: nobody waits, unless `window` says so."""
    window: int = 0
    """See `cache.prefix.turns.Turns`."""
    max_waiting: int = 1024
    max_wait_s: float = math.inf


class Turnstile:
    """Of one ingress, in its event loop."""

    def __init__(self, limits: TurnLimits, room_in: Callable[[], float], clock: Callable[[], float], name: str = "") -> None:
        """`room_in`: seconds until a replica needs more to do, by prediction, 0 for now; `clock` gives seconds that never go back;
        `name`: as other ingresses know this one.
        """
        self._limits = limits
        self._queue = FairQueue[asyncio.Future[None]](limits.window)
        self._room_in = room_in
        self._pace = Pace(clock)
        self.peers = Peers(self._queue, name, clock, self._tokens_per_s)
        self.news: Callable[[], None] = lambda: None
        """To be called when other ingresses should be told at once of what waits here."""
        self._passing = 0
        """Requests whose turn it is, and that have not chosen a replica yet."""
        self._look: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._queue)

    @asynccontextmanager
    async def turn(self, flow: Flow, tokens: int, cached: Callable[[], int]) -> "AsyncIterator[Charged | None]":
        """Waits for this request's turn, and has the others wait until it has chosen its replica. `tokens`: of its prompt; `cached`: those
        of them that are. Gives what its flow was charged, if turns are taken at all. Raises `QueueFullError`.
        """
        if not (self._limits.is_fair or self._limits.window):
            yield None
            return
        held = cached()
        cost = max(tokens - held, 0) + flow.output_tokens
        if self._must_wait():
            self.check(flow)
            await self._wait(flow, cost, held, tokens - held)
        else:
            self._passing += 1
            self._queue.passed(flow.name, flow.weight, cost)
            self.peers.sent()
        try:
            yield Charged(self, flow, cost)
        finally:
            self._passing -= 1
            self.wake()

    def check(self, flow: Flow) -> None:
        """Raises `QueueFullError` if a request that comes now would not be taken. Never where it need not wait."""
        if not (self._limits.is_fair or self._limits.window) or not self._must_wait():
            return
        own = self._queue.waiting(flow.name) + self.peers.waiting(flow.name)
        if flow.max_waiting is not None and own >= flow.max_waiting:
            raise QueueFullError(self._wait_s(flow), is_own=True)
        wait_s = self._wait_s(flow)
        if len(self._queue) >= self._limits.max_waiting or wait_s > SURE * min(flow.max_wait_s, self._limits.max_wait_s):
            raise QueueFullError(wait_s, is_own=False)

    def is_full(self, flow: Flow) -> bool:
        """Whether `check` would raise."""
        try:
            self.check(flow)
        except QueueFullError:
            return True
        return False

    def charge(self, flow: Flow, tokens: float) -> None:
        """What a request has cost beyond what was expected; it may be negative."""
        self._queue.charge(flow.name, flow.weight, tokens)

    def _must_wait(self) -> bool:
        return len(self._queue) > 0 or self._passing > 0 or self._room_in() > 0 or self.peers.are_waiting

    def _wait_s(self, flow: Flow) -> float:
        """0 while the pace is not known."""
        return self._queue.wait_cost(flow.name, flow.weight) * self._pace.seconds_per_token

    def _tokens_per_s(self) -> float:
        """0 while the pace is not known, and where nothing waits."""
        pace = self._pace.seconds_per_token if len(self._queue) else 0.0
        return 1 / pace if pace else 0.0

    async def _wait(self, flow: Flow, cost: float, cached: int, computed: int) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not len(self._queue):
            self._pace.begin()
        self.peers.look()
        self._queue.credit = CREDIT_S * self.peers.share(flow.name, flow.weight)
        self._queue.add(future, flow.name, flow.weight, cost, priority=flow.priority, cached=cached, computed=computed)
        if self._queue.waiting(flow.name) == 1:
            self.news()
        self.wake()
        self._look_later()
        try:
            async with asyncio.timeout(min(flow.max_wait_s, LATE * self._limits.max_wait_s)):
                await future
        except (asyncio.CancelledError, TimeoutError) as error:
            self._queue.remove(future)
            if not self._queue.waiting(flow.name):
                self.news()
            if future.done() and not future.cancelled():  # its turn had come
                self._passing -= 1
                self.wake()
            if isinstance(error, TimeoutError):  # the queue has moved more slowly than it had
                raise QueueFullError(self._wait_s(flow), is_own=False) from None
            raise

    def wake(self) -> None:
        """A replica may have room. To be called when a prefill has ended, or a request."""
        while len(self._queue) and not self._passing and self._room_in() <= 0 and not self.peers.go_first():
            future, cost = self._queue.pop()
            if not future.done():  # else it is cancelled, and its task has not run since
                self._pace.add(cost)
                self.peers.sent()
                self._passing += 1
                future.set_result(None)

    def _look_later(self) -> None:
        if self._look is None and len(self._queue):
            room_in_s = self._room_in()
            wait_s = min(max(room_in_s, MIN_LOOK_S), LOOK_S) if room_in_s > 0 else YIELD_S
            self._look = asyncio.get_running_loop().call_later(wait_s, self._look_now)

    def _look_now(self) -> None:
        self._look = None
        self.wake()
        self._look_later()


@dataclass(frozen=True, slots=True)
class Charged:
    """What a request was expected to cost."""

    turnstile: Turnstile
    flow: Flow
    tokens: float

    def correct(self, tokens: float) -> None:
        """What it has cost. To be called once."""
        self.turnstile.charge(self.flow, tokens - self.tokens)


class Pace:
    """How fast a queue moves while something waits in it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = clock()
        self._seconds = 0.0
        self._tokens = 0.0

    @property
    def seconds_per_token(self) -> float:
        """Of the last seconds in which something waited; 0: that has not been seen yet."""
        if self._seconds < KNOWN_S or not self._tokens:
            return 0.0
        return (self._seconds + max(0.0, self._clock() - self._since - RATE_S)) / self._tokens

    def begin(self) -> None:
        """Something waits from now on: the time before does not count."""
        self._since = self._clock()

    def add(self, tokens: float) -> None:
        """Something has left."""
        now = self._clock()
        passed = now - self._since
        keep = math.exp(-passed / RATE_S)
        self._seconds, self._tokens, self._since = self._seconds * keep + passed, self._tokens * keep + tokens, now
