"""What a replica's private channel serves: its engine's application, its reports, and the rendering of prompts."""

import asyncio
import contextlib
from array import array
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import msgspec

from deployments.accounts import Account, Accounts, read_work
from deployments.engines.base import Engine, Message, Receive, Send
from deployments.errors import EngineDeadError
from deployments.kv_feed import KvFeed
from deployments.prefix_keeper import Order, PrefixKeeper
from deployments.reports import (
    ENCODE_PATH,
    INGRESS_HEADER,
    KEEP_PATH,
    PERIOD_S,
    QUEUE_PATH,
    RENDER_PATH,
    TARGET_HEADER,
    WATCH_PATH,
    WORK_HEADER,
    in_parts,
    pack,
)

RETRY_MARK = (b"x-mygo-retry", b"1")
"""On an answer that another replica should be asked for instead: this one is stopping, or dead."""
FULL_MARK = (b"x-mygo-retry", b"full")
"""So, too; but this one is only full."""
LOAD_PATH = "/mygo/load"
NO_PROMPT = 204
"""The status where there are no tokens to tell."""
_INGRESS, _WORK, _TARGET = (name.encode() for name in (INGRESS_HEADER, WORK_HEADER, TARGET_HEADER))
_MIN_PERIOD_S = 0.005
"""Admissions that come together are told together."""


class PrivateApp:
    """Refuses what the engine cannot answer, marked as safe to retry."""

    def __init__(self, engine: Engine, feed: KvFeed | None = None, keeper: PrefixKeeper | None = None) -> None:
        self._engine = engine
        self._feed = feed
        self._keeper = keeper
        self._accounts = Accounts()
        self._admissions = 0
        self._admitted = asyncio.Event()
        self.draining = False
        self.open = 0
        """Requests that were passed on and are not completely answered. The engine's own count lags behind."""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == LOAD_PATH:
            await _answer(send, 200, {**asdict(self._engine.load()), "draining": self.draining})
        elif path == WATCH_PATH:
            await self._watch(scope, receive, send)
        elif path == QUEUE_PATH:
            await self._hear_of_queue(scope, receive, send)
        elif path == KEEP_PATH:
            await self._keep(receive, send)
        elif path == RENDER_PATH:
            await self._render(scope, receive, send)
        elif path == ENCODE_PATH:
            await self._encode(receive, send)
        elif self.draining and scope["method"] == "POST":
            await _answer(send, 503, _error("draining", "This replica is draining."), RETRY_MARK)
        else:
            await self._pass_on(scope, receive, send)

    def prefills(self) -> tuple[float, float]:
        """Seconds of prefill that wait, and the share of the time since the last call that prefills took."""
        return self._accounts.prefills()

    async def _pass_on(self, scope: Message, receive: Receive, send: Send) -> None:
        self.open += 1
        account = self._account(scope)
        try:
            await self._engine.app(scope, receive, partial(self._send_marked, send, account))
        finally:
            self.open -= 1
            if account:
                account.end()
                self._tell()

    def _account(self, scope: Message) -> Account | None:
        headers = dict(scope["headers"])
        if _WORK not in headers:
            return None
        try:
            work = read_work(headers[_WORK].decode("latin-1"))
        except ValueError:
            return None
        account = self._accounts.admit(headers.get(_INGRESS, b"").decode("latin-1"), work)
        if self._keeper:
            self._keeper.reused(work.cached)
        self._tell()
        return account

    def _tell(self) -> None:
        """Wakes who watches."""
        self._admissions += 1
        self._admitted.set()
        self._admitted = asyncio.Event()

    async def _send_marked(self, send: Send, account: Account | None, message: Message) -> None:
        """A server error of an engine that has died, or takes no more, is no answer: another replica can give one."""
        if message["type"] == "http.response.start":
            if message["status"] >= 500 and await self._is_dead():
                message = {**message, "headers": [*message.get("headers", ()), RETRY_MARK]}
            elif message["status"] == 503:
                message = {**message, "headers": [*message.get("headers", ()), FULL_MARK]}
        elif account and message.get("body") and account.answered():
            self._tell()
        await send(message)

    async def _is_dead(self) -> bool:
        try:
            await self._engine.check_health()
        except EngineDeadError:
            return True
        return False

    async def _watch(self, scope: Message, receive: Receive, send: Send) -> None:
        """Reports, for as long as the ingress listens."""
        ingress = dict(scope["headers"]).get(_INGRESS, b"").decode("latin-1")
        subscription = self._feed.subscribe() if self._feed else None
        gone = asyncio.create_task(_disconnected(receive))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while not gone.done():
                told = self._admissions
                is_snapshot, changes = subscription.take() if subscription else (False, [])
                activity = self._accounts.activity(ingress, self._engine.load(), self.draining)
                for report in in_parts(activity, is_snapshot, changes):
                    await send({"type": "http.response.body", "body": pack(report), "more_body": True})
                await self._pause(told)
        finally:
            gone.cancel()
            if self._feed and subscription:
                self._feed.unsubscribe(subscription)

    async def _pause(self, told: int) -> None:
        """Until there is more to say than was told, or a period is over."""
        await asyncio.sleep(_MIN_PERIOD_S)
        if told == self._admissions:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PERIOD_S - _MIN_PERIOD_S):
                    await self._admitted.wait()

    async def _hear_of_queue(self, scope: Message, receive: Receive, send: Send) -> None:
        ingress = dict(scope["headers"]).get(_INGRESS, b"").decode("latin-1")
        self._accounts.queue(ingress, msgspec.json.decode((await receive())["body"], type=float))
        self._tell()
        await _answer(send, 200, None)

    async def _keep(self, receive: Receive, send: Send) -> None:
        orders = msgspec.msgpack.decode((await receive())["body"], type=list[Order])
        await _answer_raw(send, msgspec.msgpack.encode(self._keeper.order(orders) if self._keeper and not self.draining else []))

    async def _render(self, scope: Message, receive: Receive, send: Send) -> None:
        """The prompt's tokens, as 32-bit numbers in this machine's order (both ends of a channel are x86 or ARM: little-endian)."""
        target = dict(scope["headers"]).get(_TARGET, b"").decode("latin-1")
        tokens = await self._engine.render(target, (await receive())["body"])
        await _answer_numbers(send, None if tokens is None else [tokens])

    async def _encode(self, receive: Receive, send: Send) -> None:
        encoded = await self._engine.encode(msgspec.json.decode((await receive())["body"], type=list[str]))
        await _answer_numbers(send, None if encoded is None else [[len(tokens) for tokens in encoded], *encoded])


async def _answer_numbers(send: Send, parts: Sequence[Sequence[int]] | None) -> None:
    raw = b"".join(array("I", part).tobytes() for part in parts or ())
    await _answer_raw(send, raw, NO_PROMPT if parts is None else 200)


async def _answer_raw(send: Send, body: bytes, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


async def _answer(send: Send, status: int, content: Any, mark: tuple[bytes, bytes] | None = None) -> None:
    headers = [(b"content-type", b"application/json"), *([mark] if mark else [])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": msgspec.json.encode(content)})
