"""Gathers what is asked while something is being computed. Nothing ever waits for a timer."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Belongs to an event loop. `work` runs in a thread, one batch at a time, and gives one result for each item, or raises for all.

    An item that is alone is computed at once. Those that come meanwhile make up the next batch, in order, `max_batch` at most. If a batch
    fails, each of its items is tried alone, so that none fails for another.
    """

    def __init__(self, work: Callable[[Sequence[T]], Sequence[R]], max_batch: int) -> None:
        self._work = work
        self._max_batch = max_batch
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._running: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Items that wait for the next batch."""
        return len(self._waiting)

    async def do(self, item: T) -> R:
        """Raises what `work` raises for this item."""
        result: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, result))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await result

    async def _run(self) -> None:
        try:
            while batch := self._next():
                await self._compute(batch)
        finally:
            self._running = None

    def _next(self) -> list[tuple[T, asyncio.Future[R]]]:
        """Those that still wait; who has left is not computed for."""
        batch: list[tuple[T, asyncio.Future[R]]] = []
        while self._waiting and len(batch) < self._max_batch:
            item, result = self._waiting.popleft()
            if not result.done():
                batch.append((item, result))
        return batch

    async def _compute(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            found = await asyncio.to_thread(self._work, [item for item, _ in batch])
            settled = list(zip(batch, found, strict=True))
        except Exception as error:
            if len(batch) == 1:
                _settle(batch[0][1], error)
                return
            for each in batch:
                await self._compute([each])
            return
        for (_, result), value in settled:
            _settle(result, value)


def _settle(result: asyncio.Future[R], value: R | Exception) -> None:
    if result.done():  # its caller has left
        return
    if isinstance(value, Exception):
        result.set_exception(value)
    else:
        result.set_result(value)
