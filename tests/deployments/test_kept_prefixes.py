"""Beginnings of prompts that are kept: against eviction, beyond the death of their replica, and no longer than was said."""

import asyncio
import time
from typing import Any

import pytest

from cache.prefix.router import Prompt
from deployments.kept_prefix import Chain, KeptPrefix
from tests.deployments.keeping import BLOCK, BLOCKS, CONTEXT, ENGINE, HOLDER, OWNER, holders, keeping_of, uses
from tests.deployments.prefix_fleet import SALT, ingress_of, nodes_of
from tests.deployments.servers import eventually


async def test_what_is_kept_is_not_evicted_and_what_is_not_kept_is() -> None:
    async with nodes_of("a", "b", config=ENGINE) as nodes, ingress_of(*nodes) as ingress, keeping_of(ingress) as keeping:
        other = "Nobody has asked for this to be kept, and so it goes. " * 80
        await keeping.found(other)
        prefix = await keeping.keep()
        assert await keeping.prefixes.placed(prefix, 5) == "kept"
        await keeping.press(6)
        assert await keeping.found() == (prefix.replica, len(prefix.chain.tokens))
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
        assert await keeping.found() == (prefix.replica, len(prefix.chain.tokens))
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
        keeping.prefixes.keep(OWNER, HOLDER, prefix.chain, 1.0)  # no use of it brings its end forward
        await eventually(lambda: prefix.until_told > time.monotonic() + 30)
        keeping.prefixes.set_end(prefix, HOLDER, 0.1)
        await eventually(lambda: keeping.prefixes.get(prefix.key, HOLDER) is None)
        await eventually(lambda: not holders(nodes, prefix), 5)


async def test_what_is_dropped_is_not_kept_any_longer() -> None:
    async with nodes_of("a", config=ENGINE) as nodes, ingress_of(*nodes) as ingress, keeping_of(ingress) as keeping:
        prefix = await keeping.keep()
        await keeping.prefixes.placed(prefix, 5)
        keeping.prefixes.drop(prefix.key, HOLDER)
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
        await eventually(
            lambda: sum(two.router.cached(Prompt(prefix.chain.keys, len(prefix.chain.tokens) + 1), ["a", "b"])) == len(prefix.chain.tokens)
        )
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
        keeping.prefixes.drop(prefix.key, HOLDER)
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
        keeping.prefixes.keep(OWNER, HOLDER, Chain(one.chain.keys[:4], one.chain.tokens[: 4 * BLOCK], SALT), 60)
        assert keeping.prefixes.tokens_of(OWNER) == len(one.chain.tokens)
        assert keeping.prefixes.more_tokens(OWNER, one.chain.keys) == 0
        assert keeping.prefixes.more_tokens("other", one.chain.keys) == len(one.chain.tokens)


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
        keeping.prefixes.drop(prefix.key, HOLDER)
        await eventually(lambda: not holders(nodes, prefix))
        assert failed
