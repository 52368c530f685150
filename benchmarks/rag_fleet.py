"""Requests with retrieved documents on a fleet of simulated engines, in virtual time, by how documents are ordered and replicas chosen.

    python -m benchmarks.rag_fleet                                             # five documents a request, four replicas
    python -m benchmarks.rag_fleet --k 1,2,5 --replicas 4,8 --load 0.6,0.9 --drift 0,2000

Planner, router, prefix index and the engines' schedulers, caches and eviction policies are the production code. A load of 1 is what the
fleet completes under round robin when all requests come at once. `slo_per_s`: requests a second whose first token came within five times
what it takes on an idle engine with nothing cached. The first 30 % of the requests fill the caches and are not counted.
"""

from __future__ import annotations

import argparse
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np

from benchmarks import report
from benchmarks.fleet import Arrival, Clock, Fleet, summary
from benchmarks.rag_workload import RagRequest, Traffic, Workload
from benchmarks.report import Row, say
from benchmarks.systems import Ours
from cache.prefix.profile import PrefillProfile
from cache.prefix.router import LeastCost, Policy, RoundRobin
from cache.prefix.turns import Turns
from deployments.config import SimulatedEngineConfig
from retrieval.eviction.factory import PolicyName
from retrieval.order import Ranks, displacement
from retrieval.planner import Pieces, Plan, Planner

SYSTEMS = ("round_robin", "kv_aware_retrieval_order", "id_sorted", "greedy_order", "ours_lru", "ours_lfu", "ours")
BLOCK = 32
BACKLOG_S = 0.1
"""Of predicted prefill on a replica that needs no more for now."""
HOST_POLICIES: dict[str, PolicyName] = {"ours_lfu": "lfu", "ours": "pgdsf"}
"""What evicts blocks from the host's memory; on the device it is always the least recently used that goes, as in vLLM."""
SLO = 5.0
"""Multiples of the idle engine's time to the first token."""
WARM_UP = 0.3


class Case(NamedTuple):
    """One replay. `rate`: requests a second; None: all at once."""

    system: str
    k: int
    replicas: int
    drift: int
    load: float
    rate: float | None
    options: argparse.Namespace


@dataclass(frozen=True, slots=True)
class RagArrival(Arrival):
    request: RagRequest


class Documents:
    """A way to choose the order of the documents and the replica."""

    def __init__(
        self, name: str, workload: Workload, config: SimulatedEngineConfig, replicas: int, clock: Clock, displacement: int
    ) -> None:
        self._name = name
        self.workload = workload
        self._max_displacement = displacement
        self.ours = Ours(config, replicas, clock, round_robin if name in ("round_robin", "greedy_order") else LeastCost)
        self._planner = Planner(self.ours.router, clock)
        self._clock = clock
        self._turn = 0
        self.is_planned = name.startswith("ours")
        self._replicas = [str(number) for number in range(replicas)]
        self.tokens: list[int] = []
        """Of all documents of each request."""
        self.displaced: list[int] = []
        self.decision_s = 0.0
        self.last: Plan | None = None

    def choose(self, arrival: RagArrival) -> tuple[int, array[int]]:
        request = arrival.request
        self.tokens.append(int(self.workload.documents[list(request.documents)].sum()))
        if self._name.startswith("ours") or self._name == "greedy_order":
            return self._planned(request)
        order = tuple(sorted(range(len(request.documents)), key=request.documents.__getitem__)) if self._name == "id_sorted" else None
        prompt = self.workload.prompt(request, order and [request.documents[hit] for hit in order])
        return self.ours.choose(request.number, prompt, request.answer_tokens), prompt

    def _planned(self, request: RagRequest) -> tuple[int, array[int]]:
        self.last = plan = self.plan(request)
        self.displaced.append(displacement(plan.order))
        self.ours.routed[request.number] = plan.routed
        return int(plan.routed.replicas[0]), array("I", plan.tokens.astype(np.uint32).tobytes())

    def has_room(self) -> bool:
        now = self._clock()
        return any(self.ours.router.ledger(replica).backlog_s(now) <= BACKLOG_S for replica in self._replicas)

    def cached(self, request: RagRequest) -> tuple[int, int]:
        """Tokens that some replica holds of the prompt, and all of them."""
        pieces, ranks = self._pieces(request, True)
        return self._planner.cached(self.ours.keys, self.ours.root, pieces, ranks), len(pieces)

    def _pieces(self, request: RagRequest, with_question: bool) -> tuple[Pieces, Ranks]:
        documents = [np.frombuffer(self.workload.tokens(document), np.uint32) for document in request.documents]
        empty = np.empty(0, np.uint32)
        tail = np.frombuffer(self.workload.prompt(request, ()), np.uint32) if with_question else empty
        pieces = Pieces(empty, documents, tail, [str(document) for document in request.documents])
        return pieces, Ranks(request.scores, self._max_displacement)

    def plan(self, request: RagRequest, with_question: bool = True) -> Plan:
        replicas = self._replicas
        if self._name == "greedy_order":
            self._turn += 1
            replicas = [replicas[self._turn % len(replicas)]]
        pieces, ranks = self._pieces(request, with_question)
        began = time.process_time()  # other replays run on the same cores
        plan = self._planner.plan(self.ours.keys, self.ours.root, pieces, ranks, replicas, is_counted=with_question)
        self.decision_s += time.process_time() - began
        return plan


@dataclass(slots=True)
class RagFleet(Fleet):
    """A fleet whose prompts are put together when the replica is chosen."""

    documents: Documents = field(kw_only=True)
    turns: Turns[int] | None = None
    _held: dict[int, RagArrival] = field(default_factory=dict)

    def _arrive(self, number: int, arrival: Arrival) -> None:
        assert isinstance(arrival, RagArrival)  # noqa: S101
        if self.turns is None or (not self._held and self.documents.has_room()):
            Fleet._arrive(self, number, arrival)
            return
        self._held[number] = arrival
        cached, tokens = self.documents.cached(arrival.request)
        self.turns.add(number, cached, tokens - cached)

    def _step(self, place: int) -> None:
        Fleet._step(self, place)
        while self.turns and self.documents.has_room():
            number = self.turns.pop()
            arrival = self._held.pop(number)
            Fleet._arrive(self, number, replace(arrival, at_s=self.clock.now))
            self.jobs[-1].at_s = arrival.at_s

    def _choose(self, number: int, arrival: Arrival) -> tuple[int, array[int]]:
        assert isinstance(arrival, RagArrival)  # noqa: S101
        return self.documents.choose(arrival)

    def _offloaded(self, arrival: Arrival) -> int | None:
        return self.documents.tokens[-1] if self.documents.is_planned else None


def round_robin(profile: PrefillProfile) -> Policy:
    return RoundRobin()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser(
        "rag_fleet", "Cached document tokens and latencies of a simulated fleet, by order of documents and choice of replica."
    )
    parser.add_argument("--k", type=report.several(int), default="5", help="documents of a request, comma-separated")
    parser.add_argument("--replicas", type=report.several(int), default="4", help="engines of the fleet, comma-separated")
    parser.add_argument("--load", type=report.several(float), default="0.6,0.9", help="shares of the fleet's capacity, comma-separated")
    parser.add_argument(
        "--drift", type=report.several(int), default="0", help="requests until the hot documents change, comma-separated; 0: never"
    )
    parser.add_argument("--systems", type=report.several(SYSTEMS), default=",".join(SYSTEMS), help="comma-separated")
    parser.add_argument("--requests", type=int, default=3000, help="for each replica")
    parser.add_argument("--documents", type=int, default=20_000, help="of the collection")
    parser.add_argument("--kv-tokens", type=int, default=125_000, help="that one replica holds on the device")
    parser.add_argument("--host-tokens", type=int, default=250_000, help="that one replica holds in the host's memory")
    parser.add_argument("--answer", type=int, default=6, help="median length of an answer, in tokens")
    parser.add_argument("--max-displacement", type=int, default=4, help="places that a document may be from its rank, under ours")
    parser.add_argument(
        "--reorder-window", type=int, default=0, help="of ours: by how many others a request may be overtaken before it is sent"
    )
    parser.add_argument("--processes", type=int, default=2, help="replays that run at the same time")
    options = parser.parse_args(arguments)
    if options.quick:
        options.requests, options.documents, options.kv_tokens, options.host_tokens = 150, 1000, 20_000, 40_000
    shapes = list(product(*(numbers(text) for text in (options.k, options.replicas, options.drift))))
    loads = [float(load) for load in options.load.split(",")]
    with get_context("spawn").Pool(options.processes, maxtasksperchild=1) as pool:
        full = pool.map(replay, [Case("round_robin", k, replicas, drift, 0.0, None, options) for k, replicas, drift in shapes], chunksize=1)
        capacities = [row["requests_per_s"] for row in full]
        say(f"capacity, requests/s: {', '.join(f'{capacity:.2f}' for capacity in capacities)}")
        cases = [
            Case(name, k, replicas, drift, load, load * capacity, options)
            for (k, replicas, drift), capacity in zip(shapes, capacities, strict=True)
            for load in loads
            for name in options.systems.split(",")
        ]
        rows = pool.map(replay, cases, chunksize=1)
    report.show("rag_fleet", options, rows)


def numbers(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


def replay(case: Case) -> Row:
    options, clock = case.options, Clock()
    workload = Workload(options.documents, seed=options.seed)
    config = engine(case.system, options)
    documents = Documents(case.system, workload, config, case.replicas, clock, options.max_displacement)
    turns = Turns[int](options.reorder_window) if options.reorder_window and case.system == "ours" else None
    fleet = RagFleet(config, case.replicas, documents.ours, clock, documents=documents, turns=turns)
    began = time.perf_counter()
    fleet.run(arrivals(workload, case))
    made = row(case, workload, fleet, documents)
    name = f"{case.system}, k {case.k}, {case.replicas} replicas, drift {case.drift}, load {case.load}"
    say(f"{name}: {made['cached_token_share']:.3f} cached, p50 {made['ttft_p50_s']:.3f} s, after {time.perf_counter() - began:.0f} s")
    return made


def engine(system: str, options: argparse.Namespace) -> SimulatedEngineConfig:
    blocks = options.kv_tokens // BLOCK
    return SimulatedEngineConfig(
        block_size=BLOCK,
        kv_blocks=blocks,
        max_model_len=blocks * BLOCK,
        max_running=128,
        host_blocks=options.host_tokens // BLOCK,
        host_policy=HOST_POLICIES.get(system, "lru"),
    )


def arrivals(workload: Workload, case: Case) -> Iterator[RagArrival]:
    traffic = Traffic(
        case.options.requests * case.replicas, case.k, case.rate or 1.0, drift_every=case.drift, answer_median=case.options.answer
    )
    for request in workload.requests(traffic):
        yield RagArrival(request.at_s if case.rate else 0.0, array("I"), request.answer_tokens, request)


def row(case: Case, workload: Workload, fleet: Fleet, documents: Documents) -> Row:
    skip = int(WARM_UP * case.options.requests * case.replicas) if case.rate else 0
    jobs = [job for job in fleet.jobs if job.number >= skip and job.end_s]
    made = summary(fleet, skip)
    idle_s = float(np.median([job.prompt_tokens for job in jobs])) / fleet.config.prefill_tokens_per_s
    span = max(job.end_s for job in jobs) - min(job.at_s for job in jobs)
    return {
        "system": case.system,
        "k": case.k,
        "replicas": case.replicas,
        "drift": case.drift,
        "load": case.load,
        **made,
        "cached_token_share": sum(job.cached_tokens or 0 for job in jobs) / sum(documents.tokens[job.number] for job in jobs),
        "slo_per_s": sum(job.ttft_s <= SLO * idle_s for job in jobs) / span,
        "displacement_mean": float(np.mean(documents.displaced)) if documents.displaced else None,
        "decision_us": 1e6 * documents.decision_s / len(documents.displaced) if documents.displaced else None,
    }


if __name__ == "__main__":
    main()
