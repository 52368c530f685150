"""Hits from memory are counted where the others are."""

import asyncio

import pytest

from serve_app import uses as module
from serve_app.uses import Uses
from tests.serve_app.asking import ask, chat
from tests.serve_app.fakes import Clock, FakeCache, World, eventually


@pytest.fixture
def cache() -> FakeCache:
    return FakeCache([], Clock())


async def test_hits_are_told_together(cache: FakeCache) -> None:
    uses = Uses(cache, tell_s=0.01)
    for entry_id in ("a", "b", "a"):
        uses.hit(entry_id)
    assert not cache.used
    await eventually(lambda: cache.used == {"a": 2, "b": 1})
    uses.hit("a")
    await eventually(lambda: cache.used == {"a": 3, "b": 1})
    await uses.stop()


async def test_what_comes_while_the_cache_is_told_is_told_next(cache: FakeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    uses, told = Uses(cache, tell_s=0), cache.call

    async def hit_meanwhile(method: str, counts: dict[str, int]) -> None:
        if "a" in counts:
            uses.hit("b")
        await told(method, counts)

    monkeypatch.setattr(cache, "call", hit_meanwhile)
    uses.hit("a")
    await eventually(lambda: cache.used == {"a": 1, "b": 1})
    await uses.stop()


async def test_what_is_left_is_told_at_the_end(cache: FakeCache) -> None:
    uses = Uses(cache, tell_s=60)
    uses.hit("a")
    await asyncio.wait_for(uses.stop(), 5)
    await uses.stop()
    assert cache.used == {"a": 1}


async def test_a_cache_that_fails_costs_these_hits_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FakeCache([], Clock())
    uses = Uses(cache, tell_s=0)

    async def fail(method: str, *args: object) -> None:
        raise RuntimeError(method)

    with monkeypatch.context() as failing:
        failing.setattr(cache, "call", fail)
        uses.hit("a")
        await uses.tell()
    uses.hit("b")
    await uses.stop()
    assert cache.used == {"b": 1}


async def test_a_cache_that_hangs_does_not_hold_up_the_end(cache: FakeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(method: str, *args: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(cache, "call", hang)
    monkeypatch.setattr(module, "LIMIT_S", 0.01)
    uses = Uses(cache, tell_s=60)
    uses.hit("a")
    await asyncio.wait_for(uses.stop(), 5)


async def test_so_many_entries_are_counted(cache: FakeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 2)
    uses = Uses(cache, tell_s=60)
    for entry_id in ("a", "b", "c", "b"):
        uses.hit(entry_id)
    await uses.stop()
    assert cache.used == {"a": 1, "b": 2}


async def test_a_hit_from_memory_counts(world: World) -> None:
    await ask(world, chat())
    assert (await ask(world, chat()))[0] == "exact"
    await world.uses.tell()
    assert cache_uses(world) == [1]


async def test_who_waited_for_an_equal_request_counts(world: World) -> None:
    answers = await asyncio.gather(*(ask(world, chat()) for _ in range(3)))
    assert sorted(tier for tier, _ in answers) == ["exact", "exact", "miss"]
    await world.uses.tell()
    await world.keeper.drain()
    assert cache_uses(world) == [2]


def cache_uses(world: World) -> list[int]:
    """Of each entry."""
    assert world.cache.used.keys() <= {entry.id for entry in world.cache.entries}
    return list(world.cache.used.values())
