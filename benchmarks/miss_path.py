"""What a computed answer pays for coming through the application instead of straight from its engine's own server.

    python -m benchmarks.miss_path [--engine simulated|vllm]

Each round starts the engine behind a plain HTTP server (`bare_vllm`, or `bare` if it is simulated), measures, ends it, and does the same
with the application and one replica of the same engine: `ours` with the cache turned off in each request, `ours_cache` with questions that
nobody asked before, which are looked up in both tiers and kept. The median of the rounds counts. Cases in `concurrency`: 1 (time to the
first token, and to each further one), 8 and 50 (CPU), and as many as saturate the engine: bursts, all streams beginning at once; where
`load` is `steady`, each stream's end is the next one's beginning, and lengths differ by half. CPU is that of the engine's, the ingress's
and HAProxy's processes, without what they use when idle. `gap_growth` is the mean gap between a stream's tokens in its second half,
relative to all.

`ray_serve_llm` is not measured here: it pins another vLLM.
"""

import argparse
import asyncio
import itertools
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from benchmarks import streams
from benchmarks.application import ROOT, Application, cpu_s, free_port, poll
from benchmarks.report import Row, merged, parser, say, show
from benchmarks.servers import Server

SIMULATED: dict[str, Any] = {
    "model": {"name": "mygo-sim"},
    "engine": {
        "type": "simulated",
        "decode_step_s": 0.005,
        "decode_step_per_request_s": 0.0,
        "max_running": 512,
        "kv_blocks": 65536,
        "prefill_tokens_per_s": 1e6,
    },
}
VLLM: dict[str, Any] = {
    "model": {"name": "mygo-demo", "source": "demo"},
    "engine": {
        "type": "vllm",
        "args": {"enforce_eager": True, "block_size": 32, "max_model_len": 8192, "max_num_seqs": 64, "kv_cache_memory_bytes": 268435456},
    },
}
IDLE_S = 3.0


@dataclass(frozen=True, slots=True)
class Case:
    concurrency: int
    tokens: int
    repeats: int = 0
    """Bursts, one after the other. 0: steady."""


STEADY_S = 16.0
CASES = {
    "simulated": [Case(1, 8, 40), Case(8, 400, 2), Case(50, 400, 2), Case(200, 600, 1), Case(50, 400)],
    "vllm": [Case(1, 16, 30), Case(8, 128, 2), Case(32, 128, 3), Case(32, 128)],
}


@dataclass(slots=True)
class Target:
    """What is asked, and whose CPU it takes."""

    port: int
    model: str
    processes: Callable[[], list[psutil.Process]]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    rounds = []
    for number in range(options.rounds):
        say(f"round {number + 1} of {options.rounds}")
        rng = random.Random(options.seed + number)
        with tempfile.TemporaryDirectory() as directory:
            rounds.append([*_bare(options, Path(directory), rng), *_ours(options, Path(directory), rng)])
    rows = merged(rounds, added=("tokens", "errors"))
    _relate(rows)
    show("miss_path", options, [*rows, {"system": "ray_serve_llm", "engine": options.engine, "skipped": True}])


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser("miss_path", "What the way through the application adds to computed answers.")
    made.add_argument("--engine", choices=["simulated", "vllm"], default="simulated")
    made.add_argument("--rounds", type=int, default=3)
    options = made.parse_args(arguments)
    if options.quick:
        options.rounds = 1
    return options


def _llm(options: argparse.Namespace) -> dict[str, Any]:
    return SIMULATED if options.engine == "simulated" else VLLM


def _cases(options: argparse.Namespace) -> list[Case]:
    cases = CASES[options.engine]
    return [Case(each.concurrency, min(each.tokens, 40), min(each.repeats, 3)) for each in cases[:2]] if options.quick else cases


def _bare(options: argparse.Namespace, directory: Path, rng: random.Random) -> Iterator[Row]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.rivals.engine", str(port), json.dumps(_llm(options))]
    with Server(command, port, directory / "bare.log") as server:
        target = Target(port, _llm(options)["model"]["name"], lambda: _tree(server.pid))
        name = "bare" if options.engine == "simulated" else "bare_vllm"
        yield from _measured(name, options, target, rng)


@contextmanager
def _application(options: argparse.Namespace, directory: Path) -> Iterator[Target]:
    args = {"llm": {**_llm(options), "replicas": {"min": 1, "max": 1}}}
    with Application(ROOT / ("config.sim.yaml" if options.engine == "simulated" else "config.yaml"), directory, args) as application:
        application.wait_ready()

        def processes() -> list[psutil.Process]:
            engine = [each for found in application.processes(":LlmReplica") for each in _tree(found.pid)]
            return [*engine, *application.processes(":Ingress"), *application.processes("bin/haproxy")]

        yield Target(application.port, application.model, processes)


def _ours(options: argparse.Namespace, directory: Path, rng: random.Random) -> Iterator[Row]:
    with _application(options, directory) as target:
        yield from _measured("ours", options, target, rng, cache={"mode": "off"})
        yield from _measured("ours_cache", options, target, rng)


def _tree(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _measured(system: str, options: argparse.Namespace, target: Target, rng: random.Random, **fields: Any) -> Iterator[Row]:
    _warm_up(target, fields)
    for case in _cases(options):
        say(f"  {system}: {case.concurrency}")
        yield _case(system, options.engine, case, target, rng, fields)


def _warm_up(target: Target, fields: dict[str, Any]) -> None:
    body = json.loads(streams.chat(target.model, 4, random.Random(), **fields)) | {"stream": False}
    url = f"http://127.0.0.1:{target.port}/v1/chat/completions"
    poll("an answer", 120, lambda: httpx.post(url, json=body, timeout=60).is_success)
    for _ in range(10):
        httpx.post(url, json=body, timeout=60)


def _case(system: str, engine: str, case: Case, target: Target, rng: random.Random, fields: dict[str, Any]) -> Row:
    processes = target.processes()
    idle_share = _idle_share(processes)
    before, began = cpu_s(processes), time.perf_counter()
    bursts = [_burst(case, target, rng, fields) for _ in range(case.repeats)] or [_steady(case, target, rng, fields)]
    busy = cpu_s(processes) - before - idle_share * (time.perf_counter() - began)
    tokens = sum(each.tokens for each in bursts)
    ttft, gaps = np.concatenate([each.ttft_s for each in bursts]), np.concatenate([each.gaps_s for each in bursts])
    late = np.concatenate([each.late_gaps_s for each in bursts])
    return {
        "system": system,
        "engine": engine,
        "concurrency": case.concurrency,
        "load": "bursts" if case.repeats else "steady",
        "ttft_p50_ms": float(np.median(ttft)) * 1e3,
        "ttft_p99_ms": float(np.quantile(ttft, 0.99)) * 1e3,
        "gap_p50_ms": float(np.median(gaps)) * 1e3,
        "gap_p99_ms": float(np.quantile(gaps, 0.99)) * 1e3,
        "gap_growth": float(late.mean() / gaps.mean()),
        "tokens_per_s": tokens / sum(each.tokens / each.tokens_per_s for each in bursts),
        "cpu_us_per_token": busy / tokens * 1e6,
        "tokens": tokens,
        "errors": sum(each.errors for each in bursts),
    }


def _burst(case: Case, target: Target, rng: random.Random, fields: dict[str, Any]) -> streams.Streamed:
    return asyncio.run(streams.run(target.port, [streams.chat(target.model, case.tokens, rng, **fields) for _ in range(case.concurrency)]))


def _steady(case: Case, target: Target, rng: random.Random, fields: dict[str, Any]) -> streams.Streamed:
    lengths = random.Random(case.tokens)
    shortest, longest = case.tokens // 2, case.tokens * 3 // 2
    bodies = (streams.chat(target.model, lengths.randint(shortest, longest), rng, **fields) for _ in itertools.count())
    return asyncio.run(streams.keep_up(target.port, bodies, case.concurrency, STEADY_S))


def _idle_share(processes: Sequence[psutil.Process]) -> float:
    """CPU seconds a second when nothing is asked."""
    before, began = cpu_s(processes), time.perf_counter()
    time.sleep(IDLE_S)
    return (cpu_s(processes) - before) / (time.perf_counter() - began)


def _relate(rows: list[Row]) -> None:
    """Adds what each of our rows has more than the bare server's."""
    bare = {(row["concurrency"], row["load"]): row for row in rows if row["system"].startswith("bare")}
    for row in rows:
        if row["system"].startswith("ours"):
            same = bare[row["concurrency"], row["load"]]
            row["added_ttft_ms"] = row["ttft_p50_ms"] - same["ttft_p50_ms"]
            row["added_cpu_us_per_token"] = row["cpu_us_per_token"] - same["cpu_us_per_token"]
            row["of_bare_tokens_per_s"] = row["tokens_per_s"] / same["tokens_per_s"]


if __name__ == "__main__":
    main()
