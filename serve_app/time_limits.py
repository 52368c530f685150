"""How long a request may take, from its admission to the last byte of its answer."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from dataclasses import replace
from typing import TypeVar

from deployments.channel.patience import Patience
from serve_app.config import IngressConfig
from serve_app.errors import OverdueError
from serve_app.openai import sse
from serve_app.replies import Reply

T = TypeVar("T")


def patience(config: IngressConfig, *, is_stream: bool) -> Patience:
    """With an engine. An answer in one piece comes when its last token has come."""
    first_s = config.first_token_timeout_s if is_stream else config.total_timeout_s
    return Patience(first_s, config.between_tokens_timeout_s)


class Deadline:
    """Of one request, `total_s` from now on the event loop's clock."""

    def __init__(self, total_s: float) -> None:
        self._total_s = total_s
        self._at = asyncio.get_running_loop().time() + total_s

    async def within(self, work: Awaitable[T]) -> T:
        """What `work` gives. It is cancelled when the time is over. Raises `OverdueError` then."""
        try:
            async with asyncio.timeout_at(self._at) as limit:
                return await work
        except TimeoutError:
            if limit.expired():
                raise self._error() from None
            raise

    def over(self, reply: Reply) -> Reply:
        """The reply, whose stream ends with an error when the time is over."""
        return reply if isinstance(reply.body, bytes) else replace(reply, body=self._stream(reply.body))

    async def _stream(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """`asyncio.timeout` for each piece would cost more than the piece: one timer serves them all."""
        reading: asyncio.Task[object] | None = None
        is_late = False

        def end() -> None:
            nonlocal is_late
            is_late = True
            if reading is not None:
                reading.cancel()

        timer = asyncio.get_running_loop().call_at(self._at, end)
        try:
            while not is_late:
                reading = asyncio.current_task()
                try:
                    piece = await anext(body, None)
                except asyncio.CancelledError:
                    if is_late and reading is not None and not reading.uncancel():
                        break
                    raise
                finally:
                    reading = None
                if piece is None:
                    return
                yield piece
        finally:
            timer.cancel()
            if isinstance(body, AsyncGenerator):
                await body.aclose()  # the engine stops before a slow client has taken the rest
        yield sse.event(self._error().body())

    def _error(self) -> OverdueError:
        return OverdueError(f"The request took longer than {self._total_s:g} seconds.", code="total_timeout")
