"""Gathers what is asked while something is being computed. Nothing ever waits for a timer."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, cast

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Belongs to an event loop. `work` runs in threads, and gives one result for each item of a batch, or raises for all.

    An item that is alone is computed at once. Those that come meanwhile make up the next batch, in order, `max_batch` at most. If a batch
    fails, each of its items is tried alone, so that none fails for another.
    """

    def __init__(self, work: Callable[[Sequence[T]], Sequence[R]], max_batch: int, at_once: int = 1) -> None:
        """`at_once`: batches that may be computed at the same time."""
        self._work = work
        self._max_batch = max_batch
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._at_once = at_once
        self._running: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Items that wait for the next batch."""
        return len(self._waiting)

    async def do(self, item: T) -> R:
        """Raises what `work` raises for this item."""
        result: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, result))
        if len(self._running) < self._at_once:
            self._running.add(asyncio.create_task(self._run()))
        return await result

    async def _run(self) -> None:
        try:
            while batch := self._next():
                await self._compute(batch)
        finally:  # at once, not when the task has ended: who comes between would wait for nobody
            self._running.discard(cast("asyncio.Task[None]", asyncio.current_task()))

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
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # a panic of Rust code is no Exception
            if len(batch) == 1:
                _settle(batch[0][1], error)
                return
            for each in batch:
                await self._compute([each])
            return
        for (_, result), value in settled:
            _settle(result, value)


def _settle(result: asyncio.Future[R], value: R | BaseException) -> None:
    if result.done():  # its caller has left
        return
    if isinstance(value, BaseException):
        result.set_exception(value)
    else:
        result.set_result(value)
