"""Beginnings of prompts that are kept: against eviction, beyond the death of their replica, and no longer than was said."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cache.prefix.router import Prompt
from deployments.config import SimulatedEngineConfig
from deployments.kept_prefixes import KeptPrefix, KeptPrefixes, changed
from deployments.replica_client import Call
from deployments.watchers import NoWatcher
from tests.deployments.prefix_fleet import MODEL, SALT, Ingress, Node, ingress_of, nodes_of
from tests.deployments.servers import eventually

BLOCK, BLOCKS = 32, 256
ENGINE = SimulatedEngineConfig(
    block_size=BLOCK, kv_blocks=BLOCKS, prefill_tokens_per_s=50_000, decode_step_s=1e-4, decode_step_per_request_s=0, max_model_len=4096
)
CONTEXT = "What a tenant wants to be kept, whatever others ask. " * 80
OWNER = "namespace"


def chat(*messages: tuple[str, str]) -> Call:
    body = {"model": MODEL.name, "messages": [{"role": role, "content": text} for role, text in messages], "cache_salt": SALT}
    return Call("POST", "/v1/chat/completions", {"content-type": "application/json"}, json.dumps({**body, "max_tokens": 2}).encode())


class Counted(NoWatcher):
    def __init__(self) -> None:
        self.events: Counter[str] = Counter()

    def kept(self, event: str, count: int = 1) -> None:
        self.events[event] += count


class Keeping:
    """What an ingress keeps."""

    def __init__(self, ingress: Ingress) -> None:
        self.ingress = ingress
        self.watcher = Counted()
        self.prefixes = KeptPrefixes(ingress.client, ingress.directory, ingress.routing, time.monotonic, self.watcher)

    async def keep(self, text: str = CONTEXT, for_s: float = 60.0) -> KeptPrefix:
        whole = chat(("system", text), ("user", "?"))
        beginning = changed(whole, messages=[{"role": "system", "content": text}], add_generation_prompt=False)
        measured = await self.prefixes.measure(whole, [beginning])
        assert measured
        keys, tokens = self.prefixes.whole_blocks(measured[0], SALT)
        return self.prefixes.keep(OWNER, keys, tokens, SALT, for_s)

    async def found(self, text: str = CONTEXT, question: str = "What is it?") -> tuple[str, int]:
        """Which replica a question goes to, and how many tokens it finds cached."""
        call = chat(("system", text), ("user", question))
        ranking = await self.ingress.routing.rank(call, SALT, len(text), True)
        try:
            answer = await self.ingress.client.send(ranking.call, ranking.replicas, ranking.asking)
            raw = b"".join([chunk async for chunk in answer.chunks()])
            await answer.close()
        finally:
            ranking.end()
        return answer.replica, json.loads(raw)["usage"]["prompt_tokens_details"]["cached_tokens"]

    async def press(self, caches: int) -> None:
        """Fills every replica's cache so many times with what nobody asks again."""
        for number in range(8 * caches):
            texts = [f"{number} {replica} {time.monotonic_ns()} " + "others ask this " * (BLOCKS * BLOCK // 32) for replica in "ab"]
            await asyncio.gather(*(self._send(text, replica) for text, replica in zip(texts, "ab", strict=True)))

    async def _send(self, text: str, name: str) -> None:
        for replica in self.ingress.directory.known:
            if replica.id == name:
                answer = await self.ingress.client.probe(chat(("user", text)), replica)
                async for _ in answer.chunks():
                    pass
                await answer.close()


@asynccontextmanager
async def keeping_of(ingress: Ingress) -> AsyncIterator[Keeping]:
    keeping = Keeping(ingress)
    task = asyncio.create_task(keeping.prefixes.run())
    try:
        yield keeping
    finally:
        task.cancel()


def holders(nodes: list[Node], prefix: KeptPrefix) -> list[str]:
    return [node.id for node in nodes if prefix.key in node.keeper._prefixes]


def uses(nodes: list[Node]) -> int:
    return sum(prefix.uses for node in nodes for prefix in node.keeper._prefixes.values())


async def test_what_is_kept_is_not_evicted_and_what_is_not_kept_is() -> None:
    async with nodes_of("a", "b", config=ENGINE) as nodes, ingress_of(*nodes) as ingress, keeping_of(ingress) as keeping:
        other = "Nobody has asked for this to be kept, and so it goes. " * 80
        await keeping.found(other)
        prefix = await keeping.keep()
        assert await keeping.prefixes.placed(prefix, 5) == "kept"
        await keeping.press(6)
        assert await keeping.found() == (prefix.replica, len(prefix.tokens))
        assert (await keeping.found(other))[1] == 0


async def test_it_is_used_again_before_it_is_lost() -> None:
    async with nodes_of("a", "b", config=ENGINE) as nodes, ingress_of(*nodes) as ingress, keeping_of(ingress) as keeping:
        await keeping.prefixes.placed(await keeping.keep(), 5)
        await eventually(lambda: uses(nodes) == 1)
        await keeping.press(6)
        await eventually(lambda: keeping.watcher.events["used"] > 3)
        assert keeping.watcher.events["recomputed"] == 0


async def test_nothing_is_done_for_it_while_nobody_asks_anything() -> None:
    async with nodes_of("a", config=ENGINE) as nodes, ingress_of(*nodes) as ingress, keeping_of(ingress) as keeping:
        await keeping.prefixes.placed(await keeping.keep(), 5)
        await eventually(lambda: uses(nodes) == 1)
        await asyncio.sleep(0.5)  # two pauses between uses
        assert uses(nodes) == 1


async def test_when_its_replica_is_gone_another_one_keeps_it() -> None:
    async with nodes_of("a", "b", config=ENGINE) as nodes, ingress_of(*nodes) as ingress, keeping_of(ingress) as keeping:
        prefix = await keeping.keep()
        await keeping.prefixes.placed(prefix, 5)
        gone = prefix.replica
        ingress.directory.discard(gone)
        await eventually(lambda: prefix.replica not in ("", gone))
        await eventually(lambda: prefix.state == "kept")
        assert await keeping.found() == (prefix.replica, len(prefix.tokens))
        assert keeping.watcher.events["moved"] == 1


async def test_a_replica_that_began_anew_is_told_again() -> None:
    async with nodes_of("a", config=ENGINE) as nodes, ingress_of(*nodes) as ingress, keeping_of(ingress) as keeping:
        prefix = await keeping.keep()
        await keeping.prefixes.placed(prefix, 5)
        nodes[0].keeper._prefixes.clear()
        await eventually(lambda: holders(nodes, prefix) == ["a"])


async def test_its_time_ends_and_can_be_put_off_or_brought_forward() -> None:
    async with nodes_of("a", config=ENGINE) as nodes, ingress_of(*nodes) as ingress, keeping_of(ingress) as keeping:
        prefix = await keeping.keep(for_s=0.2)
        await keeping.prefixes.placed(prefix, 5)
        await keeping.keep(for_s=60.0)
        keeping.prefixes.keep(OWNER, prefix.keys, prefix.tokens, SALT, 1.0)  # no use of it brings its end forward
        await eventually(lambda: prefix.told_until > time.monotonic() + 30)
        keeping.prefixes.set_end(prefix, 0.1)
        await eventually(lambda: keeping.prefixes.get(prefix.key) is None)
        await eventually(lambda: not holders(nodes, prefix), 5)


async def test_what_is_dropped_is_not_kept_any_longer() -> None:
    async with nodes_of("a", config=ENGINE) as nodes, ingress_of(*nodes) as ingress, keeping_of(ingress) as keeping:
        prefix = await keeping.keep()
        await keeping.prefixes.placed(prefix, 5)
        keeping.prefixes.drop(prefix.key)
        await eventually(lambda: not holders(nodes, prefix))
        assert keeping.prefixes.tokens_of(OWNER) == 0


async def test_two_ingresses_have_it_kept_once() -> None:
    async with (
        nodes_of("a", "b", config=ENGINE) as nodes,
        ingress_of(*nodes) as one,
        ingress_of(*nodes, name="two") as two,
        keeping_of(one) as first,
        keeping_of(two) as second,
    ):
        prefix = await first.keep()
        await first.prefixes.placed(prefix, 5)
        two.routing.keys_of(BLOCK)
        await eventually(lambda: sum(two.router.cached(Prompt(prefix.keys, len(prefix.tokens) + 1), ["a", "b"])) == len(prefix.tokens))
        again = await second.keep()
        await second.prefixes.placed(again, 5)
        assert again.replica == prefix.replica
        assert len(holders(nodes, prefix)) == 1


async def test_a_replica_that_refuses_once_keeps_what_it_keeps() -> None:
    async with nodes_of("a", "b", config=ENGINE) as nodes, ingress_of(*nodes) as ingress, keeping_of(ingress) as keeping:
        prefix = await keeping.keep()
        await keeping.prefixes.placed(prefix, 5)
        kept_by = prefix.replica
        ingress.directory.suspend(kept_by)
        await asyncio.sleep(1.0)  # several looks
        assert (prefix.replica, holders(nodes, prefix)) == (kept_by, [kept_by])


async def test_a_replica_that_was_silent_and_comes_back_is_told_that_another_one_keeps_it() -> None:
    async with nodes_of("a", "b", config=ENGINE) as nodes, ingress_of(*nodes) as ingress, keeping_of(ingress) as keeping:
        prefix = await keeping.keep()
        await keeping.prefixes.placed(prefix, 5)
        kept_by = prefix.replica
        away = next(node for node in nodes if node.id == kept_by)
        away.app.draining = True
        await eventually(lambda: prefix.replica not in ("", kept_by), 10)
        away.app.draining = False
        await eventually(lambda: holders(nodes, prefix) == [prefix.replica], 10)


async def test_what_is_dropped_while_its_replica_is_passed_over_is_not_kept_either() -> None:
    async with nodes_of("a", config=ENGINE) as nodes, ingress_of(*nodes) as ingress, keeping_of(ingress) as keeping:
        prefix = await keeping.keep()
        await keeping.prefixes.placed(prefix, 5)
        nodes[0].app.draining = True
        await eventually(lambda: ingress.directory.is_silent("a"))
        keeping.prefixes.drop(prefix.key)
        await asyncio.sleep(0.5)
        nodes[0].app.draining = False
        await eventually(lambda: not holders(nodes, prefix), 10)


async def test_what_nobody_has_room_for_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with nodes_of("a", config=ENGINE) as nodes, ingress_of(*nodes) as ingress, keeping_of(ingress) as keeping:
        computed = []
        compute = keeping.prefixes._compute

        async def seen(prefix: KeptPrefix, *args: Any) -> None:
            computed.append(prefix.key)
            await compute(prefix, *args)

        monkeypatch.setattr(keeping.prefixes, "_compute", seen)
        prefixes = [await keeping.keep(f"{number} {CONTEXT}") for number in range(6)]
        states = [await keeping.prefixes.placed(prefix, 5) for prefix in prefixes]
        assert {"kept", "full"} == set(states)
        assert set(computed) == {prefix.key for prefix, state in zip(prefixes, states, strict=True) if state == "kept"}


async def test_no_replica_keeps_more_than_its_share() -> None:
    async with nodes_of("a", config=ENGINE) as nodes, ingress_of(*nodes) as ingress, keeping_of(ingress) as keeping:
        states = [await keeping.prefixes.placed(await keeping.keep(f"{number} {CONTEXT}"), 5) for number in range(6)]
        assert states[0] == "kept"
        assert states[-1] == "full"
        assert nodes[0].keeper.kept_blocks <= BLOCKS / 2


async def test_beginnings_that_prefixes_have_in_common_count_once() -> None:
    async with nodes_of("a", config=ENGINE) as nodes, ingress_of(*nodes) as ingress, keeping_of(ingress) as keeping:
        one = await keeping.keep()
        keys = one.keys[:4]
        keeping.prefixes.keep(OWNER, keys, one.tokens[: 4 * BLOCK], SALT, 60)
        assert keeping.prefixes.tokens_of(OWNER) == len(one.tokens)
        assert keeping.prefixes.more_tokens(OWNER, one.keys) == 0
        assert keeping.prefixes.more_tokens("other", one.keys) == len(one.tokens)


async def test_what_goes_wrong_once_does_not_end_the_keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    async with nodes_of("a", config=ENGINE) as nodes, ingress_of(*nodes) as ingress, keeping_of(ingress) as keeping:
        check, failed = keeping.prefixes._check, list[bool]()

        async def failing() -> None:
            if not failed:
                failed.append(True)
                raise RuntimeError
            await check()

        monkeypatch.setattr(keeping.prefixes, "_check", failing)
        prefix = await keeping.keep()
        assert await keeping.prefixes.placed(prefix, 5) == "kept"
        keeping.prefixes.drop(prefix.key)
        await eventually(lambda: not holders(nodes, prefix))
        assert failed
