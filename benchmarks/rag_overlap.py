"""How much of a search's time is hidden by prefilling its provisional documents, on simulated engines.

    python -m benchmarks.rag_overlap                 # in virtual time
    python -m benchmarks.rag_overlap --over http     # the real application: see `rag_overlap_http`

In virtual time planner, router, the gate that decides about head starts, and the engines are the production code. A search has a
provisional result after `--first` of its time, which is the final one with a chance of `--agreement`, and else has one document that is not
(`vector_search` measures both of staged searches). `search_hidden_share`: of the search's time, what the mean time to the first token does
not show, against searches that take no time.
"""

from __future__ import annotations

import argparse
import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np

from benchmarks import rag_fleet, report
from benchmarks.fleet import Arrival, Clock, Job, summary
from benchmarks.rag_fleet import WARM_UP, Documents, RagArrival, RagFleet
from benchmarks.rag_workload import RagRequest, Workload
from benchmarks.report import Row, say
from deployments.engines.simulated.blocks import TokenSequence
from deployments.engines.simulated.scheduler import State
from deployments.head_start import HeadStart
from retrieval.speculation import Gate

SYSTEMS = ("no_search", "sequential", "ours")
DEFAULTS = {
    "virtual": {"replicas": 4, "requests": 750, "documents": 20_000, "kv_tokens": 125_000, "host_tokens": 250_000, "load": "0.2,0.9"},
    "http": {"replicas": 4, "requests": 50, "documents": 4000, "kv_tokens": 75_000, "host_tokens": 0, "load": "0.1,0.9"},
}
QUICK = {
    "virtual": {"requests": 100, "documents": 1000, "kv_tokens": 20_000, "host_tokens": 40_000, "search_ms": "50", "load": "0.2"},
    "http": {"replicas": 2, "requests": 15, "filling": 10, "rounds": 1, "documents": 1000, "search_ms": "100", "load": "0.5"},
}


class Case(NamedTuple):
    """One replay."""

    system: str
    search_ms: float
    load: float
    rate: float
    options: argparse.Namespace


@dataclass(slots=True)
class OverlapFleet(RagFleet):
    """A fleet whose requests are searched for first."""

    search_s: float = 0.0
    first: float = 0.0
    agreement: float = 1.0
    starts_early: bool = False
    gate: Gate = field(default_factory=Gate)
    begun: int = 0
    wasted: int = 0
    """Tokens that head starts computed and no final prompt had."""
    _chance: random.Random = field(default_factory=lambda: random.Random(0))
    _starts: dict[int, tuple[HeadStart, Job]] = field(default_factory=dict)

    def _arrive(self, number: int, arrival: Arrival) -> None:
        assert isinstance(arrival, RagArrival)  # noqa: S101
        if not self.search_s:
            RagFleet._arrive(self, number, arrival)
            return
        agrees = self._chance.random() < self.agreement
        if self.starts_early:
            provisional = arrival.request if agrees else self._other(arrival.request)
            self._at(arrival.at_s + self.first * self.search_s, self._provisional, number, provisional)
        lasting = 1.0 if agrees else (len(arrival.request.documents) - 1) / len(arrival.request.documents)
        self._at(arrival.at_s + self.search_s, self._final, number, arrival, lasting)

    def _other(self, request: RagRequest) -> RagRequest:
        """With another document in the last place."""
        assert self.documents  # noqa: S101
        other = self._chance.randrange(self.documents.workload.count)
        return replace(request, documents=(*request.documents[:-1], other))

    def _provisional(self, number: int, request: RagRequest) -> None:
        assert self.documents  # noqa: S101
        if not self.gate.is_worth_planning:
            return
        plan = self.documents.plan(request, with_question=False)
        if not self.gate.opens(plan.seconds, plan.backlog_s):
            plan.routed.end()
            return
        self.begun += 1
        sequence = TokenSequence(array("I", [*plan.tokens.tolist(), (1 << 31) + number]), self.config.block_size)
        job = Job(
            sequence=sequence,
            prompt_tokens=len(plan.tokens),
            answer_tokens=1,
            number=-1 - number,
            replica=int(plan.routed.replicas[0]),
            at_s=self.clock.now,
        )
        self._starts[number] = HeadStart(plan, self.clock), job
        self.documents.ours.routed[job.number] = plan.routed
        self._add(job)

    def _final(self, number: int, arrival: RagArrival, lasting: float) -> None:
        assert self.documents  # noqa: S101
        start = self._starts.pop(number, None)
        if start:
            start[0].leave()
            if start[1].state is not State.ENDED:
                del self.documents.ours.routed[start[1].number]
            self.replicas[start[1].replica].scheduler.abort(start[1])
        self.gate.seen((1 - self.first) * self.search_s, lasting)
        RagFleet._arrive(self, number, replace(arrival, at_s=self.clock.now))
        self.jobs[-1].at_s = arrival.at_s
        final = self.documents.last
        assert final  # noqa: S101
        used, wasted = start[0].spent(final) if start else (0, 0)
        self.gate.spent(used + wasted + final.routed.prompt.tokens - final.routed.predicted, wasted)
        if start:
            self._count(*start)

    def _count(self, start: HeadStart, job: Job) -> None:
        assert self.documents  # noqa: S101
        final = self.documents.last
        assert final  # noqa: S101
        computed = job.computed - (job.cached_tokens or 0)
        length = min(len(start.plan.tokens), len(final.tokens))
        differing = np.flatnonzero(start.plan.tokens[:length] != final.tokens[:length])
        common = int(differing[0]) if len(differing) else length
        useful = max(common - (job.cached_tokens or 0), 0) if self.jobs[-1].replica == job.replica else 0
        self.wasted += max(computed - useful, 0)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("rag_overlap", "Time to the first token by what happens while documents are searched for.")
    parser.add_argument("--over", choices=tuple(DEFAULTS), default="virtual", help="virtual time, or HTTP")
    parser.add_argument("--search-ms", type=report.several(float), default="20,50,100", help="what a search takes, comma-separated")
    parser.add_argument("--load", type=report.several(float), help="shares of the fleet's capacity, comma-separated")
    parser.add_argument("--first", type=float, default=0.14, help="share of a search's time after which there is a provisional result")
    parser.add_argument("--agreement", type=float, default=0.93, help="chance that the provisional result is final")
    parser.add_argument("--k", type=int, default=5, help="documents of a request")
    parser.add_argument("--replicas", type=int)
    parser.add_argument("--requests", type=int, help="for each replica")
    parser.add_argument("--documents", type=int)
    parser.add_argument("--kv-tokens", type=int, help="that one replica holds on the device")
    parser.add_argument("--host-tokens", type=int, help="that one replica holds in the host's memory")
    parser.add_argument("--answer", type=int, default=6, help="median length of an answer, in tokens; over HTTP all have 8")
    parser.add_argument("--max-displacement", type=int, default=4)
    parser.add_argument("--processes", type=int, default=2, help="replays that run at the same time, in virtual time")
    parser.add_argument("--filling", type=int, default=40, help="over HTTP: requests for each replica that fill the caches")
    parser.add_argument("--rounds", type=int, default=2, help="over HTTP")
    options = parser.parse_args(arguments)
    for name, value in DEFAULTS[options.over].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.quick:
        vars(options).update(QUICK[options.over])
    report.show("rag_overlap", options, replayed(options) if options.over == "virtual" else over_http(options))


def over_http(options: argparse.Namespace) -> list[Row]:
    from benchmarks.rag_overlap_http import measured  # the whole application, seconds to import

    return measured(options)


def replayed(options: argparse.Namespace) -> list[Row]:
    options.reorder_window = 0
    with get_context("spawn").Pool(options.processes, maxtasksperchild=1) as pool:
        full = rag_fleet.Case("round_robin", options.k, options.replicas, 0, 0.0, None, options)
        capacity = pool.apply(rag_fleet.replay, (full,))["requests_per_s"]
        say(f"capacity: {capacity:.2f} requests/s")
        cases = [
            Case(system, search_ms, load, load * capacity, options)
            for load in map(float, options.load.split(","))
            for search_ms in map(float, options.search_ms.split(","))
            for system in SYSTEMS
        ]
        rows = pool.map(replay, cases, chunksize=1)
    for row in rows:
        row["search_hidden_share"] = hidden(row, rows)
    return rows


def replay(case: Case) -> Row:
    options, clock = case.options, Clock()
    workload = Workload(options.documents, seed=options.seed)
    config = rag_fleet.engine("ours", options)
    documents = Documents("ours", workload, config, options.replicas, clock, options.max_displacement)
    fleet = OverlapFleet(
        config,
        options.replicas,
        documents.ours,
        clock,
        documents=documents,
        search_s=0.0 if case.system == "no_search" else case.search_ms / 1000,
        first=options.first,
        agreement=options.agreement,
        starts_early=case.system == "ours",
    )
    fleet.run(rag_fleet.arrivals(workload, rag_fleet.Case("ours", options.k, options.replicas, 0, case.load, case.rate, options)))
    skip = int(WARM_UP * options.requests * options.replicas)
    made = summary(fleet, skip)
    jobs = [job for job in fleet.jobs if job.number >= skip and job.end_s]
    prefilled = sum(job.prompt_tokens - (job.cached_tokens or 0) for job in fleet.jobs)
    say(f"{case.system}, {case.search_ms:.0f} ms, load {case.load}")
    return {
        "system": case.system,
        "search_ms": case.search_ms,
        "load": case.load,
        "ttft_mean_s": float(np.mean([job.ttft_s for job in jobs])),
        **made,
        "head_starts": fleet.begun,
        "wasted_token_share": fleet.wasted / (prefilled + fleet.wasted),
    }


def hidden(row: Row, rows: list[Row]) -> float | None:
    """Of the search's time."""
    if row["system"] == "no_search":
        return None
    case = row["search_ms"], row["load"]
    without = next(each for each in rows if each["system"] == "no_search" and (each["search_ms"], each["load"]) == case)
    return float(1 - (row["ttft_mean_s"] - without["ttft_mean_s"]) / (row["search_ms"] / 1000))


if __name__ == "__main__":
    main()
