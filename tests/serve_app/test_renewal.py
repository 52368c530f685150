"""Answers past their soft end are served, and computed anew once."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from tests.serve_app.asking import ask, caller, chat, completion, text_of
from tests.serve_app.fakes import FakeAnswer, Fault, World, make_world, whole

SOFT_S, HARD_S = 60.0, 600.0
FRESH = "A cache keeps answers for a while."


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = make_world(cache={"soft_ttl_s": SOFT_S, "ttl_s": HARD_S})
    yield world
    await world.renewals.stop()
    await world.keeper.stop()


async def kept_then_stale(world: World, request: Any = None) -> None:
    """An answer was kept, its soft end is past, and the engine says something else by now."""
    await ask(world, request or chat())
    world.clock.now += SOFT_S
    world.replicas.script.append(FakeAnswer([whole(FRESH)]))
    world.metrics.operations.clear()


async def renewed(world: World) -> None:
    await world.renewals.drain()
    await world.keeper.drain()


@pytest.mark.parametrize("is_in_process", [True, False])
async def test_a_stale_answer_is_served_and_then_replaced(world: World, is_in_process: bool) -> None:
    await kept_then_stale(world)
    if not is_in_process:
        world.lru.clear()
    tier, body = await ask(world, chat())
    assert (tier, text_of(body)) == ("exact", "A cache keeps answers.")
    await renewed(world)
    tier, body = await ask(world, chat())
    assert (tier, text_of(body)) == ("exact", FRESH)
    assert ("renewal", "renewed") in world.metrics.operations
    assert len(world.replicas.calls) == 2


async def test_the_new_answer_can_be_found_by_its_meaning(world: World) -> None:
    world.embedding.means["Explain caches."] = "What is a cache?"
    await kept_then_stale(world)
    await ask(world, chat())
    await renewed(world)
    tier, body = await ask(world, chat("Explain caches."))
    assert (tier, text_of(body)) == ("semantic", FRESH)


async def test_a_stream_is_renewed_in_one_piece(world: World) -> None:
    await kept_then_stale(world)
    await ask(world, chat(stream=True))
    await renewed(world)
    assert "stream" not in world.replicas.bodies[-1]
    assert text_of((await ask(world, chat(stream=True)))[1]) == FRESH


async def test_a_semantic_hit_on_a_stale_answer_keeps_one_for_the_new_question(world: World) -> None:
    world.embedding.means["Explain caches."] = "What is a cache?"
    await kept_then_stale(world)
    assert (await ask(world, chat("Explain caches.")))[0] == "semantic"
    await renewed(world)
    tier, body = await ask(world, chat("Explain caches."))
    assert (tier, text_of(body)) == ("exact", FRESH)


async def test_before_the_soft_end_nothing_is_computed(world: World) -> None:
    await ask(world, chat())
    world.clock.now += SOFT_S - 1
    await ask(world, chat())
    await renewed(world)
    assert len(world.replicas.calls) == 1


async def test_past_the_hard_end_it_is_a_miss(world: World) -> None:
    await kept_then_stale(world)
    world.clock.now += HARD_S
    assert (await ask(world, chat()))[0] == "miss"


async def test_many_requests_renew_once(world: World) -> None:
    await kept_then_stale(world)
    await asyncio.gather(*(ask(world, chat()) for _ in range(20)))
    await renewed(world)
    assert len(world.replicas.calls) == 2


async def test_what_another_process_has_renewed_is_taken_from_the_store(world: World) -> None:
    await kept_then_stale(world)
    (entry,) = world.cache.entries
    answer = entry.answer.replace(b"keeps answers", b"forgets")
    world.cache.entries = [replace(entry, answer=answer, stale_at=world.clock.now + SOFT_S)]
    await ask(world, chat())
    await renewed(world)
    assert ("renewal", "not_needed") in world.metrics.operations
    assert text_of((await ask(world, chat()))[1]) == "A cache forgets."
    assert len(world.replicas.calls) == 1


async def test_what_another_process_is_renewing_is_left_to_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await kept_then_stale(world)

    async def taken(*_: Any) -> bool:
        return False

    monkeypatch.setattr(world.cache, "acquire", taken)
    await ask(world, chat())
    await renewed(world)
    assert ("renewal", "elsewhere") in world.metrics.operations
    assert len(world.replicas.calls) == 1


async def test_a_request_that_may_not_be_kept_renews_nothing(world: World) -> None:
    await kept_then_stale(world)
    await ask(world, chat(), caller(no_store=True))
    await renewed(world)
    assert text_of((await ask(world, completion()))[1])  # the script's answer is still there
    assert ("renewal", "renewed") not in world.metrics.operations


async def test_a_renewal_that_fails_is_counted_and_tried_again(world: World) -> None:
    await kept_then_stale(world)
    world.replicas.script.appendleft(FakeAnswer([RuntimeError("engine")]))
    assert (await ask(world, chat()))[0] == "exact"
    await renewed(world)
    assert ("renewal", "error") in world.metrics.operations
    await ask(world, chat())
    await renewed(world)
    assert text_of((await ask(world, chat()))[1]) == FRESH


async def test_a_store_that_fails_costs_nothing_but_the_renewal(world: World) -> None:
    await kept_then_stale(world)
    await ask(world, chat())
    world.cache.finds = Fault(RuntimeError("down"))
    await renewed(world)
    world.cache.finds = Fault()
    assert (await ask(world, chat()))[0] == "exact"


async def test_a_stop_ends_what_runs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await kept_then_stale(world)

    async def never(*_: Any) -> bool:
        await asyncio.Event().wait()
        return True

    monkeypatch.setattr(world.cache, "acquire", never)
    await ask(world, chat())
    await world.renewals.stop()
    assert len(world.replicas.calls) == 1
