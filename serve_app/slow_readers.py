"""Clients that do not read: what is written for them waits in a bounded buffer, and whoever waits with it for too long is left."""

import asyncio

from deployments.engines.base import Message, Send


class SlowReaderError(OSError):
    """The client has taken nothing for too long."""


class PatientSend:
    """An ASGI `send` for one reply, as a context. Raises `SlowReaderError` when a message has not been taken for `limit_s`.

    One timer serves all messages, and only while one waits; `asyncio.timeout` for each would cost more than most of them.
    """

    def __init__(self, send: Send, limit_s: float) -> None:
        self._send = send
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        """When the message that waits was given."""
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_late = False

    async def __call__(self, message: Message) -> None:
        self._since, self._task = self._loop.time(), asyncio.current_task()
        if self._timer is None:
            self._timer = self._loop.call_later(self._limit_s, self._look)
        try:
            await self._send(message)
        except asyncio.CancelledError:
            if self._is_late and self._task is not None and not self._task.uncancel():
                raise SlowReaderError("the client does not read") from None
            raise
        finally:
            self._since = None

    def _look(self) -> None:
        waited_s = 0.0 if self._since is None else self._loop.time() - self._since
        if waited_s < self._limit_s:
            self._timer = self._loop.call_later(self._limit_s - waited_s, self._look)
        elif self._task is not None:
            self._timer, self._is_late = None, True
            self._task.cancel()

    def close(self) -> None:
        """No more messages come."""
        if self._timer is not None:
            self._timer.cancel()
