"""Holds requests back while every replica has prefills to do, so that those of which most is cached can go first."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from cache.prefix.turns import Turns

BACKLOG_S = 0.1
"""Of predicted prefill on a replica that needs no more for now: a step or two of an engine."""
LOOK_S = BACKLOG_S / 2
"""How often, while requests wait, is looked for room that nobody tells of: a prefill that is over by prediction, or another ingress's."""


class Turnstile:
    """Of one ingress, in its event loop."""

    def __init__(self, window: int, has_room: Callable[[], bool]) -> None:
        """`window`: see `Turns`; 0: nobody waits. `has_room`: whether a replica could begin soon."""
        self._window = window
        self._turns = Turns[asyncio.Future[None]](window)
        self._has_room = has_room
        self._passing = 0
        """Requests whose turn it is, and that have not chosen a replica yet."""
        self._look: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._turns)

    @asynccontextmanager
    async def turn(self, tokens: int, cached: Callable[[], int]) -> AsyncIterator[None]:
        """Waits for this request's turn, and has the others wait until it has chosen its replica."""
        if not self._window:
            yield
            return
        if len(self._turns) or self._passing or not self._has_room():
            held = cached()
            await self._wait(held, tokens - held)
        else:
            self._passing += 1
        try:
            yield
        finally:
            self._passing -= 1
            self.wake()

    async def _wait(self, cached: int, computed: int) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.add(future, cached, computed)
        self._look_later()
        try:
            await future
        except asyncio.CancelledError:
            self._turns.remove(future)
            if future.done() and not future.cancelled():  # its turn had come
                self._passing -= 1
                self.wake()
            raise

    def wake(self) -> None:
        """A replica may have room. To be called when a prefill has ended."""
        while len(self._turns) and not self._passing and self._has_room():
            future = self._turns.pop()
            if not future.done():  # else it is cancelled, and its task has not run since
                self._passing += 1
                future.set_result(None)

    def _look_later(self) -> None:
        if self._look is None and len(self._turns):
            self._look = asyncio.get_running_loop().call_later(LOOK_S, self._look_now)

    def _look_now(self) -> None:
        self._look = None
        self.wake()
        self._look_later()
