"""Eviction policies of the host tier, on one simulated engine in virtual time: how much prefill each saves.

    python -m benchmarks.kv_offload
    python -m benchmarks.kv_offload --k 5 --order retrieval,greedy --host 4

The documents are those of `rag_workload.py`. Scheduler, block cache, host tier and policies are the production code, and prefills take as
long as those of an 8-billion-parameter model on one H200. `retrieval` order puts the best document first, `greedy` the best one whose KV is
there for what comes before. The first part of the requests fills the tiers and is not counted. `saved_share` is of the seconds that all
prompts would take without a cache. Afterwards the policies' operations are timed, with 100,000 blocks.
"""

import argparse
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np

from benchmarks import report
from benchmarks.rag_workload import RagRequest, Traffic, Workload
from benchmarks.report import Row, say
from deployments.config import SimulatedEngineConfig
from deployments.engines.simulated.blocks import TokenSequence
from deployments.engines.simulated.scheduler import Request, Scheduler
from retrieval.eviction.base import EvictionPolicy, Use
from retrieval.eviction.costs import LinearCost
from retrieval.eviction.factory import POLICIES, PolicyName

BLOCK = 64
PAIR_S = 1.6e-9
"""Of attention: 524,000 operations for each pair of tokens, where a token's weights take 16 billion."""
UTILISATION = 0.6
"""Requests come as fast as to keep the engine busy for this share of the time if nothing were cached."""
WARM_UP = 0.3
ANSWER_MEDIAN = 6
OPERATIONS_BLOCKS, CHAIN = 100_000, 100
NAMES: dict[PolicyName, str] = {"lru": "lru", "lfu": "lfu", "arc": "arc", "pgdsf": "ours"}


class Case(NamedTuple):
    policy: PolicyName | None
    k: int
    order: str
    drift: bool
    host: int
    """Its size in multiples of the device's."""
    options: argparse.Namespace


def main() -> None:
    parser = report.parser("kv_offload", "Prefill seconds that the host tier saves, by eviction policy.")
    parser.add_argument("--k", type=report.several(int), default="1,2,5", help="documents of a request, comma-separated")
    orders = report.several(("retrieval", "greedy"))
    parser.add_argument(
        "--order", type=orders, default="greedy", help="of the documents in a prompt: retrieval, greedy, or both with a comma"
    )
    parser.add_argument(
        "--host", type=report.several(int), default="1,2,4", help="sizes of the host tier in multiples of the device's, comma-separated"
    )
    parser.add_argument("--requests", type=int, default=5_000, help="the first 30 %% fill the tiers")
    parser.add_argument("--drift-every", type=int, default=1000, help="requests until the hot set drifts, in the cases with drift")
    parser.add_argument("--device-tokens", type=int, default=250_000, help="that the device's KV cache holds")
    parser.add_argument("--processes", type=int, default=2, help="cases that run at the same time")
    options = parser.parse_args()
    if options.quick:
        options.requests, options.device_tokens, options.drift_every, options.host, options.k = 600, 50_000, 150, "2", "2"
    with get_context("spawn").Pool(options.processes) as pool:
        rows = pool.map(run, cases(options), chunksize=1)
    report.show("kv_offload", options, [*rows, *(operations(name, options.quick) for name in POLICIES)])


def cases(options: argparse.Namespace) -> list[Case]:
    found = []
    for k, order, drift in product(map(int, options.k.split(",")), options.order.split(","), (False, True)):
        if k == 1 and order != options.order.split(",")[0]:
            continue  # one document has one order
        found.append(Case(None, k, order, drift, 0, options))
        found += [Case(policy, k, order, drift, int(host), options) for host in options.host.split(",") for policy in POLICIES]
    return found


def run(case: Case) -> Row:
    options, began = case.options, time.perf_counter()
    engine = Engine(engine_config(case))
    workload = Workload(1000 if options.quick else 20_000, seed=options.seed)
    engine.replay(workload, workload.requests(traffic(case, workload)), case.order)
    row = {
        "system": "device_only" if case.policy is None else NAMES[case.policy],
        "k": case.k,
        "order": case.order,
        "drift": case.drift,
        "host_device": case.host,
        **engine.summary(int(options.requests * WARM_UP)),
    }
    say(f"{row['system']} k={case.k} {case.order} drift={case.drift} host={case.host}: {time.perf_counter() - began:.0f} s")
    return row


def engine_config(case: Case) -> SimulatedEngineConfig:
    blocks = case.options.device_tokens // BLOCK
    host = {} if case.policy is None else {"host_blocks": case.host * blocks, "host_policy": case.policy}
    return SimulatedEngineConfig(block_size=BLOCK, kv_blocks=blocks, max_running=128, prefill_pair_s=PAIR_S, **host)


def traffic(case: Case, workload: Workload) -> Traffic:
    config = engine_config(case)
    busy_s = cost(config).seconds(0, case.k * float(np.mean(workload.documents)))
    rate = UTILISATION / busy_s
    drift = case.options.drift_every if case.drift else 0
    return Traffic(case.options.requests, case.k, rate, drift_every=drift, answer_median=ANSWER_MEDIAN)


def cost(config: SimulatedEngineConfig) -> LinearCost:
    return LinearCost(0.0, 1 / config.prefill_tokens_per_s, config.prefill_pair_s)


@dataclass(slots=True, eq=False, kw_only=True)
class Job(Request):
    at_s: float
    first_s: float = 0.0


@dataclass(slots=True)
class Engine:
    config: SimulatedEngineConfig
    now: float = 0.0
    jobs: list[Job] = field(default_factory=list)
    loaded: int = 0
    """Tokens that came from the host."""
    _scheduler: Scheduler[Job] = field(init=False)
    _ends: dict[tuple[int, ...], bytes] = field(default_factory=dict)
    """Names of the last blocks of documents, by the documents up to there."""

    def __post_init__(self) -> None:
        self._scheduler = Scheduler(self.config)

    def replay(self, workload: Workload, requests: Iterator[RagRequest], order: str) -> None:
        pause: float | None = None
        for request in requests:
            while pause is not None and self.now + pause <= request.at_s:
                pause = self._step(pause)
            if pause is None:
                self.now = request.at_s
            documents = self._greedy(request.documents) if order == "greedy" else request.documents
            self._scheduler.add(self._job(workload, request, documents))
            if pause is None:
                pause = self._step(0.0)
        while pause is not None:
            pause = self._step(pause)

    def _step(self, pause: float) -> float | None:
        self.now += pause
        result = self._scheduler.step(self.now)
        for job in result.tokens:
            job.first_s = job.first_s or self.now
        for job in result.finished:
            job.sequence = TokenSequence((), BLOCK)  # the tokens of all requests would fill the memory
        return result.duration_s

    def _job(self, workload: Workload, request: RagRequest, documents: tuple[int, ...]) -> Job:
        prompt = workload.prompt(request, documents)
        answer = array("I", [0xFFFFFFFF - request.number]) * request.answer_tokens
        sequence = TokenSequence(prompt + answer, BLOCK)
        end = 0
        for place, document in enumerate(documents, 1):
            end += int(workload.documents[document])
            if end >= BLOCK:
                self._ends[documents[:place]] = sequence.hash(end // BLOCK - 1)
        job = Job(
            sequence=sequence,
            prompt_tokens=len(prompt),
            answer_tokens=request.answer_tokens,
            max_offload_tokens=end,  # no other request has this question
            at_s=request.at_s,
        )
        self.jobs.append(job)
        return job

    def _greedy(self, documents: tuple[int, ...]) -> tuple[int, ...]:
        """Next, each time, comes the best document whose end is cached behind those before it; then the others as they were."""
        chosen: tuple[int, ...] = ()
        while (found := next((each for each in documents if each not in chosen and self._is_cached((*chosen, each))), None)) is not None:
            chosen += (found,)
        return chosen + tuple(each for each in documents if each not in chosen)

    def _is_cached(self, documents: tuple[int, ...]) -> bool:
        name = self._ends.get(documents)
        if name is None:
            return False
        host = self._scheduler.host
        return name in self._scheduler.cache or (host is not None and name in host.policy)

    def summary(self, first: int) -> Row:
        counted = self.jobs[first:]
        model = cost(self.config)
        whole = [model.seconds(0, job.prompt_tokens) for job in counted]
        paid = [model.seconds(job.cached_tokens or 0, job.prompt_tokens - (job.cached_tokens or 0)) for job in counted]
        ttft = [job.first_s - job.at_s for job in counted]
        return {
            "cached_token_share": sum(job.cached_tokens or 0 for job in counted) / sum(job.prompt_tokens for job in counted),
            "saved_prefill_s": sum(whole) - sum(paid),
            "saved_share": 1 - sum(paid) / sum(whole),
            "ttft_p50_s": float(np.percentile(ttft, 50)),
            "ttft_p99_s": float(np.percentile(ttft, 99)),
            "requests": len(counted),
        }


def operations(name: PolicyName, quick: bool) -> Row:
    """Microseconds for one block, in a tier that is full: chains of 100 blocks, whose first half many share."""
    blocks = OPERATIONS_BLOCKS // 10 if quick else OPERATIONS_BLOCKS
    policy: EvictionPolicy[int] = POLICIES[name](blocks)
    chance = np.random.default_rng(0)
    chains = [[group * CHAIN + place for place in range(CHAIN // 2)] for group in chance.zipf(1.3, 4 * blocks // CHAIN) % blocks]
    tails = [[(1 << 32) + number * CHAIN + place for place in range(CHAIN // 2)] for number in range(len(chains))]
    spent = dict.fromkeys(("evict", "insert", "use"), 0.0)
    count = dict.fromkeys(spent, 0)

    def timed(what: str, act: Callable[[], object], keys: int) -> None:
        began = time.perf_counter()
        act()
        spent[what] += time.perf_counter() - began
        count[what] += keys

    def insert(keys: list[int], missing: list[int]) -> None:
        parents = dict(zip(keys[1:], keys, strict=False))
        for key in missing:
            policy.insert(key, parents.get(key))

    for head, tail in zip(chains, tails, strict=True):
        keys = head + tail
        missing = [key for key in keys if key not in policy]
        policy.missed(missing)
        if (excess := len(policy) + len(missing) - blocks) > 0:
            timed("evict", lambda excess=excess, keys=keys: policy.evict(excess, set(keys)), excess)  # type: ignore[misc]
        timed("insert", lambda keys=keys, missing=missing: insert(keys, missing), len(missing))  # type: ignore[misc]
        timed("use", lambda keys=keys, missing=missing: policy.used(Use(keys, set(missing), 1.0)), len(keys))  # type: ignore[misc]
    return {"system": NAMES[name], "blocks": len(policy), **{f"{what}_us": spent[what] / count[what] * 1e6 for what in spent}}


if __name__ == "__main__":
    main()
