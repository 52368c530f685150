"""Where beginnings of prompts are kept: each on one replica, on another one when that is gone, until its time is over.

Every ingress looks after those that it knows of. Two that look after the same one choose the same replica, as far as they see the same: the
one that holds most of it, of equal ones by a hash. What a replica keeps (`prefix_keeper.py`), it keeps without them.
"""

import asyncio
import contextlib
import hashlib
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import msgspec

from cache.prefix.keys import KeyCounts, Tokens, begins, common
from cache.prefix.router import Prompt
from deployments.accounts import write_work
from deployments.errors import DeploymentError
from deployments.kept_prefix import AGAIN_S, Chain, Hold, KeptPrefix, State
from deployments.prefix_keeper import Kept, Order
from deployments.replica_client import Call, ReplicaClient
from deployments.replicas import Replica, ReplicaDirectory
from deployments.reports import INGRESS_HEADER, KEEP_PATH, WORK_HEADER
from deployments.routing import Routing
from deployments.watchers import NoWatcher, RoutingWatcher

log = logging.getLogger("ray.serve")

LOOK_S = 0.25
CHECK_S = 1.0
"""How often a replica is asked whether it keeps what it should."""
NEWS_S = 1.0
"""A replica is told at once if an end changes by more."""
CALL_LIMIT_S = 2.0
COMPUTE_LIMIT_S = 120.0
MAX_AGAIN_S = 300.0
SILENT_S = 2.0
"""A replica that has not reported for so long, but is there yet, keeps nothing."""
MAX_AT_ONCE = 4
MAX_PREFIXES = 128
"""Of one tenant."""
_NOTHING = KeyCounts()


class KeptPrefixes:
    """One for each ingress, in its event loop, in which `run` must run."""

    def __init__(
        self,
        client: ReplicaClient,
        directory: ReplicaDirectory,
        routing: Routing,
        clock: Callable[[], float],
        watcher: RoutingWatcher | None = None,
    ) -> None:
        self._client = client
        self._directory = directory
        self._routing = routing
        self._clock = clock
        self._watcher = watcher or NoWatcher()
        self._prefixes: dict[int, KeptPrefix] = {}
        self._held: defaultdict[str, KeyCounts] = defaultdict(KeyCounts)
        """By tenant: the chains of its holds."""
        self._checked: dict[str, float] = {}
        self._silent_since: dict[str, float] = {}
        self._dropped: dict[str, set[tuple[int, str]]] = {}
        """By replica: what it need not keep any longer, and for whom."""
        self._woken = asyncio.Event()

    @property
    def ingress(self) -> str:
        return self._routing.name

    def get(self, key: int, holder: str) -> KeptPrefix | None:
        """None: there is none, or its time is over for this holder."""
        prefix = self._prefixes.get(key)
        hold = prefix.holds.get(holder) if prefix else None
        return prefix if hold and hold.until > self._clock() else None

    def tokens_of(self, owner: str) -> int:
        """Kept for a tenant; beginnings that prefixes have in common count once."""
        return len(self._held_by(owner)) * self._routing.router.block_size

    def is_full(self, owner: str, key: int) -> bool:
        """The tenant has as many prefixes as it may have, and this is none of them."""
        mine = self._of(owner)
        return len(mine) >= MAX_PREFIXES and all(each.key != key for each in mine)

    def more_tokens(self, owner: str, keys: Sequence[int]) -> int:
        """That a prefix with these keys adds to those."""
        return self._held_by(owner).new(keys) * self._routing.router.block_size

    def _of(self, owner: str) -> list[KeptPrefix]:
        now = self._clock()
        return [each for each in self._prefixes.values() if each.is_held_by(owner, now)]

    def _held_by(self, owner: str) -> KeyCounts:
        self._forget_ended(self._clock())
        return self._held.get(owner, _NOTHING)

    def _let_go(self, owner: str, chain: Chain) -> None:
        """One of its holds is gone."""
        self._held[owner].remove(chain.keys)
        if not self._held[owner]:
            del self._held[owner]

    def _forget_ended(self, now: float) -> None:
        for key, each in tuple(self._prefixes.items()):
            for owner in each.forget_ended(now):
                self._let_go(owner, each.chain)
            if not each.holds:
                del self._prefixes[key]
                if each.replica and each.until_told > now:
                    self._dropped.setdefault(each.replica, set()).update(each.leave())

    async def measure(self, whole: Call, beginnings: Sequence[Call]) -> list[Tokens] | None:
        """The tokens that the prompt of `whole` has in common with each of the others. None: it has no prompt, or there is no replica.

        Raises `RenderError`.
        """
        replicas = self._directory.replicas
        if not replicas:
            return None
        rendered = await asyncio.gather(*(self._routing.tokens(call) for call in (whole, *beginnings)))
        tokens, others = rendered[0], rendered[1:]
        return None if tokens is None else [tokens[: common(tokens, other)] if other is not None else tokens[:0] for other in others]

    def whole_blocks(self, tokens: Tokens, salt: str, adapter: str | None = None) -> Chain | None:
        """The full blocks of these tokens. None: there is none."""
        replicas = self._directory.replicas
        size = replicas[0].block_size if replicas else 0
        if not size:
            return None
        keys = self._routing.keys_of(size)
        chain = keys.chain(keys.root(salt, adapter), tokens)
        return Chain(chain, tokens[: len(chain) * size].copy(), salt, adapter) if chain else None

    def keep(self, owner: str, holder: str, chain: Chain, for_s: float) -> KeptPrefix:
        """From now on, for so long at least, wherever most of it is held. `holder`: whose end this is; those of others are their own."""
        key, until = chain.keys[-1], self._clock() + for_s
        prefix = self._prefixes.get(key)
        if prefix is None:
            prefix = self._new(chain)
            self._woken.set()
        hold = prefix.holds.get(holder)
        if hold is None:
            hold = prefix.holds[holder] = Hold(owner, until)
            self._held[owner].add(prefix.chain.keys)
        hold.until = max(hold.until, until)
        return prefix

    def _new(self, chain: Chain) -> KeptPrefix:
        longer = next((each.chain for each in self._prefixes.values() if begins(chain.keys, each.chain.keys)), None)
        if longer:
            chain = chain.within(longer)
        else:  # what is in the memory of a longer one is so already
            for each in self._prefixes.values():
                if begins(each.chain.keys, chain.keys):
                    each.chain = each.chain.within(chain)
        prefix = self._prefixes[chain.keys[-1]] = KeptPrefix(chain)
        return prefix

    async def placed(self, prefix: KeptPrefix, limit_s: float) -> State:
        """What is known of its place after so long at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await prefix.tried.wait()
        return prefix.state

    def set_end(self, prefix: KeptPrefix, holder: str, for_s: float) -> None:
        """Sooner or later than was said."""
        prefix.holds[holder].until = self._clock() + for_s
        self._woken.set()

    def drop(self, key: int, holder: str) -> None:
        """At once, unless others hold it, too. Nothing happens if it is not kept."""
        prefix = self._prefixes.get(key)
        hold = prefix.holds.pop(holder, None) if prefix else None
        if prefix is None or hold is None:
            return
        self._let_go(hold.owner, prefix.chain)
        self._woken.set()
        if prefix.holds:
            return
        del self._prefixes[key]
        if prefix.task:
            prefix.task.cancel()
        left = prefix.leave() | {(key, holder)}
        for replica in {prefix.replica, prefix.asking} - {""}:
            self._dropped.setdefault(replica, set()).update(left)

    async def run(self) -> None:
        try:
            while True:
                self._woken.clear()
                try:
                    self._look()
                    await self._check()
                except Exception:  # whatever it is: who stops looking leaves everything to be evicted
                    log.exception("kept prefixes could not be looked after")
                    await asyncio.sleep(LOOK_S)
                if not self._prefixes and not self._dropped:
                    await self._woken.wait()
                else:
                    await self._pause()
        finally:
            for prefix in self._prefixes.values():
                if prefix.task:
                    prefix.task.cancel()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self._woken.wait()

    def _look(self) -> None:
        """Forgets what is over, and has placed what has no place."""
        now = self._clock()
        self._forget_ended(now)
        there = {replica.id for replica in self._directory.known}
        silent = {name for name in there if self._directory.is_silent(name)}
        self._silent_since = {name: self._silent_since.get(name, now) for name in silent}
        gone = {name for name, since in self._silent_since.items() if now - since >= SILENT_S}
        for each in self._prefixes.values():
            if each.replica and (each.replica not in there or each.replica in gone):
                self._dropped.setdefault(each.replica, set()).update(each.leave())  # it may come back
                each.has_no_place(now)
                self._watcher.kept("lost")

        self._begin(now)

    def _begin(self, now: float) -> None:
        """Has placed what has no place; the longest first, because that has what it begins with computed, too."""
        running = [each for each in self._prefixes.values() if each.task]
        waiting = [each for each in self._prefixes.values() if not each.task and not each.replica and each.next_try <= now]
        for each in sorted(waiting, key=lambda prefix: -len(prefix.chain.keys)):
            if len(running) < MAX_AT_ONCE and not any(begins(each.chain.keys, other.chain.keys) for other in running):
                each.task = asyncio.create_task(self._place(each))
                running.append(each)

    async def _place(self, prefix: KeptPrefix) -> None:
        try:
            prefix.replica = await self._placed(prefix)
            prefix.state = "kept" if prefix.replica else "full"
            self._watcher.kept("full" if not prefix.replica else "moved" if prefix.was_kept else "placed")
            prefix.was_kept = prefix.was_kept or bool(prefix.replica)
            prefix.tried.set()
        except (DeploymentError, TimeoutError, msgspec.DecodeError) as error:
            log.warning("a prefix could not be kept; it is tried again", extra={"error": type(error).__name__})
            prefix.next_try = self._clock() + LOOK_S
        else:
            prefix.next_try = self._clock() + prefix.again_s
            prefix.again_s = AGAIN_S if prefix.replica else min(2 * prefix.again_s, MAX_AGAIN_S)
        finally:
            prefix.task, prefix.asking = None, ""
            self._woken.set()

    async def _placed(self, prefix: KeptPrefix) -> str:
        """The replica that keeps it now; empty: none has room."""
        replicas = self._directory.replicas
        prompt = Prompt(prefix.chain.keys, len(prefix.chain.tokens) + 1)
        cached = dict(zip(replicas, self._routing.router.cached(prompt, [each.id for each in replicas]), strict=True))
        for replica in sorted(replicas, key=lambda each: (-cached[each], _rank(prefix.key, each.id))):
            if await self._is_taken(prefix, prompt, replica, cached[replica]):
                return replica.id
        return ""

    async def _is_taken(self, prefix: KeptPrefix, prompt: Prompt, replica: Replica, cached: int) -> bool:
        """Has it room there first: what nobody has room for is not computed. False: there is none. Raises as `_place` expects."""
        prefix.asking, prefix.told = replica.id, {}
        is_missing = cached < len(prefix.chain.tokens)
        if not await self._is_kept(prefix, replica, whole=True, waits=is_missing):
            return False
        if not is_missing:
            return True
        try:  # as a request like others; what a replica finds missing itself it computes before all
            await self._compute(prefix, prompt, replica, cached)
        except BaseException:
            self._dropped.setdefault(replica.id, set()).update(prefix.leave())
            raise
        return await self._is_kept(prefix, replica)

    async def _is_kept(self, prefix: KeptPrefix, replica: Replica, *, whole: bool = False, waits: bool = False) -> bool:
        """As the replica says that is told to. Raises as `_place` expects."""
        now = self._clock()
        order = prefix.order(now, whole=whole, waits=waits)
        answers = await self._ask(replica, [order])
        prefix.heard(order, now)
        return bool(answers) and answers[0].state == "kept"

    async def _compute(self, prefix: KeptPrefix, prompt: Prompt, replica: Replica, cached: int) -> None:
        """On a replica that does not hold all of it. Raises `DeploymentError` and `TimeoutError`."""
        routed = self._routing.router.take(prompt, [replica.id], [cached])
        try:
            chain = prefix.chain
            body = {"prompt": [*chain.tokens.tolist(), int(chain.tokens[0])], "max_tokens": 1, "temperature": 0, "cache_salt": chain.salt}
            raw = msgspec.json.encode({**body, **({"model": chain.adapter} if chain.adapter else {})})
            work = {INGRESS_HEADER: self._routing.name, WORK_HEADER: write_work(routed.work)} if routed.work else {}
            call = Call("POST", "/v1/completions", {"content-type": "application/json", **work}, raw)
            async with asyncio.timeout(COMPUTE_LIMIT_S):
                answer = await self._client.probe(call, replica)
                try:
                    async for _ in answer.chunks():
                        routed.prefilled()
                finally:
                    await answer.close()
        finally:
            routed.end()

    async def _check(self) -> None:
        """Asks the replicas, each now and then, whether they keep what they should, and tells them of changes."""
        now = self._clock()
        fit = {replica.id: replica for replica in self._directory.replicas}
        there = {replica.id for replica in self._directory.known}
        self._dropped = {name: keys for name, keys in self._dropped.items() if name in there}
        telling = []
        for name, replica in fit.items():
            mine = [each for each in self._prefixes.values() if each.replica == name]
            dropped = self._dropped.get(name, set())
            dropped -= {
                (each.key, holder) for each in self._prefixes.values() if name in (each.replica, each.asking) for holder in each.holds
            }
            is_news = bool(dropped) or any(each.is_news(NEWS_S) for each in mine)
            if (mine or dropped) and (is_news or now - self._checked.get(name, -math.inf) >= CHECK_S):
                self._checked[name] = now
                telling.append(self._tell(replica, mine, self._dropped.pop(name, set())))
        await asyncio.gather(*telling)
        self._checked = {name: at for name, at in self._checked.items() if name in fit}

    async def _tell(self, replica: Replica, prefixes: Sequence[KeptPrefix], dropped: Collection[tuple[int, str]]) -> None:
        now = self._clock()
        orders = [each.order(now) for each in prefixes]
        gone = [Order(key, {holder: 0.0}) for key, holder in dropped]
        try:
            answers = {each.key: each for each in await self._ask(replica, [*gone, *orders])}
        except (DeploymentError, TimeoutError, msgspec.DecodeError) as error:
            log.warning("a replica does not say what it keeps", extra={"replica": replica.id, "error": type(error).__name__})
            self._dropped.setdefault(replica.id, set()).update(dropped)
            return
        # A replica that is about to end hears nothing, but may go on.
        if unheard := {(key, holder) for key, holder in dropped if key not in answers}:
            self._dropped.setdefault(replica.id, set()).update(unheard)
        for each, order in zip(prefixes, orders, strict=True):
            answer = answers.get(each.key)
            if answer is None or answer.state != "kept":  # it has begun anew, or is about to end
                left = each.leave()
                if answer is None:
                    self._dropped.setdefault(replica.id, set()).update(left)
                each.has_no_place(now)
            else:
                each.heard(order, now)
                self._watcher.kept("used", max(answer.uses - each.uses, 0))
                self._watcher.kept("recomputed", max(answer.recomputed - each.recomputed, 0))
                each.uses, each.recomputed = answer.uses, answer.recomputed

    async def _ask(self, replica: Replica, orders: Sequence[Order]) -> list[Kept]:
        call = Call("POST", KEEP_PATH, {}, msgspec.msgpack.encode(orders))
        async with asyncio.timeout(CALL_LIMIT_S):
            answer = await self._client.probe(call, replica)
            try:
                raw = b"".join([chunk async for chunk in answer.chunks()])
            finally:
                await answer.close()
        return msgspec.msgpack.decode(raw, type=list[Kept])


def _rank(key: int, replica: str) -> bytes:
    """Highest random weight (Thaler and Ravishankar 1998): all ingresses put replicas in the same order, each prefix in another one."""
    return hashlib.sha256(f"{key}/{replica}".encode()).digest()


def changed(call: Call, **fields: object) -> Call:
    """The same request with other fields, and without what is for its answer only."""
    body = msgspec.json.decode(call.body)
    for name in ("stream", "stream_options", "continue_final_message"):
        body.pop(name, None)
    return replace(call, body=msgspec.json.encode({**body, **fields}))
