"""Keeps beginnings of prompts in an engine's cache for as long as they were asked for.

Engines evict what nobody has used for the longest time, and have no way to pin a block: free blocks stand in a queue, those that are taken
come from its front, those that are given back or used again go to its end, and of one chain the last block goes first. So a kept prefix is
used again in time, by a request for one token behind it, which costs the engine that token and no more. In time is as long as fewer blocks
have been taken or used again than stood before it in the queue; `EARLY` of them is when it is done. What is lost nevertheless is computed
again.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np

from cache.prefix.keys import BlockKeys, KeyCounts, Tokens, begins
from cache.prefix.mirror import CLEARED, Change
from deployments.channel.asgi import relayed
from deployments.channel.frames import Request
from deployments.engines.base import ASGIApp, Load
from deployments.errors import ChannelError
from deployments.kv_feed import KvFeed, Subscription

log = logging.getLogger("ray.serve")

EARLY = 0.5
POLL_S = 0.02
LIMIT_S = 30.0
"""For one use."""
PAUSE_S = 0.05
"""Between two uses of one prefix; longer each time that most of it had been lost."""
MAX_PAUSE_S = 30.0
NEWS_S = 0.5
"""What was computed so recently may be in the cache although no event has said so yet."""
MAX_AT_ONCE = 4
MAX_PREFIXES = 4096
FIRST = -1
"""Priority, as vLLM counts: before clients' requests. A use that waits comes too late, and one token is no wait for others."""


class Order(msgspec.Struct, array_like=True, frozen=True):
    """What an ingress asks of a replica for one prefix."""

    key: int
    """Of its last block."""
    ends: dict[str, float]
    """In seconds from now on, by who wants it kept; others who do are not concerned. 0: no longer."""
    salt: str = ""
    adapter: str | None = None
    tokens: bytes = b""
    """32-bit numbers, of full blocks. Empty: the replica knows them, or says that it does not."""
    waits: bool = False
    """Only its room is to be kept, until it is ordered again: it is computed meanwhile."""


class Kept(msgspec.Struct, array_like=True, frozen=True):
    """What a replica says of one."""

    key: int
    state: Literal["kept", "unknown", "full"]
    """`unknown`: its tokens are to be sent; `full`: this replica keeps no more."""
    uses: int = 0
    recomputed: int = 0
    """Blocks that were lost and computed again, ever."""


@dataclass(slots=True)
class _Prefix:
    keys: Sequence[int]
    tokens: Tokens
    salt: str
    adapter: str | None
    ends: dict[str, float]
    """On the clock, by who wants it kept."""
    used_at: float
    """On the clock."""
    moved_at: int
    """`PrefixKeeper.moved` when it was used last."""
    behind: int
    """Blocks that stood before it in the queue then."""
    waits: bool = False
    pause_s: float = PAUSE_S
    uses: int = 0
    recomputed: int = 0
    task: "asyncio.Task[None] | None" = None

    def lives(self, now: float) -> bool:
        """Forgets who does not want it any longer."""
        self.ends = {holder: end for holder, end in self.ends.items() if end > now}
        return bool(self.ends)

    def begin(self, longer: "_Prefix") -> None:
        """Gives up its memory for that of one that it begins: of a long chat every turn may be marked."""
        self.keys, self.tokens = longer.keys[: len(self.keys)], longer.tokens[: len(self.tokens)]


class PrefixKeeper:
    """Of one replica, in its event loop, in which `run` must run."""

    def __init__(
        self,
        app: ASGIApp,
        load: Callable[[], Load],
        feed: KvFeed,
        keys: BlockKeys,
        blocks: int,
        share: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`app`: the engine's; `blocks`: that its cache holds, of which at most `share` are kept."""
        self._app = app
        self._load = load
        self._feed = feed
        self._keys = keys
        self._blocks = blocks
        self._share = share
        self._clock = clock
        self._prefixes: dict[int, _Prefix] = {}
        self._held = KeyCounts()
        """Of all of them."""
        self._subscription: Subscription | None = None
        self._cached: set[int] = set()
        """Keys of the device's blocks, while something is kept."""
        self._moved = 0
        """Blocks that were taken from the queue of free ones, or moved in it."""
        self._woken = asyncio.Event()

    @property
    def kept_blocks(self) -> int:
        """Prefixes that begin alike are counted once."""
        return len(self._held)

    def order(self, orders: Sequence[Order]) -> list[Kept]:
        self._follow()
        answers = [self._one(order) for order in orders]
        self._woken.set()
        return answers

    def reused(self, tokens: int) -> None:
        """A request has come that is predicted to find so many tokens cached: using blocks moves them."""
        self._moved += tokens // self._keys.block_size

    async def run(self) -> None:
        try:
            while True:
                if not self._prefixes:
                    self._forget()
                    self._woken.clear()
                    await self._woken.wait()
                self._look()
                await asyncio.sleep(POLL_S)
        finally:
            for prefix in self._prefixes.values():
                if prefix.task:
                    prefix.task.cancel()

    def _one(self, order: Order) -> Kept:
        now = self._clock()
        known = self._prefixes.get(order.key)
        if known is None:
            if not order.tokens or not any(for_s > 0 for for_s in order.ends.values()):
                return Kept(order.key, "unknown")
            known = self._new(order)
            if known is None:
                return Kept(order.key, "full")
            known.waits = order.waits
        known.waits = known.waits and order.waits
        known.ends |= {holder: now + for_s for holder, for_s in order.ends.items()}
        if not known.lives(now):
            if known.task:
                known.task.cancel()
            self._remove(order.key)
            return Kept(order.key, "unknown")
        return Kept(order.key, "kept", known.uses, known.recomputed)

    def _new(self, order: Order) -> _Prefix | None:
        """None: there is no room, or it cannot be seen what the engine's cache holds."""
        tokens = np.frombuffer(order.tokens, np.uint32)
        keys = self._keys.chain(self._keys.root(order.salt, order.adapter), tokens)
        if not keys or keys[-1] != order.key or not self._feed.is_connected or len(self._prefixes) >= MAX_PREFIXES:
            return None
        if len(self._held) + self._held.new(keys) > self._share * self._blocks:
            return None
        prefix = _Prefix(keys, tokens, order.salt, order.adapter, {}, -np.inf, self._moved, 0)
        longer = next((each for each in self._prefixes.values() if begins(keys, each.keys)), None)
        if longer:
            prefix.begin(longer)
        else:  # what is in the memory of a longer one is so already
            for each in self._used_with(prefix):
                each.begin(prefix)
        self._prefixes[order.key] = prefix
        self._held.add(keys)
        return prefix

    def _remove(self, key: int) -> None:
        self._held.remove(self._prefixes.pop(key).keys)

    def _look(self) -> None:
        self._follow()
        now = self._clock()
        for key in [key for key, prefix in self._prefixes.items() if not prefix.lives(now)]:
            self._remove(key)
        running = [prefix for prefix in self._prefixes.values() if prefix.task]
        due = [prefix for prefix in self._prefixes.values() if not prefix.task and self._is_due(prefix, now)]
        for prefix in sorted(due, key=lambda each: -len(each.keys)):  # what one begins with is used with it
            if len(running) < MAX_AT_ONCE and not any(begins(prefix.keys, other.keys) for other in running):
                prefix.task = asyncio.create_task(self._use(prefix))
                running.append(prefix)

    def _is_due(self, prefix: _Prefix, now: float) -> bool:
        if prefix.waits or now - prefix.used_at < prefix.pause_s:
            return False
        is_lost = prefix.keys[-1] not in self._cached and now - prefix.used_at >= NEWS_S
        return is_lost or self._moved - prefix.moved_at >= EARLY * prefix.behind

    async def _use(self, prefix: _Prefix) -> None:
        lost, is_first, is_used = self._lost(prefix), prefix.used_at == -np.inf, False
        try:
            async with asyncio.timeout(LIMIT_S):
                status = await self._ask(prefix)
            is_used = status < 400
            if not is_used:
                log.warning("an engine does not keep a prefix", extra={"status": status, "tokens": len(prefix.tokens)})
        except (ChannelError, TimeoutError) as error:
            log.warning("a kept prefix was not used again", extra={"error": type(error).__name__})
        finally:
            prefix.task = None
            prefix.uses += 1
            prefix.recomputed += 0 if is_first else lost
            prefix.pause_s = min(2 * prefix.pause_s, MAX_PAUSE_S) if 2 * lost > len(prefix.keys) and not is_first else PAUSE_S
            self._follow()
            free = self._blocks * (1 - self._load().kv_usage)
            behind = max(int(free) - self.kept_blocks, 0)  # those that are kept, too, may go to the end meanwhile
            for each in self._used_with(prefix) if is_used else (prefix,):
                each.used_at, each.moved_at, each.behind = self._clock(), self._moved, behind

    def _used_with(self, prefix: _Prefix) -> list[_Prefix]:
        """Itself, and all that it begins with: their blocks are its own, and stand behind its last ones in the queue."""
        return [each for each in self._prefixes.values() if begins(each.keys, prefix.keys)]

    async def _ask(self, prefix: _Prefix) -> int:
        prompt = [*prefix.tokens.tolist(), int(prefix.tokens[0])]  # all of the prefix is found only if something is behind it
        body = {"prompt": prompt, "max_tokens": 1, "temperature": 0, "cache_salt": prefix.salt, "priority": FIRST}
        body |= {"model": prefix.adapter} if prefix.adapter else {}
        request = Request("POST", "/v1/completions", [(b"content-type", b"application/json")], msgspec.json.encode(body))
        async with relayed(self._app, request) as (start, chunks):
            async for _ in chunks:
                pass
            return start.status

    def _lost(self, prefix: _Prefix) -> int:
        """Blocks of it that are not in the cache at the moment."""
        return len(prefix.keys) - sum(map(self._cached.__contains__, prefix.keys))

    def _follow(self) -> None:
        """What has become of the device's blocks."""
        if self._subscription is None:
            self._subscription = self._feed.subscribe()
        is_snapshot, changes = self._subscription.take()
        if is_snapshot:
            self._cached.clear()
        for change in changes:
            self._apply(change, counts=not is_snapshot)

    def _apply(self, change: Change, *, counts: bool) -> None:
        if change == CLEARED:
            self._cached.clear()
        elif change.tier == 0 and change.stored:
            self._cached.update(change.keys)
            self._moved += len(change.keys) if counts else 0
        elif change.tier == 0:
            self._cached.difference_update(change.keys)

    def _forget(self) -> None:
        if self._subscription:
            self._feed.unsubscribe(self._subscription)
        self._subscription = None
        self._cached = set()
