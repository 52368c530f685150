"""A fleet of simulated engines in virtual time: the engines' scheduler and block cache and the router's index, cost model and policies are
the production code; only the clock and the network between them are not.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

import numpy as np

from benchmarks.report import Row
from cache.prefix.events import Event
from deployments.config import SimulatedEngineConfig
from deployments.engines.simulated.blocks import TokenSequence
from deployments.engines.simulated.scheduler import Request, Scheduler

NETWORK_S = 0.001
"""From a replica to the ingress: tokens and cache events arrive that much later."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request of a trace."""

    at_s: float
    prompt: array[int]
    answer_tokens: int


@dataclass(slots=True, eq=False, kw_only=True)
class Job(Request):
    """A request on a replica."""

    number: int
    replica: int
    at_s: float
    first_s: float = 0.0
    end_s: float = 0.0

    @property
    def ttft_s(self) -> float:
        return self.first_s - self.at_s

    @property
    def tpot_s(self) -> float | None:
        """Between two tokens, on the average of one answer."""
        return (self.end_s - self.first_s) / (self.answer_tokens - 1) if self.answer_tokens > 1 else None


class System(Protocol):
    """A way to choose replicas. Times are seconds of the simulation."""

    def choose(self, number: int, prompt: array[int], answer_tokens: int) -> int:
        """The replica for a request, which is sent there at once. `answer_tokens` is what its client allows."""

    def sent(self, number: int) -> None:
        """It has reached its replica."""

    def first_token(self, number: int) -> None: ...

    def ended(self, number: int) -> None: ...

    def events(self, replica: int, events: list[Event]) -> None:
        """What an engine told of its cache at the end of a step."""

    def close(self) -> None: ...


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class Replica:
    scheduler: Scheduler[Job]
    is_busy: bool = False
    busy_s: float = 0.0


@dataclass(slots=True)
class Fleet:
    """Replays arrivals. `run` may be called once."""

    config: SimulatedEngineConfig
    size: int
    system: System
    clock: Clock
    jobs: list[Job] = field(default_factory=list)
    replicas: list[Replica] = field(default_factory=list)
    rejected: int = 0
    _agenda: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = field(default_factory=list)
    _order: count[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.replicas = [Replica(Scheduler(self.config)) for _ in range(self.size)]

    def run(self, arrivals: Iterable[Arrival]) -> None:
        for number, arrival in enumerate(arrivals):
            self._until(arrival.at_s)
            self._arrive(number, arrival)
        self._until(float("inf"))
        self.system.close()

    def _until(self, end: float) -> None:
        while self._agenda and self._agenda[0][0] <= end:
            self.clock.now, _, act, args = heapq.heappop(self._agenda)
            act(*args)
        if end < float("inf"):
            self.clock.now = end

    def _at(self, time: float, act: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self._agenda, (time, next(self._order), act, args))

    def _choose(self, number: int, arrival: Arrival) -> tuple[int, array[int]]:
        """The replica, and what it is sent."""
        return self.system.choose(number, arrival.prompt, arrival.answer_tokens), arrival.prompt

    def _arrive(self, number: int, arrival: Arrival) -> None:
        place, prompt = self._choose(number, arrival)
        self._at(arrival.at_s + 2 * NETWORK_S, self.system.sent, number)
        answer = np.random.default_rng(number).integers(1 << 31, 1 << 32, arrival.answer_tokens, dtype=np.uint32)
        tokens = array("I", prompt.tobytes() + answer.tobytes())
        sequence = TokenSequence(tokens, self.config.block_size)
        job = Job(
            sequence=sequence,
            prompt_tokens=len(prompt),
            answer_tokens=arrival.answer_tokens,
            number=number,
            replica=place,
            at_s=arrival.at_s,
            max_offload_tokens=self._offloaded(arrival),
        )
        try:
            self._add(job)
        except ValueError:
            self.rejected += 1
            self.system.ended(number)
            return
        self.jobs.append(job)

    def _offloaded(self, arrival: Arrival) -> int | None:
        """Tokens of the prompt that are worth keeping in the host's memory; None: all."""
        return None

    def _add(self, job: Job) -> None:
        """Raises `ValueError` if it fits no engine."""
        self.replicas[job.replica].scheduler.add(job)
        if not self.replicas[job.replica].is_busy:
            self._step(job.replica)

    def _step(self, place: int) -> None:
        replica, now = self.replicas[place], self.clock.now
        result = replica.scheduler.step(now)
        if result.events:
            self._at(now + NETWORK_S, self.system.events, place, result.events)
        for job in result.tokens:
            if job.generated == 1:
                job.first_s = now
                self._at(now + NETWORK_S, self.system.first_token, job.number)
        for job in result.finished:
            job.end_s = now
            job.sequence = None  # type: ignore[assignment]  # a trace's tokens do not fit the memory
            self._at(now + NETWORK_S, self.system.ended, job.number)
        replica.is_busy = result.duration_s is not None
        if result.duration_s is not None:
            replica.busy_s += result.duration_s
            self._at(now + result.duration_s, self._step, place)


def summary(fleet: Fleet, skip: int = 0) -> Row:
    """What the requests met, but for the first ones, in the columns that all fleet benchmarks have.

    `max_mean_load` is of the seconds that engines were busy.
    """
    jobs = [job for job in fleet.jobs if job.number >= skip]
    done = [job for job in jobs if job.end_s]
    ttft = [job.ttft_s for job in done]
    tpot = [tpot for job in done if (tpot := job.tpot_s) is not None]
    prompts = sum(job.prompt_tokens for job in done)
    makespan = max(job.end_s for job in done) - min(job.at_s for job in done)
    busy = [replica.busy_s for replica in fleet.replicas]
    return {
        "cached_token_share": sum(job.cached_tokens or 0 for job in done) / prompts,
        **{f"ttft_p{p}_s": quantile(ttft, p) for p in (50, 90, 99)},
        **{f"tpot_p{p}_s": quantile(tpot, p) for p in (50, 99)},
        "requests_per_s": len(done) / makespan,
        "tokens_per_s": sum(job.answer_tokens for job in done) / makespan,
        "max_mean_load": max(busy) * len(busy) / sum(busy),
        "requests": len(jobs) + fleet.rejected,
        "errors": len(jobs) - len(done),
        "rejected": fleet.rejected,
    }


def quantile(values: Sequence[float], percent: int) -> float:
    return float(np.percentile(values, percent))
