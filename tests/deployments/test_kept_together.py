"""Prefixes that are held several times, that others go on from, or that are an adapter's."""

import asyncio
from dataclasses import replace
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest

from deployments.config import ModelConfig
from deployments.kept_prefix import Chain, KeptPrefix
from deployments.prefix_keeper import Order
from tests.deployments.keeping import BLOCK, ENGINE, OWNER, Keeping, Keys, holders, keeping_of, uses
from tests.deployments.prefix_fleet import SALT, Node, ingress_of, nodes_of
from tests.deployments.servers import eventually

NESTED = (8, 16, 32)
"""Blocks of prefixes, each the beginning of the next."""


async def nested(keeping: Keeping) -> list[KeptPrefix]:
    chain = await keeping.chain()
    return [keeping.prefixes.keep(OWNER, "marks", beginning(keeping, chain, blocks), 60.0) for blocks in NESTED]


def beginning(keeping: Keeping, chain: Chain, blocks: int) -> Chain:
    """As if it had been measured itself."""
    found = keeping.prefixes.whole_blocks(chain.tokens[: blocks * BLOCK], SALT)
    assert found
    return found


def whole_order(chain: Chain) -> Order:
    return Order(chain.keys[-1], {"one": 60.0}, SALT, None, chain.tokens.tobytes())


async def test_each_holder_has_an_end_of_its_own() -> None:
    async with nodes_of("a", config=ENGINE) as nodes, ingress_of(*nodes) as ingress, keeping_of(ingress) as keeping:
        prefix = await keeping.keep(holder="one", for_s=0.3)
        assert await keeping.keep(holder="other", for_s=60) is prefix
        await keeping.prefixes.placed(prefix, 5)
        await eventually(lambda: keeping.prefixes.get(prefix.key, "one") is None)
        await eventually(lambda: set(prefix.told) == {"other"})
        assert holders(nodes, prefix) == ["a"]
        assert keeping.prefixes.get(prefix.key, "other") is prefix
        keeping.prefixes.drop(prefix.key, "other")
        await eventually(lambda: not holders(nodes, prefix))


async def test_who_goes_takes_nothing_from_whoever_stays() -> None:
    async with nodes_of("a", config=ENGINE) as nodes, ingress_of(*nodes) as ingress, keeping_of(ingress) as keeping:
        prefix = await keeping.keep(holder="one")
        await keeping.keep(holder="other")
        await keeping.prefixes.placed(prefix, 5)
        keeping.prefixes.set_end(prefix, "other", 600)
        keeping.prefixes.drop(prefix.key, "other")
        await eventually(lambda: set(nodes[0].keeper._prefixes[prefix.key].ends) == {"one"})
        assert 50 < prefix.until - keeping.prefixes._clock() <= 60
        assert keeping.prefixes.tokens_of(OWNER) == len(prefix.chain.tokens)


async def test_blocks_count_for_each_tenant_that_holds_them() -> None:
    async with nodes_of("a", config=ENGINE) as nodes, ingress_of(*nodes) as ingress, keeping_of(ingress) as keeping:
        prefix = await keeping.keep()
        keeping.prefixes.keep(OWNER, "again", prefix.chain, 60)
        keeping.prefixes.keep("member", "of a group", prefix.chain, 60)
        await keeping.prefixes.placed(prefix, 5)
        for owner in (OWNER, "member"):
            assert keeping.prefixes.tokens_of(owner) == len(prefix.chain.tokens)
            assert keeping.prefixes.more_tokens(owner, prefix.chain.keys) == 0
        assert nodes[0].keeper.kept_blocks == len(prefix.chain.keys)


async def test_what_one_ingress_drops_another_one_has_kept_yet() -> None:
    async with (
        nodes_of("a", config=ENGINE) as nodes,
        ingress_of(*nodes) as one,
        ingress_of(*nodes, name="two") as two,
        keeping_of(one) as first,
        keeping_of(two) as second,
    ):
        prefix, again = await first.keep(holder="marks of one"), await second.keep(holder="a context")
        await first.prefixes.placed(prefix, 5)
        await second.prefixes.placed(again, 5)
        kept = nodes[0].keeper._prefixes[prefix.key]
        second.prefixes.drop(again.key, "a context")
        await eventually(lambda: not second.prefixes._dropped and set(kept.ends) == {"marks of one"})
        assert nodes[0].keeper._prefixes[prefix.key] is kept
        await first.press(2)
        assert first.watcher.events["placed"] == 1


async def test_an_end_of_which_its_replica_knows_nothing_is_told_when_it_is_over() -> None:
    async with nodes_of("a", config=ENGINE) as nodes, ingress_of(*nodes) as ingress, keeping_of(ingress) as keeping:
        prefix = await keeping.keep()
        await keeping.prefixes.placed(prefix, 5)
        prefix.holds["context"].until = keeping.prefixes._clock()  # as if it could not be told
        await eventually(lambda: not holders(nodes, prefix))


async def test_the_longest_is_used_for_all_that_it_begins_with() -> None:
    async with nodes_of("a", config=ENGINE) as nodes, ingress_of(*nodes) as ingress, keeping_of(ingress) as keeping:
        prefixes = await nested(keeping)
        longest = prefixes[-1]
        for prefix in prefixes:
            await keeping.prefixes.placed(prefix, 5)
        await keeping.press(6)
        await eventually(lambda: nodes[0].keeper._prefixes[longest.key].uses > 2)
        kept = nodes[0].keeper._prefixes
        assert [kept[prefix.key].uses for prefix in prefixes[:-1]] == [0, 0]
        assert [kept[prefix.key].recomputed for prefix in prefixes] == [0, 0, 0]
        keeping.prefixes.drop(longest.key, "marks")
        await eventually(lambda: not holders(nodes, longest))
        await keeping.press(6)
        await eventually(lambda: kept[prefixes[1].key].uses > 2)  # what is the longest now
        assert kept[prefixes[0].key].uses == 0
        assert kept[prefixes[1].key].recomputed == 0


async def test_one_that_fails_is_no_use_of_what_it_begins_with(monkeypatch: pytest.MonkeyPatch) -> None:
    async with nodes_of("a", config=ENGINE) as nodes, ingress_of(*nodes) as ingress, keeping_of(ingress) as keeping:
        keeper = nodes[0].keeper
        ask = keeper._ask

        async def failing(prefix: Any) -> int:
            return 500 if len(prefix.keys) > NESTED[1] else await ask(prefix)

        monkeypatch.setattr(keeper, "_ask", failing)
        short = (await nested(keeping))[1]
        await keeping.prefixes.placed(short, 5)
        await eventually(lambda: keeper._prefixes[short.key].uses == 1)


async def test_nested_ones_are_computed_once_and_kept_together(monkeypatch: pytest.MonkeyPatch) -> None:
    async with nodes_of("a", "b", config=ENGINE) as nodes, ingress_of(*nodes) as ingress, keeping_of(ingress) as keeping:
        computed = list[int]()
        compute = keeping.prefixes._compute

        async def seen(prefix: KeptPrefix, *args: Any) -> None:
            computed.append(len(prefix.chain.keys))
            await compute(prefix, *args)

        monkeypatch.setattr(keeping.prefixes, "_compute", seen)
        prefixes = await nested(keeping)
        assert [await keeping.prefixes.placed(prefix, 5) for prefix in prefixes] == ["kept"] * 3
        assert computed == [NESTED[-1]]
        assert len({prefix.replica for prefix in prefixes}) == 1
        await eventually(lambda: uses(nodes) > 0)


async def test_a_prefix_for_an_adapter_is_kept_for_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.deployments.prefix_fleet.MODEL", ModelConfig(name="m", adapters={"loud": "x"}))
    async with nodes_of("a", config=ENGINE) as nodes, ingress_of(*nodes) as ingress, keeping_of(ingress) as keeping:
        base = await keeping.chain()
        chain = keeping.prefixes.whole_blocks(base.tokens, SALT, "loud")
        assert chain
        assert chain.keys[-1] != base.keys[-1]
        prefix = keeping.prefixes.keep(OWNER, "marks", chain, 60)
        assert await keeping.prefixes.placed(prefix, 5) == "kept"
        await eventually(lambda: held(nodes[0], prefix))
        await keeping.press(6)
        await eventually(lambda: nodes[0].keeper._prefixes[prefix.key].uses > 2)
        assert held(nodes[0], prefix)
        assert nodes[0].keeper._prefixes[prefix.key].recomputed == 0


async def test_what_an_adapter_lacks_is_computed_with_it_and_by_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.deployments.prefix_fleet.MODEL", ModelConfig(name="m", adapters={"loud": "x"}))
    async with nodes_of("a", config=ENGINE) as nodes, ingress_of(*nodes) as ingress, keeping_of(ingress) as keeping:
        nodes[0].keeping.cancel()  # it would compute it, too
        chain = keeping.prefixes.whole_blocks((await keeping.chain()).tokens, SALT, "loud")
        assert chain
        prefix = keeping.prefixes.keep(OWNER, "marks", chain, 60)
        assert await keeping.prefixes.placed(prefix, 5) == "kept"
        await eventually(lambda: held(nodes[0], prefix))


def held(node: Node, prefix: KeptPrefix) -> bool:
    """The engine's cache has all of it."""
    node.keeper._follow()
    return node.keeper._lost(node.keeper._prefixes[prefix.key]) == 0


async def test_an_order_that_is_over_when_it_comes_begins_nothing() -> None:
    async with nodes_of("a", config=ENGINE) as nodes, ingress_of(*nodes) as ingress:
        chain = await Keeping(ingress).chain()
        order = Order(chain.keys[-1], {"one": -1.0, "other": 0.0}, SALT, None, chain.tokens.tobytes())
        assert [answer.state for answer in nodes[0].keeper.order([order])] == ["unknown"]
        await asyncio.sleep(0)
        assert not nodes[0].keeper._prefixes


async def test_keys_of_what_a_replica_keeps_are_not_gone_through_for_others_nor_to_say_that_it_does() -> None:
    """A mark on each turn of a long chat makes hundreds of chains, each with thousands of keys."""
    async with nodes_of("a", config=ENGINE) as nodes, ingress_of(*nodes) as ingress:
        nodes[0].keeping.cancel()  # it may go through those that it uses
        keeper, keeping = nodes[0].keeper, Keeping(ingress)
        chain, other = await keeping.chain(), await keeping.chain("Other rules. " * 60)
        orders = [whole_order(part) for part in (*(beginning(keeping, chain, blocks) for blocks in NESTED), other)]
        assert [answer.state for answer in keeper.order(orders[:3])] == ["kept"] * 3
        keys = keeper._prefixes[orders[0].key].keys = Keys(keeper._prefixes[orders[0].key].keys)
        assert [answer.state for answer in keeper.order(orders)] == ["kept"] * 4
        assert keeper.kept_blocks == NESTED[-1] + len(other.keys)
        await keeper._use(keeper._prefixes[orders[-1].key])
        assert keys.passes == 0
        keeper.order([Order(order.key, {"one": 0.0}) for order in orders[1:]])
        assert (keeper.kept_blocks, keys.passes) == (NESTED[0], 0)


async def test_keys_of_what_a_tenant_has_kept_are_not_gone_through_for_its_requests() -> None:
    async with nodes_of("a", config=ENGINE) as nodes, ingress_of(*nodes) as ingress, keeping_of(ingress) as keeping:
        chain = await keeping.chain()
        keys = Keys(chain.keys[:8])
        keeping.prefixes.keep(OWNER, "marks", replace(beginning(keeping, chain, 8), keys=keys), 60.0)
        passes = keys.passes
        assert keeping.prefixes.tokens_of(OWNER) == 8 * BLOCK
        assert keeping.prefixes.more_tokens(OWNER, chain.keys) == len(chain.tokens) - 8 * BLOCK
        assert keys.passes == passes


async def test_what_is_over_counts_for_nobody() -> None:
    async with nodes_of("a", config=ENGINE) as nodes, ingress_of(*nodes) as ingress:
        keeping = Keeping(ingress)
        prefix = await keeping.keep(holder="short", for_s=0.0)  # nobody has looked for it
        assert keeping.prefixes.tokens_of(OWNER) == 0
        assert keeping.prefixes.more_tokens(OWNER, prefix.chain.keys) == len(prefix.chain.tokens)
        await keeping.keep(holder="short", for_s=60.0)
        assert keeping.prefixes.tokens_of(OWNER) == len(prefix.chain.tokens)


@pytest.mark.parametrize("lengths", list(permutations(NESTED)))
async def test_what_begins_another_is_in_memory_once(lengths: tuple[int, ...]) -> None:
    async with nodes_of("a", config=ENGINE) as nodes, ingress_of(*nodes) as ingress:
        keeping = Keeping(ingress)
        chain = await keeping.chain()
        chains = {blocks: beginning(keeping, chain, blocks) for blocks in lengths}
        for each in chains.values():
            nodes[0].keeper.order([whole_order(each)])
            keeping.prefixes.keep(OWNER, "marks", each, 60.0)
        held: list[Any] = [prefix.chain for _, prefix in sorted(keeping.prefixes._prefixes.items())]
        kept: list[Any] = [prefix for _, prefix in sorted(nodes[0].keeper._prefixes.items())]
        for all_of_them in (held, kept):
            assert len(all_of_them) == len(NESTED)
            for one, other in pairwise(all_of_them):
                assert np.shares_memory(one.tokens, other.tokens)
                assert one.keys[0] is other.keys[0]
            for each in all_of_them:
                assert each.keys == chain.keys[: len(each.keys)]
                assert each.tokens.tolist() == chain.tokens[: len(each.keys) * BLOCK].tolist()
