"""Small HTTP servers on ports that the operating system chooses."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from deployments.engines.base import ASGIApp
from deployments.private_server import PrivateServer


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    """The URL under which the application answers."""
    server = PrivateServer(app, "127.0.0.1")
    await server.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        await server.stop()
