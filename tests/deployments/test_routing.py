"""Requests go to the replica that holds their prefix; what is wrong with replicas, events or predictions does not stop them."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from cache.prefix.router import PowerOfTwo
from deployments import fleet_watch, warming
from deployments.config import RoutingConfig
from deployments.fleet_watch import FleetWatch
from deployments.rendering import Renderer
from tests.deployments.prefix_fleet import ADAPTER, ENGINE, TEXT, Ingress, ingress_of, nodes_of
from tests.deployments.servers import eventually

OTHER = "Quite another text, which nobody has asked about before now. " * 20


async def test_a_prompt_goes_back_to_where_its_prefix_is_and_the_prediction_is_exact() -> None:
    async with nodes_of("a", "b", "c") as nodes, ingress_of(*nodes) as ingress:
        first, predicted, found = await ingress.ask()
        assert (predicted, found) == (0, 0)
        for number in range(5):
            replica, predicted, found = await ingress.ask(f"{TEXT} And number {number}?")
            assert replica == first
            assert predicted == found > 200


async def test_predictions_stay_exact_while_blocks_are_evicted() -> None:
    small = ENGINE.model_copy(update={"kv_blocks": 64, "max_model_len": 2048})
    async with nodes_of("a", "b", config=small) as nodes, ingress_of(*nodes) as ingress:
        texts = [f"{number} is the number of this text. {TEXT}" for number in range(12)]
        for _ in range(3):
            for text in texts:
                await eventually(lambda: all(ingress.knows(node) for node in nodes))
                ingress.router.pending.masks.clear()
                ingress.router.pending._ends.clear()
                ingress.router.pending._soon.clear()
                _, predicted, found = await ingress.ask(text)
                assert predicted == found
        assert sum(node.engine.load().kv_usage for node in nodes) == 0
        assert any(found for _, found, _ in ingress.observed)


async def test_tenants_do_not_share_and_do_not_count_on_each_other() -> None:
    async with nodes_of("a", "b") as nodes, ingress_of(*nodes) as ingress:
        await ingress.ask(salt="one")
        _, predicted, found = await ingress.ask(salt="two")
        assert (predicted, found) == (0, 0)
        _, predicted, found = await ingress.ask(salt="one")
        assert predicted == found > 200


async def test_adapters_do_not_share_with_each_other_and_their_blocks_are_found_again() -> None:
    async with nodes_of("a", "b") as nodes, ingress_of(*nodes) as ingress:
        await ingress.ask()
        _, predicted, found = await ingress.ask(adapter=ADAPTER)
        assert (predicted, found) == (0, 0)
        await eventually(lambda: all(ingress.knows(node) for node in nodes))
        ingress.forget_pending()
        for adapter in (None, ADAPTER):
            _, predicted, found = await ingress.ask(f"{TEXT} And then?", adapter=adapter)
            assert predicted == found > 200
        assert not ingress.routing._drift.alarm


async def test_a_late_ingress_knows_at_once_what_was_there_before_it() -> None:
    async with nodes_of("a", "b") as nodes, ingress_of(*nodes) as early:
        replica, *_ = await early.ask()
        async with ingress_of(*nodes, name="two") as late:
            again, predicted, found = await late.ask(f"{TEXT} Again.")
            assert again == replica
            assert predicted == found > 200


async def test_ingresses_see_each_others_requests() -> None:
    slow = ENGINE.model_copy(update={"prefill_tokens_per_s": 200})
    async with nodes_of("a", "b", config=slow) as nodes, ingress_of(*nodes) as one, ingress_of(*nodes, name="two") as two:
        running = asyncio.create_task(one.ask())
        await eventually(lambda: sum(two.router.ledger(node.id).others_waiting for node in nodes) == 1)
        busy = next(node.id for node in nodes if two.router.ledger(node.id).others_waiting)
        assert two.router.ledger(busy).others_backlog_s > 0
        assert sum(one.router.ledger(node.id).others_waiting for node in nodes) == 0
        assert (await two.rank(OTHER)).replicas[0].id != busy
        running.cancel()


async def test_a_burst_of_one_new_prompt_is_spread_once_waiting_costs_more_than_computing() -> None:
    slow = ENGINE.model_copy(update={"prefill_tokens_per_s": 2000})
    at_once = RoutingConfig(fair=False)  # nobody waits for the others' prefills
    async with nodes_of("a", "b", "c", config=slow) as nodes, ingress_of(*nodes, config=at_once) as ingress:
        rankings = [await ingress.rank(f"{number} {OTHER}") for number in range(12)]
        counts = Counter(ranking.replicas[0].id for ranking in rankings)
        assert max(counts.values()) <= 5
        for ranking in rankings:
            ranking.end()
        assert not ingress.router.pending.masks


async def test_a_killed_replica_is_passed_over_and_forgotten() -> None:
    async with nodes_of("a", "b") as nodes, ingress_of(*nodes) as ingress:
        first, *_ = await ingress.ask()
        gone = next(node for node in nodes if node.id == first)
        gone.engine.kill()
        await gone.server.stop()
        replica, *_ = await ingress.ask()
        assert replica != first
        await eventually(lambda: ingress.router.index.blocks_of(first) == 0)
        again, predicted, found = await ingress.ask(f"{TEXT} Again.")
        assert again == replica
        assert predicted == found > 200


async def test_a_cache_that_was_reset_is_known_to_be_empty() -> None:
    async with nodes_of("a", "b") as nodes, ingress_of(*nodes) as ingress:
        first, *_ = await ingress.ask()
        holder = next(node for node in nodes if node.id == first)
        await eventually(lambda: ingress.router.index.blocks_of(first) > 0)
        assert await holder.engine.reset_prefix_cache()
        await eventually(lambda: ingress.router.index.blocks_of(first) == 0)


async def test_replicas_come_and_go() -> None:
    async with nodes_of("a", "b", "c") as nodes, ingress_of(nodes[0]) as ingress:
        await ingress.ask()
        ingress.directory.replace([node.replica for node in nodes[1:]])
        await eventually(lambda: all(ingress.knows(node) for node in nodes[1:]))
        replica, *_ = await ingress.ask()
        assert replica in ("b", "c")
        await eventually(lambda: ingress.router.index.blocks_of("a") == 0)


async def test_a_draining_replica_gets_nothing_new() -> None:
    async with nodes_of("a", "b") as nodes, ingress_of(*nodes) as ingress:
        nodes[0].app.draining = True
        await eventually(lambda: [replica.id for replica in ingress.directory.replicas] == ["b"])
        nodes[0].app.draining = False
        await eventually(lambda: len(ingress.directory.replicas) == 2)


async def test_a_silent_replica_is_passed_over_until_it_reports_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_watch, "LIMIT_S", 0.3)
    async with nodes_of("a", "b") as nodes, ingress_of(*nodes) as ingress:
        silenced = asyncio.Event()
        resumed = asyncio.Event()

        async def hang(told: int) -> None:
            silenced.set()
            await resumed.wait()
            await asyncio.sleep(0.05)

        monkeypatch.setattr(nodes[0].app, "_pause", hang)
        await silenced.wait()
        await eventually(lambda: [replica.id for replica in ingress.directory.replicas] == ["b"])
        assert ingress.router.index.blocks_of("a") == 0
        resumed.set()
        await eventually(lambda: len(ingress.directory.replicas) == 2)


async def test_without_events_requests_go_by_load() -> None:
    async with nodes_of("a", "b") as nodes:
        for node in nodes:
            await node.feed.stop()
        async with ingress_of(*nodes) as ingress:
            for _ in range(3):
                _, predicted, _ = await ingress.ask()
                assert predicted == 0
                ingress.forget_pending()


@pytest.mark.parametrize("policy", ["round_robin", "power_of_two"])
async def test_other_policies_ask_nobody_to_render(policy: str) -> None:
    async with nodes_of("a", "b") as nodes, ingress_of(*nodes, config=RoutingConfig.model_validate({"policy": policy})) as ingress:
        answered = [await ingress.ask() for _ in range(4)]
        assert {predicted for _, predicted, _ in answered} == {None}
        if policy == "round_robin":
            assert Counter(replica for replica, *_ in answered) == {"a": 2, "b": 2}


async def test_short_prompts_are_not_rendered() -> None:
    async with nodes_of("a", "b") as nodes, ingress_of(*nodes) as ingress:
        assert (await ingress.ask("Hello, who are you, and what do you do all day?"))[1] is None


async def test_what_is_reserved_is_given_back() -> None:
    async with nodes_of("a", "b") as nodes, ingress_of(*nodes) as ingress:
        ranking = await ingress.rank()
        assert [ingress.router.ledger(replica.id).ongoing for replica in ranking.replicas] == [1, 0]
        ranking.asking(ranking.replicas[1].id)
        assert [ingress.router.ledger(replica.id).ongoing for replica in ranking.replicas] == [0, 1]
        ranking.end()
        ranking.end()
        assert [ingress.router.ledger(replica.id).ongoing for replica in ranking.replicas] == [0, 0]
        assert not ingress.router.pending.masks


async def test_predictions_that_are_wrong_are_not_followed() -> None:
    async with nodes_of("a", "b") as nodes, ingress_of(*nodes) as ingress:
        for _ in range(40):
            ingress.routing.observe(800, 0, 1000)
        assert not ingress.routing.is_trusted
        assert isinstance(ingress.router.policy, PowerOfTwo)
        for _ in range(80):
            ingress.routing.observe(800, 800, 1000)
        assert ingress.routing.is_trusted
        assert not isinstance(ingress.router.policy, PowerOfTwo)


async def test_after_a_head_start_engines_may_find_more_than_is_predicted_but_not_less() -> None:
    async with nodes_of("a", "b") as nodes, ingress_of(*nodes) as ingress:
        for _ in range(40):
            ingress.routing.observe(800, 1000, 1000, follows_head_start=True)
        assert ingress.routing.is_trusted
        for _ in range(40):
            ingress.routing.observe(800, 0, 1000, follows_head_start=True)
        assert not ingress.routing.is_trusted


async def test_a_watch_that_ends_leaves_no_task_behind() -> None:
    async with nodes_of("a") as nodes, ingress_of(*nodes) as ingress:
        routing = ingress.routing
        watch = FleetWatch(ingress.directory, ingress.client, ingress.router, routing.warmer, routing.turnstile, routing.gossip, "three")
        task = asyncio.create_task(watch.run())
        await eventually(lambda: bool(watch._listening))
        listening = list(watch._listening.values())
        task.cancel()
        await eventually(lambda: all(each.done() for each in listening))


# Replicas that come and go


async def heated(ingress: Ingress, times: int = 6) -> str:
    """A prefix that is asked for again and again; the replica that holds it."""
    for number in range(times):
        replica, *_ = await ingress.ask(f"{TEXT} Question {number}?")
    return replica


async def test_a_new_replica_is_warm_before_it_takes_requests() -> None:
    async with nodes_of("a", "b", "c") as nodes, ingress_of(*nodes[:2]) as ingress:
        await heated(ingress)
        assert ingress.routing.warmer
        ingress.directory.replace([node.replica for node in nodes])
        await eventually(lambda: ingress.knows(nodes[2]) and ingress.router.index.blocks_of("c") > 0)
        match = ingress.router.index.match(next(iter(ingress.routing.warmer._hot.values())).keys).any_tier
        assert match["c"] >= 10


async def test_a_replica_that_cannot_be_warmed_takes_requests_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warming, "LIMIT_S", 0.05)
    slow = ENGINE.model_copy(update={"prefill_tokens_per_s": 500})
    async with nodes_of("a", "b") as nodes, nodes_of("c", config=slow) as late, ingress_of(*nodes) as ingress:
        await heated(ingress)
        ingress.directory.replace([node.replica for node in (*nodes, *late)])
        await eventually(lambda: "c" in {replica.id for replica in ingress.directory.replicas} and "c" in ingress.router._ledgers)


async def test_what_only_a_leaving_replica_holds_is_rebuilt_elsewhere() -> None:
    async with nodes_of("a", "b") as nodes, ingress_of(*nodes) as ingress:
        leaving = await heated(ingress)
        await eventually(lambda: all(ingress.knows(node) for node in nodes))
        other = next(node for node in nodes if node.id != leaving)
        assert ingress.router.index.blocks_of(other.id) == 0
        next(node for node in nodes if node.id == leaving).app.draining = True
        await eventually(lambda: ingress.router.index.blocks_of(other.id) >= 10)
        replica, predicted, found = await ingress.ask(f"{TEXT} And now?")
        assert replica == other.id
        assert predicted == found > 200


async def test_nobody_elses_salt_is_warmed_with_a_prefix() -> None:
    async with nodes_of("a", "b", "c") as nodes, ingress_of(*nodes[:2]) as ingress:
        await heated(ingress)
        ingress.directory.replace([node.replica for node in nodes])
        await eventually(lambda: ingress.router.index.blocks_of("c") > 0)
        ranking = await ingress.rank(salt="another tenant")
        assert ranking.predicted == 0
        ranking.end()


async def test_a_slow_moment_of_rendering_does_not_stop_it_for_ever() -> None:
    now = 0.0
    nobody: Any = None
    renderer = Renderer(nobody, lambda: now)
    for _ in range(20):
        renderer._took(2.0)
    assert renderer.typical_s > 1.0
    now += 60.0
    assert renderer.typical_s < 0.01
    renderer._took(0.001)
    assert renderer.typical_s < 0.01
