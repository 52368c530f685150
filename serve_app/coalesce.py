"""Equal reads that wait at the same time are one read."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any


class Coalesced:
    """Belongs to an event loop. Whoever asks gets what a read found that began after it had asked, so it sees all that had been written.

    Of any number of equal reads one runs, and one more waits for it to end: for all that asked meanwhile. Who stops waiting does not end
    a read, but its limit does, with a `TimeoutError`.
    """

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Task[Any]] = {}
        self._waiting: dict[Hashable, asyncio.Task[Any]] = {}

    async def read(self, key: Hashable, call: Callable[[], Awaitable[Any]], limit_s: float) -> Any:
        """What `call` gives, or raises, within `limit_s` seconds of its beginning. Calls with one key must be interchangeable."""

        async def limited() -> Any:
            async with asyncio.timeout(limit_s):
                return await call()

        if key not in self._running:
            task = self._running[key] = _started(self._run(key, limited))
        elif key in self._waiting:
            task = self._waiting[key]
        else:
            task = self._waiting[key] = _started(self._run_after(self._running[key], key, limited))
        return await asyncio.shield(task)

    async def _run(self, key: Hashable, call: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await call()
        finally:
            del self._running[key]
            if key in self._waiting:  # before anybody else can ask
                self._running[key] = self._waiting.pop(key)

    async def _run_after(self, running: asyncio.Task[Any], key: Hashable, call: Callable[[], Awaitable[Any]]) -> Any:
        await asyncio.wait([running])
        return await self._run(key, call)


def _started(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # nobody may be waiting any longer
    return task
