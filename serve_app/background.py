"""Work off the reply's path: bounded, and its failures are counted, never anybody's."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from serve_app.metrics import Metrics

log = logging.getLogger("ray.serve")

MAX_TASKS = 64
"""At once; more are not begun, and counted."""


class Background:
    """Belongs to an event loop. `what` is the metric's operation, with results `busy` and `error`."""

    def __init__(self, what: str, metrics: Metrics) -> None:
        self._what = what
        self._metrics = metrics
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Callable[[], Awaitable[None]], ended: Callable[[], None] = lambda: None) -> None:
        """`ended` is called whatever becomes of it."""
        if len(self._tasks) >= MAX_TASKS:
            ended()
            self._metrics.operation(self._what, "busy")
            return
        task = asyncio.get_running_loop().create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: ended())

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:  # engine, cache and encoder may fail; then nothing comes of it
            log.warning("background work failed", extra={"work": self._what, "error": type(error).__name__})
            self._metrics.operation(self._what, "error")

    async def drain(self) -> None:
        """Returns when everything that was begun has ended."""
        await asyncio.gather(*self._tasks)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
