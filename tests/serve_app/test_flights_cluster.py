"""Who computes, who waits and for how long, among processes that share leases."""

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.flights_lease import LONGEST_PAUSE_S, Key, Limits
from tests.cache.entries import make_entry
from tests.serve_app.fakes import CANARY, Fault
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


@virtual
async def test_equal_requests_of_two_processes_are_computed_once() -> None:
    leases = Leases()
    processes = [Process(leases), Process(leases)]
    entries = await asyncio.gather(*(each.ask() for _ in range(100) for each in processes))
    assert len({entry.id for entry in entries if entry}) == 1
    assert None not in entries
    assert sum((each.outcomes for each in processes), Counter()) == {"led": 1, "followed": 199}
    assert now() < WORK_S + 2 * LONGEST_PAUSE_S
    for each in processes:
        await each.close()
    assert leases.held == {}


@virtual
async def test_an_uncontended_miss_asks_once_and_releases_after_the_write() -> None:
    process = Process(Leases())
    process.write_s = 5
    await process.ask()
    assert process.leases.held, "not while the entry is on its way"
    await process.close()
    assert process.leases.asked == [0]
    ((released_at, entry_was_there),) = process.leases.released
    assert entry_was_there
    assert released_at == pytest.approx(WORK_S + process.write_s, abs=0.1)


@virtual
async def test_an_entry_that_is_there_by_now_is_followed() -> None:
    leases = Leases()
    leases.entries[NAMESPACE, KEY] = entry = make_entry()
    process = Process(leases)
    assert await asyncio.gather(*process.start(3)) == [entry] * 3
    assert (process.computed, process.outcomes) == (0, {"followed": 3})
    await process.close()


@pytest.mark.parametrize("work", [fails, not_kept])
@virtual
async def test_when_another_process_has_nothing_this_one_leads(work: Any) -> None:
    leases = Leases()
    first, second = Process(leases), Process(leases)
    theirs = first.start(work=work)
    await asyncio.sleep(0.1)
    await asyncio.gather(*second.start(5))
    await asyncio.wait(theirs)
    assert [bool(task.exception()) for task in theirs] == [work is fails]
    assert (second.computed, second.outcomes) == (1, {"led": 1, "followed": 4})
    assert now() < 2 * WORK_S + 2 * LONGEST_PAUSE_S
    for each in (first, second):
        await each.close()
    assert leases.held == {}


@virtual
async def test_the_lease_of_a_dead_process_passes_on_when_it_ends() -> None:
    leases = Leases()
    leases.held[Key(NAMESPACE, KEY, 0)] = "dead", 7.0
    process = Process(leases)
    await asyncio.gather(*process.start(5))
    assert 7 + WORK_S < now() < 7 + WORK_S + 2 * LONGEST_PAUSE_S
    assert (process.computed, process.outcomes) == (1, {"led": 1, "followed": 4})
    await process.close()


@virtual
async def test_a_process_that_takes_too_long_is_not_waited_for() -> None:
    leases = Leases()
    leases.held[Key(NAMESPACE, KEY, 0)] = "slow", 1000.0
    process = Process(leases)
    await asyncio.gather(*process.start(5))
    assert 10 + WORK_S < now() < 10 + WORK_S + 2 * LONGEST_PAUSE_S
    assert (process.computed, process.outcomes) == (1, {"timeout": 1, "followed": 4}), "still once in this process"
    await process.close()
    assert leases.held[Key(NAMESPACE, KEY, 0)] == ("slow", 1000.0)


@virtual
async def test_polls_start_soon_and_become_rarer() -> None:
    leases = Leases()
    leases.held[Key(NAMESPACE, KEY, 0)] = "slow", 1000.0
    process = Process(leases, chance=0.5)
    await process.ask()
    pauses = [later - earlier - LATENCY_S for earlier, later in zip(leases.asked, leases.asked[1:], strict=False)]
    assert pauses[:5] == pytest.approx([0.75 * pause for pause in (0.02, 0.04, 0.08, 0.16, 0.25)])
    assert pauses[4:] == pytest.approx([0.75 * 0.25] * len(pauses[4:]))
    await process.close()


@virtual
async def test_nobody_polls_for_clients_that_have_left() -> None:
    leases = Leases()
    leases.held[Key(NAMESPACE, KEY, 0)] = "slow", 1000.0
    process = Process(leases)
    (task,) = process.start()
    await asyncio.sleep(1)
    await gone(task)
    await asyncio.sleep(LATENCY_S)
    asked = len(leases.asked)
    await asyncio.sleep(10)
    assert len(leases.asked) == asked
    await process.close()


@virtual
async def test_a_lease_is_prolonged_while_its_leader_works() -> None:
    leases = Leases()
    first, second = Process(leases), Process(leases)

    async def long() -> bool:
        await asyncio.sleep(100)
        return True

    (theirs,) = first.start(work=long)
    await asyncio.sleep(95)
    assert await second.ask() == await theirs
    assert second.outcomes == {"followed": 1}
    assert [at for at in leases.asked if at < 95] == pytest.approx([15 * n for n in range(7)], abs=0.1)
    for each in (first, second):
        await each.close()
    assert leases.held == {}


@virtual
async def test_a_lease_whose_write_is_never_reported_is_given_back_in_the_end() -> None:
    process = Process(Leases(), limits=Limits(lead_s=100))
    ticket = await process.flights.join(NAMESPACE, KEY, 0)
    await ticket.claim()
    ticket.landed(make_entry())
    await asyncio.sleep(90)
    assert process.leases.held
    await asyncio.sleep(30)
    assert process.leases.held == {}
    await process.close()


@virtual
async def test_a_lost_lease_is_neither_prolonged_nor_taken_back() -> None:
    process = Process(Leases())
    ticket = await process.flights.join(NAMESPACE, KEY, 0)
    await ticket.claim()
    process.leases.held[Key(NAMESPACE, KEY, 0)] = "another", 1000.0
    await asyncio.sleep(100)
    assert len(process.leases.asked) == 2
    ticket.ended()
    await process.close()
    assert process.leases.held == {Key(NAMESPACE, KEY, 0): ("another", 1000.0)}


@virtual
async def test_work_after_an_invalidation_does_not_wait_for_work_from_before_it() -> None:
    leases = Leases()
    first, second = Process(leases), Process(leases)
    (old,) = first.start(work=never)
    await asyncio.sleep(0.1)
    assert await second.ask(epoch=1)
    assert now() == pytest.approx(0.1 + WORK_S + LATENCY_S)
    await gone(old)
    for each in (first, second):
        await each.close()


# Broken caches


@pytest.mark.parametrize("fault", [Fault(RuntimeError(CANARY)), Fault(hangs=True)], ids=["error", "hangs"])
@virtual
async def test_without_the_cache_each_process_computes_once(fault: Fault) -> None:
    leases = Leases(fault)
    processes = [Process(leases), Process(leases)]
    await asyncio.gather(*(each.ask() for _ in range(20) for each in processes))
    assert now() < WORK_S + 0.6
    assert [each.outcomes for each in processes] == [{"led": 1, "followed": 19}] * 2
    for each in processes:
        await each.close()


@virtual
async def test_a_cache_that_breaks_while_another_process_is_waited_for() -> None:
    leases = Leases()
    leases.held[Key(NAMESPACE, KEY, 0)] = "slow", 1000.0
    process = Process(leases)
    tasks = process.start(3)
    await asyncio.sleep(2)
    leases.fault.error = RuntimeError()
    await asyncio.gather(*tasks)
    assert now() < 2 + WORK_S + 2 * LONGEST_PAUSE_S
    assert process.outcomes == {"led": 1, "followed": 2}
    await process.close()


@virtual
async def test_a_release_that_fails_or_hangs_delays_nobody() -> None:
    process = Process(Leases())
    (task,) = process.start()
    await asyncio.sleep(WORK_S / 2)
    process.leases.fault.hangs = True
    assert await task
    assert now() == pytest.approx(WORK_S + LATENCY_S)
    await process.close()
    assert now() < WORK_S + 1
    assert process.leases.held, "until its time is over"


@virtual
async def test_a_cache_that_comes_back_gives_the_lease_that_was_missed() -> None:
    leases = Leases(Fault(RuntimeError()))
    process = Process(leases)
    ticket = await process.flights.join(NAMESPACE, KEY, 0)
    assert await ticket.claim() is None
    leases.fault.error = None
    await asyncio.sleep(20)
    assert leases.held
    ticket.ended()
    await process.close()
    assert leases.held == {}


# Whatever happens

PATIENCE_S = 700.0


class Chaos:
    """Requests to two processes with random fates."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.leases = Leases()
        limits = Limits(max_keys=self.random.choice([2, 100]), max_followers=self.random.choice([1, 3, 100]), follow_s=20)
        self.processes = [Process(self.leases, "cluster", limits, self.random.random()) for _ in range(2)]
        self.faults = self.random.choice([0, 3])

    async def request(self) -> None:
        await asyncio.sleep(self.random.choice([0.0, self.random.uniform(0, 5)]))
        name = self.random.choice(["a1", "a2"]), self.random.choice(["k1", "k2"]), self.random.choice([0, 0, 1])
        work_s, fate = self.random.choice([0.0, 0.5, 3.0, 40.0]), self.random.choice([works, works, not_kept, fails])

        async def work() -> bool:
            await asyncio.sleep(work_s)
            return await fate()

        task = asyncio.create_task(self.random.choice(self.processes).ask(*name, work=work))
        await asyncio.wait([task], timeout=self.random.choice([0.0, 0.001, 1.0, 1.0 + LATENCY_S, 10.0, PATIENCE_S, PATIENCE_S]))
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and not task.exception() and (entry := task.result()):
            assert (entry.namespace, entry.exact_key) == name[:2]

    async def break_the_cache(self) -> None:
        for _ in range(self.faults):
            await asyncio.sleep(self.random.uniform(0, 3))
            self.leases.fault.error = self.random.choice([None, RuntimeError()])
            self.leases.fault.hangs = self.random.random() < 0.3
        self.leases.fault.error, self.leases.fault.hangs = None, False

    async def run(self) -> None:
        await asyncio.gather(*(self.request() for _ in range(40)), self.break_the_cache())


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32))
@virtual
async def test_nothing_leaks_and_nobody_gets_anothers_answer(seed: int) -> None:
    chaos = Chaos(seed)
    await chaos.run()
    assert [len(each.flights) for each in chaos.processes] == [0, 0]
    for each in chaos.processes:
        await each.close()
    assert chaos.faults or chaos.leases.held == {}


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32))
@virtual
async def test_one_computation_at_a_time_while_nothing_breaks(seed: int) -> None:
    """Clients come and leave as they like; answers take less than what others wait."""
    chance, leases = random.Random(seed), Leases()
    processes = [Process(leases), Process(leases)]
    working = [0]

    async def work() -> bool:
        working[0] += 1
        assert working[0] == 1
        try:
            return await works()
        finally:
            working[0] -= 1

    async def request() -> None:
        await asyncio.sleep(chance.uniform(0, 0.5))
        task = asyncio.create_task(chance.choice(processes).ask(work=work))
        await asyncio.wait([task], timeout=chance.choice([0.3, 1.0, PATIENCE_S]))
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or task.result()

    await asyncio.gather(*(request() for _ in range(30)))
    for each in processes:
        await each.close()
    assert leases.held == {}
