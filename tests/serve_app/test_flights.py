"""Who computes, who waits and for how long, in one process."""

import asyncio
from typing import Any

import pytest

from serve_app.flights import ALONE, Flights, SingleFlight
from serve_app.flights_lease import Limits
from tests.cache.entries import make_entry
from tests.serve_app.flying import (
    KEY,
    LATENCY_S,
    NAMESPACE,
    WORK_S,
    Leases,
    Process,
    fails,
    gone,
    never,
    not_kept,
    now,
    virtual,
    works,
)
from tests.serve_app.recorded import RecordedMetrics

MODES = pytest.mark.parametrize("mode", ["process", "cluster"])

# One process


@MODES
@virtual
async def test_followers_get_the_leaders_entry_at_once(mode: SingleFlight) -> None:
    process = Process(Leases(), mode)
    process.write_s = 100
    entries = await asyncio.gather(*process.start(50))
    assert now() == pytest.approx(WORK_S + (LATENCY_S if mode == "cluster" else 0)), "not after the write"
    assert {id(entry) for entry in entries} == {id(entries[0])}
    assert (process.computed, process.outcomes) == (1, {"led": 1, "followed": 49})
    await process.close()


@virtual
async def test_roles_and_entries_of_tickets() -> None:
    flights = Flights(Leases(), RecordedMetrics(), "process")
    leader = await flights.join(NAMESPACE, KEY, 0)
    joining = asyncio.create_task(flights.join(NAMESPACE, KEY, 0))
    await asyncio.sleep(0)
    assert (leader.role, len(flights), joining.done()) == ("leader", 1, False)
    assert await leader.claim() is None
    entry = make_entry()
    leader.landed(entry)
    follower = await joining
    assert (follower.role, follower.entry, leader.role, len(flights)) == ("follower", entry, "alone", 0)
    assert (ALONE.role, ALONE.entry, await ALONE.claim()) == ("alone", None, None)
    for ticket in (leader, follower, ALONE):
        for report in (ticket.written, ticket.ended, ticket.left):
            report()
        ticket.landed(entry)
    assert len(flights) == 0


@MODES
@virtual
async def test_different_requests_never_share(mode: SingleFlight) -> None:
    process = Process(Leases(), mode)
    asked = [("a1", "k1", 0), ("a2", "k1", 0), ("a1", "k2", 0), ("a1", "k1", 1)]
    entries = await asyncio.gather(*(process.ask(*each) for each in asked))
    assert [(entry.namespace, entry.exact_key, entry.epoch) for entry in entries if entry] == asked
    assert process.outcomes == {"led": 4}
    await process.close()


@virtual
async def test_turned_off_it_tells_nobody() -> None:
    process = Process(Leases(), "off")
    await asyncio.gather(*process.start(3))
    assert (process.computed, process.outcomes, process.leases.asked) == (3, {}, [])
    await process.close()


@virtual
async def test_in_one_process_the_cache_is_not_asked() -> None:
    process = Process(Leases(), "process")
    await asyncio.gather(*process.start(3))
    assert (process.computed, process.leases.asked) == (1, [])
    await process.close()


@MODES
@pytest.mark.parametrize("work", [fails, not_kept])
@virtual
async def test_without_an_entry_followers_compute_all_at_once(mode: SingleFlight, work: Any) -> None:
    process = Process(Leases(), mode)
    leader = process.start(work=work)
    await asyncio.sleep(0)
    entries = await asyncio.gather(*process.start(9))
    await asyncio.wait(leader)
    assert now() == pytest.approx(2 * WORK_S, abs=0.1), "side by side"
    assert (process.computed, len({id(entry) for entry in entries}), process.outcomes) == (10, 9, {"led": 1, "alone": 9})
    assert isinstance(leader[0].exception(), ValueError) if work is fails else leader[0].result() is None
    await process.close()
    assert process.leases.held == {}


@MODES
@virtual
async def test_the_first_in_line_follows_a_leader_that_leaves(mode: SingleFlight) -> None:
    process = Process(Leases(), mode)
    tasks = process.start(5)
    await asyncio.sleep(WORK_S / 2)
    await gone(tasks[0])
    await asyncio.sleep(WORK_S / 2)
    late = process.start()
    entries = await asyncio.gather(*tasks[1:], *late)
    assert now() == pytest.approx(1.5 * WORK_S, abs=0.1)
    assert len({id(entry) for entry in entries}) == 1
    assert (process.computed, process.outcomes) == (2, {"led": 1, "reelected": 1, "followed": 4})
    await process.close()
    assert len(process.leases.asked) == (1 if mode == "cluster" else 0), "the same lease"
    assert process.leases.held == {}


@MODES
@virtual
async def test_leaders_may_leave_one_after_another(mode: SingleFlight) -> None:
    process = Process(Leases(), mode)
    tasks = process.start(4)
    for task in tasks[:3]:
        await asyncio.sleep(WORK_S / 2)
        await gone(task)
    assert await tasks[3]
    assert (process.computed, process.outcomes) == (4, {"led": 1, "reelected": 3})
    await process.close()


@MODES
@virtual
async def test_a_leader_that_leaves_alone_leaves_nothing(mode: SingleFlight) -> None:
    process = Process(Leases(), mode)
    (task,) = process.start(work=never)
    await asyncio.sleep(WORK_S)
    await gone(task)
    assert len(process.flights) == 0
    await asyncio.sleep(1)
    assert process.leases.held == {}
    await process.close()


@virtual
async def test_a_follower_that_is_elected_and_gone_at_once_passes_it_on() -> None:
    process = Process(Leases())
    leader, elected, last = process.start(3, work=works)
    await asyncio.sleep(WORK_S / 2)
    leader.cancel()
    await asyncio.sleep(0)  # the leader has left; the one that was elected does not know it yet
    assert not elected.done()
    await gone(elected)
    assert await last
    assert process.outcomes == {"led": 1, "reelected": 1}
    await process.close()


@virtual
async def test_a_cancelled_follower_leaves_its_place() -> None:
    process = Process(Leases(), limits=Limits(max_followers=1))
    leader, follower = process.start(2)
    await asyncio.sleep(WORK_S / 2)
    await gone(follower)
    (next_one,) = process.start()
    assert await next_one is await leader
    assert process.outcomes == {"led": 1, "followed": 1}
    await process.close()


@virtual
async def test_a_leader_that_leaves_while_it_asks_for_the_lease() -> None:
    process = Process(Leases())
    leader, follower = process.start(2)
    await asyncio.sleep(LATENCY_S / 2)
    await gone(leader)
    assert await follower
    assert process.outcomes == {"reelected": 1}
    assert len(process.leases.asked) == 1
    await process.close()
    assert process.leases.held == {}


# Limits


@virtual
async def test_more_followers_than_allowed_compute_alone() -> None:
    process = Process(Leases(), limits=Limits(max_followers=3))
    await asyncio.gather(*process.start(6))
    assert (process.computed, process.outcomes) == (3, {"led": 1, "followed": 3, "alone": 2})
    await process.close()


@virtual
async def test_more_keys_than_allowed_compute_alone() -> None:
    process = Process(Leases(), limits=Limits(max_keys=2))
    await asyncio.gather(*(process.ask(key=key) for key in ("a", "b", "c", "a", "c")))
    assert process.outcomes == {"led": 2, "followed": 1, "alone": 2}
    await process.close()


@virtual
async def test_a_follower_waits_no_longer_than_allowed() -> None:
    process = Process(Leases(), "process", Limits(follow_s=5))
    (leader,), (follower,) = process.start(work=never), process.start()
    assert await follower
    assert now() == pytest.approx(5 + WORK_S)
    assert process.outcomes == {"led": 1, "timeout": 1}
    await gone(leader)
    await process.close()


@virtual
async def test_a_leader_that_never_ends_is_forgotten() -> None:
    process = Process(Leases(), limits=Limits(lead_s=100, follow_s=200))
    forgotten = await process.flights.join(NAMESPACE, KEY, 0)
    await forgotten.claim()
    await asyncio.sleep(90)
    (waiting,) = process.start()
    await asyncio.sleep(10)
    (leader,) = process.start()
    assert await waiting is not await leader
    forgotten.landed(make_entry())
    forgotten.written()
    assert process.outcomes == {"led": 2, "alone": 1}
    await process.close()
    assert process.leases.held == {}
