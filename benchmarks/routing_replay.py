"""Replays a trace on a fleet of simulated engines in virtual time, once for each way to choose replicas.

    python -m benchmarks.routing_replay --trace mooncake_conversation --replicas 8
    python -m benchmarks.routing_replay --trace groups --load 1.2      # llm-d's shape: 150 groups of 5 requests
    python -m benchmarks.routing_replay --trace burst --ingresses 2    # 800 requests with one new prefix in four seconds

The engines are the simulated ones with an 8-billion-parameter model on one H200 in mind: 20,000 prefill tokens a second, 20 ms a decode
step and half a millisecond for each further request in it, room for 896,000 tokens of KV. A load of 1 is what the fleet completes under
round robin when all requests come at once. Dynamo is in the extra `bench`; without it its row is skipped.
"""

import argparse
import importlib.util
import time
from multiprocessing import get_context
from typing import NamedTuple

from benchmarks import report, systems, traces
from benchmarks.fleet import Clock, Fleet, summary
from benchmarks.report import Row, say
from deployments.config import SimulatedEngineConfig

DEFAULT = "round_robin,power_of_two,ray_prefix_affinity,dynamo,ours"
BLOCK = 128
GROUPS = {"count": 150, "each": 5, "prefix": 6_000, "question": 1_200, "answer": 1_000}
"""llm-d's shape. Prefixes are rounded up to the blocks of 512 tokens that traces are made of."""
GROUPS_KV_SHARE = 0.73
"""Of the shape's prefixes, questions and answers, in the whole fleet."""

BURST, BURST_S = 800, 4.0


class Case(NamedTuple):
    """One replay."""

    system: str
    load: float | None
    rate: float | None
    """Requests a second; None: all at once."""
    options: argparse.Namespace


def main() -> None:
    parser = report.parser("routing_replay", "Cached tokens and latencies of a simulated fleet, by way to choose replicas.")
    parser.add_argument("--trace", default="mooncake_conversation", help="a name, a path, `groups` or `burst`")
    parser.add_argument("--replicas", type=int, default=8, help="engines of the fleet")
    parser.add_argument(
        "--load", type=report.several(float), default="0.6,0.9", help="shares of the fleet's capacity, comma-separated; a burst has its own"
    )
    parser.add_argument(
        "--systems", type=report.several(systems.NAMES), default=DEFAULT, help=f"comma-separated, of {', '.join(systems.NAMES)}"
    )
    parser.add_argument("--kv-tokens", type=int, default=896_000, help="that one replica holds; groups have a size of their own")
    parser.add_argument("--ingresses", type=int, default=1, help="of ours: requests go to them in turn")
    parser.add_argument("--processes", type=int, default=2, help="replays that run at the same time")
    options = parser.parse_args()
    if options.quick:
        options.replicas = min(options.replicas, 4)
    names = [name for name in options.systems.split(",") if is_there(name)]
    context = get_context("spawn")
    with context.Pool(options.processes, maxtasksperchild=1) as pool:
        loads: list[float | None] = [None]
        rates = [BURST / BURST_S]
        if options.trace != "burst":
            capacity = pool.apply(replay, (Case("round_robin", 0.0, None, options),))["requests_per_s"]
            say(f"capacity: {capacity:.2f} requests/s")
            loads = [float(load) for load in options.load.split(",")]
            rates = [load * capacity for load in map(float, options.load.split(","))]
        cases = [Case(name, load, rate, options) for load, rate in zip(loads, rates, strict=True) for name in names]
        rows = pool.map(replay, cases, chunksize=1)
    lines = load_trace(options)
    rows += [bound(lines, load) for load in loads]
    report.show("routing_replay", options, rows)


def is_there(system: str) -> bool:
    if system == "dynamo" and importlib.util.find_spec("dynamo") is None:
        say("dynamo: skipped, ai-dynamo-runtime is not installed (extra `bench`)")
        return False
    return True


def engine(options: argparse.Namespace) -> SimulatedEngineConfig:
    kv = options.kv_tokens
    if options.trace == "groups":
        lines = load_trace(options)
        prefixes = {line.ids[0]: line.tokens - GROUPS["question"] for line in lines}
        kept = sum(prefixes.values()) + sum(line.answer_tokens + GROUPS["question"] for line in lines)
        kv = int(kept * GROUPS_KV_SHARE / options.replicas)
    return SimulatedEngineConfig(block_size=BLOCK, kv_blocks=kv // BLOCK, max_model_len=kv // BLOCK * BLOCK, max_running=128)


def load_trace(options: argparse.Namespace) -> list[traces.Line]:
    if options.trace == "burst":
        return traces.burst(BURST, 6_000, 500, 100, BURST_S, options.seed)
    if options.trace == "groups":
        return traces.groups(**GROUPS, requests_per_s=1.0, seed=options.seed, requests=150 if options.quick else None)
    return traces.mooncake(options.trace, 300 if options.quick else None)


def replay(case: Case) -> Row:
    options, clock = case.options, Clock()
    lines, config = load_trace(options), engine(options)
    system = systems.create(case.system, config, options.replicas, clock, options.seed, options.ingresses)
    fleet = Fleet(config, options.replicas, system, clock)
    arrivals = traces.at_once(lines) if case.rate is None else traces.arrivals(lines, case.rate)
    began = time.perf_counter()
    fleet.run(arrivals)
    say(f"{case.system} at {case.load}: {time.perf_counter() - began:.0f} s")
    return {"system": case.system, "load": case.load, **summary(fleet)}


def bound(lines: list[traces.Line], load: float | None) -> Row:
    """What one cache for the whole fleet would hold, if it forgot nothing."""
    return {"system": "infinite_cache", "load": load, "cached_token_share": traces.shared_share(lines, BLOCK)}


if __name__ == "__main__":
    main()
