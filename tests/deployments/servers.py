"""Small HTTP servers on ports that the operating system chooses, and waiting for what happens elsewhere."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web


@asynccontextmanager
async def serving(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """The URL under which the handler answers, whatever the path. It is cancelled when its client leaves."""

    async def handle(request: web.Request) -> web.StreamResponse:  # aiohttp takes functions only
        return await handler(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def eventually(condition: Callable[[], bool], limit_s: float = 5.0) -> None:
    """Returns when the condition holds. Polls, because what it is about happens in another task or process."""
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.005)
