"""Who computes, who waits and for how long, on an event loop whose time passes only where nothing else is to be done.

Processes that share a `Leases` stand for a cluster.
"""

import asyncio
import functools
import random
import selectors
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.entry import Entry
from serve_app.flights import ALONE, Flights, SingleFlight, Ticket
from serve_app.flights_lease import LONGEST_PAUSE_S, Key, Limits
from tests.cache.entries import make_entry
from tests.serve_app.fakes import CANARY, Fault, RecordedMetrics

NAMESPACE, KEY = "a1", "k1"
WORK_S = 1.0
"""What an answer takes."""
LATENCY_S = 0.002
"""What a call to the cache takes."""


class _Selector(selectors.DefaultSelector):
    """Lets its loop's time pass instead of waiting."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        assert ready or timeout is not None, "everything waits for ever"
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs a test on such a loop, and sees that it leaves no task behind."""

    async def checked(*args: Any, **kwargs: Any) -> None:
        await test(*args, **kwargs)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=_Loop) as runner:
            runner.run(checked(*args, **kwargs))

    return run


def now() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class Leases:
    """The shared cache: leases and entries."""

    fault: Fault = field(default_factory=Fault)
    held: dict[Key, tuple[str, float]] = field(default_factory=dict)
    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    asked: list[float] = field(default_factory=list)
    """When it was asked for a lease."""
    released: list[tuple[float, bool]] = field(default_factory=list)
    """When, and whether the entry was there by then."""

    async def acquire(self, namespace: str, key: str, epoch: int, owner: str, for_s: float) -> Entry | bool:
        self.asked.append(now())
        await asyncio.sleep(LATENCY_S)
        await self.fault.strike()
        name = Key(namespace, key, epoch)
        holder, until = self.held.get(name, (owner, 0.0))
        if holder != owner and until > now():
            return self.entries.get((namespace, key), False)
        if entry := self.entries.get((namespace, key)):
            self.held.pop(name, None)
            return entry
        self.held[name] = owner, now() + for_s
        return True

    async def release(self, namespace: str, key: str, epoch: int, owner: str) -> None:
        await asyncio.sleep(LATENCY_S)
        await self.fault.strike()
        self.released.append((now(), (namespace, key) in self.entries))
        if self.held.get(Key(namespace, key, epoch), ("", 0.0))[0] == owner:
            del self.held[Key(namespace, key, epoch)]


class Process:
    """An ingress process, and requests to it as its pipeline treats them."""

    def __init__(self, leases: Leases, mode: SingleFlight = "cluster", limits: Limits | None = None, chance: float = 1.0) -> None:
        self.metrics = RecordedMetrics()
        self.flights = Flights(leases, self.metrics, mode, limits or Limits(), lambda: chance)
        self.leases = leases
        self.computed = 0
        self.write_s = 0.01
        self._writes: set[asyncio.Task[None]] = set()

    @property
    def outcomes(self) -> Counter[str]:
        return Counter(outcome for _, outcome in self.metrics.lookups)

    async def ask(
        self, namespace: str = NAMESPACE, key: str = KEY, epoch: int = 0, work: Callable[[], Awaitable[bool]] | None = None
    ) -> Entry | None:
        """The entry that answers, one's own included. `work` computes, and says whether its answer is kept."""
        ticket = await self.flights.join(namespace, key, epoch)
        with ticket:
            if entry := await ticket.claim():
                return entry
            self.computed += 1
            kept = await (work or works)()
            entry = make_entry(namespace=namespace, exact_key=key, epoch=epoch) if kept else None
            if entry:
                self._keep(entry, ticket)
            ticket.ended()
            return entry

    def _keep(self, entry: Entry, ticket: Ticket) -> None:
        ticket.landed(entry)
        task = asyncio.create_task(self._write(entry, ticket))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def _write(self, entry: Entry, ticket: Ticket) -> None:
        await asyncio.sleep(self.write_s)
        self.leases.entries[entry.namespace, entry.exact_key] = entry
        ticket.written()

    def start(self, count: int = 1, **request: Any) -> list[asyncio.Task[Entry | None]]:
        return [asyncio.create_task(self.ask(**request)) for _ in range(count)]

    async def close(self) -> None:
        await asyncio.gather(*self._writes)
        await self.flights.stop()
        assert len(self.flights) == 0


async def works() -> bool:
    await asyncio.sleep(WORK_S)
    return True


async def not_kept() -> bool:
    await asyncio.sleep(WORK_S)
    return False


async def fails() -> bool:
    await asyncio.sleep(WORK_S)
    raise ValueError(CANARY)


async def never() -> bool:
    await asyncio.Event().wait()
    return True


async def gone(task: asyncio.Task[Entry | None]) -> None:
    """Its client leaves."""
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


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


# The cluster


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
