"""Processes with flights, and what they share, on an event loop whose time passes only where nothing else is to be done."""

import asyncio
import functools
import selectors
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from cache.entry import Entry
from serve_app.flights import Flights, SingleFlight, Ticket
from serve_app.flights_lease import Key, Limits
from tests.cache.entries import make_entry
from tests.serve_app.fakes import CANARY, Fault
from tests.serve_app.recorded import RecordedMetrics

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
        return Counter(outcome for _, outcome in self.metrics.operations)

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
