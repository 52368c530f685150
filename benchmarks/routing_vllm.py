"""Routing on real engines: two vLLM replicas, neither of which can hold the KV of every prefix.

    python -m benchmarks.routing_vllm
    python -m benchmarks.routing_vllm --systems ours,round_robin,ray_kv_aware     # after: benchmarks/rivals/install ray_kv_aware

Each prefix belongs to one of four tenants. In a round, every prefix is asked for once to fill the caches, and then prefixes at random, each
time with a question of its own. Three rounds, each with prefixes of its own; numbers are medians of the rounds. `max_mean_load` is of
requests; the rival does not say which replica answered.
"""

import argparse
import asyncio
import json
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from benchmarks import report
from benchmarks.application import ROOT, START_LIMIT_S, Application, free_port, poll
from benchmarks.report import Row, say
from deployments.demo_model import MODEL_DIR

_COMMON = """
the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one you were all her
she there would their we him been has when who will no more if out so up said what its about than into them can only other time new
"""
WORDS = _COMMON.split()
MODEL = "mygo-demo"
BLOCK = 32
ANSWER_TOKENS = 8
BYTES_A_TOKEN = 4096
"""KV of the demo model."""
RIVALS = ROOT / "benchmarks" / "rivals"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, and what came of it."""

    ttft_s: float
    tpot_s: float
    prompt_tokens: int
    cached_tokens: int
    predicted: int | None
    replica: str
    status: int


def main() -> None:
    parser = report.parser("routing_vllm", "Time to the first token and cached tokens on two vLLM replicas, by routing policy.")
    parser.add_argument("--systems", default="ours,round_robin,power_of_two", help="comma-separated")
    parser.add_argument("--prefixes", type=int, default=24, help="different beginnings of prompts")
    parser.add_argument("--words", type=int, default=700, help="of each prefix")
    parser.add_argument("--tenants", type=int, default=4, help="that the prefixes belong to, in turn")
    parser.add_argument("--requests", type=int, default=240, help="of a round, after the caches were filled")
    parser.add_argument("--concurrency", type=int, default=6, help="requests that are open at a time")
    parser.add_argument("--kv-tokens", type=int, default=10_240, help="that one replica holds")
    parser.add_argument("--rounds", type=int, default=3, help="of each system")
    options = parser.parse_args()
    if options.quick:
        options.requests, options.rounds = 48, 1
    rows = [measure(system, options) for system in options.systems.split(",")]
    report.show("routing_vllm", options, rows)


def measure(system: str, options: argparse.Namespace) -> Row:
    with tempfile.TemporaryDirectory() as directory, serving(system, options, Path(directory)) as url:
        rounds = []
        for number in range(options.rounds):
            load = Load(options, options.seed * 1000 + number)
            asyncio.run(load.run(url))
            rounds.append([load.row(system)])
            say(f"{system}, round {number + 1}: {rounds[-1][0]}")
        return report.merged(rounds, added=("requests", "errors", "rejected"))[0]


@contextmanager
def serving(system: str, options: argparse.Namespace, directory: Path) -> Iterator[str]:
    """The address of a system that is ready."""
    if system == "ray_kv_aware":
        with KvAware(options.kv_tokens * BYTES_A_TOKEN, directory) as rival:
            yield rival.url
        return
    with start(system, options, directory) as application:
        application.wait_ready()
        say(f"{system}: ready after {application.ready_after_s:.0f} s")
        yield application.url


class KvAware:
    """Ray's own stack, in its own environment."""

    def __init__(self, kv_bytes: int, directory: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log = directory / "ray_kv_aware.log"
        python = RIVALS / ".venv" / "ray_kv_aware" / "bin" / "python"
        if not python.exists():
            raise SystemExit("ray_kv_aware is not installed: benchmarks/rivals/install ray_kv_aware")
        with self._log.open("wb") as log:
            command: list[str | Path] = [python, RIVALS / "ray_kv_aware.py", str(port), MODEL_DIR, str(kv_bytes)]
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, cwd=directory)

    def __enter__(self) -> "KvAware":
        poll("the rival", START_LIMIT_S, self._is_ready)
        return self

    def _is_ready(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"the rival ended:\n{self._log.read_text()[-3000:]}")
        return "ready" in self._log.read_text().splitlines()

    def __exit__(self, *error: object) -> None:
        everyone = [psutil.Process(self._process.pid), *psutil.Process(self._process.pid).children(recursive=True)]
        for process in everyone:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()


def start(system: str, options: argparse.Namespace, directory: Path, sections: dict[str, Any] | None = None) -> Application:
    """`sections`: others of the application's configuration."""
    args = {
        "enforce_eager": True,
        "block_size": BLOCK,
        "max_model_len": 4096,
        "max_num_seqs": 64,
        "kv_cache_memory_bytes": options.kv_tokens * BYTES_A_TOKEN,
    }
    llm = {
        "model": {"name": MODEL, "source": "demo"},
        "engine": {"type": "vllm", "args": args},
        "replicas": {"min": 2, "max": 2},
    }
    policy = "cost" if system == "ours" else system
    return Application(ROOT / "config.yaml", directory, {"llm": llm, "routing": {"policy": policy}, **(sections or {})})


class Load:
    """One round's requests."""

    def __init__(self, options: argparse.Namespace, seed: int) -> None:
        self._options = options
        self._chance = random.Random(seed)
        self._prefixes = [" ".join(self._chance.choices(WORDS, k=options.words)) for _ in range(options.prefixes)]
        self._asked: list[Asked] = []
        self._wall_s = 0.0

    async def run(self, url: str) -> None:
        limits = httpx.Limits(max_connections=self._options.concurrency)
        async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
            await self._send(client, list(range(len(self._prefixes))))
            began = time.perf_counter()
            self._asked = await self._send(client, self._chance.choices(range(len(self._prefixes)), k=self._options.requests))
            self._wall_s = time.perf_counter() - began

    async def _send(self, client: httpx.AsyncClient, order: Sequence[int]) -> list[Asked]:
        waiting = list(reversed(order))
        asked: list[Asked] = []

        async def one_after_the_other() -> None:
            while waiting:
                asked.append(await self._ask(client, waiting.pop()))

        await asyncio.gather(*(one_after_the_other() for _ in range(self._options.concurrency)))
        return asked

    async def _ask(self, client: httpx.AsyncClient, prefix: int) -> Asked:
        question = f"Question {self._chance.randrange(10**9)}: what does it say?"
        body = {
            "model": MODEL,
            "messages": [{"role": "system", "content": self._prefixes[prefix]}, {"role": "user", "content": question}],
            "max_tokens": ANSWER_TOKENS,
            "min_tokens": ANSWER_TOKENS,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            "cache": {"mode": "off"},
            "cache_salt": f"tenant-{prefix % self._options.tenants}",
        }
        headers = {"x-mygo-tenant": f"tenant-{prefix % self._options.tenants}"}
        return await streamed(client, body, headers)

    def row(self, system: str) -> Row:
        rejected = sum(each.status in (429, 503) for each in self._asked)
        return {**row_of(system, self._asked, self._wall_s), "rejected": rejected}


async def streamed(client: httpx.AsyncClient, body: dict[str, Any], headers: dict[str, str] | None = None) -> Asked:
    """Sends a chat that is to be streamed with its usage, and has `ANSWER_TOKENS`."""
    began = time.perf_counter()
    arrivals: list[float] = []
    usage: dict[str, Any] = {}
    async with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                event = json.loads(line[6:])
                usage = event.get("usage") or usage
                if event.get("choices"):
                    arrivals.append(time.perf_counter())
    details = usage.get("prompt_tokens_details") or {}
    predicted = answer.headers.get("x-mygo-predicted-cached-tokens")
    return Asked(
        ttft_s=(arrivals or [began])[0] - began,
        tpot_s=(arrivals[-1] - arrivals[0]) / (ANSWER_TOKENS - 1) if arrivals else 0.0,
        prompt_tokens=usage.get("prompt_tokens", 0),
        cached_tokens=details.get("cached_tokens") or 0,
        predicted=None if predicted is None else int(predicted),
        replica=answer.headers.get("x-mygo-replica", ""),
        status=answer.status_code,
    )


def row_of(system: str, asked: Sequence[Asked], wall_s: float) -> Row:
    good = [each for each in asked if each.status == 200 and each.prompt_tokens]
    ttft = [each.ttft_s for each in good]
    errors = [abs(each.predicted - each.cached_tokens) for each in good if each.predicted is not None]
    counts = [sum(each.replica == name for each in good) for name in {each.replica for each in good}]
    return {
        "system": system,
        "cached_token_share": sum(each.cached_tokens for each in good) / sum(each.prompt_tokens for each in good),
        **{f"ttft_p{percent}_s": float(np.percentile(ttft, percent)) for percent in (50, 90, 99)},
        "tpot_p50_s": float(np.percentile([each.tpot_s for each in good], 50)),
        "requests_per_s": len(good) / wall_s,
        "max_mean_load": max(counts) * 2 / sum(counts) if any(each.replica for each in good) else None,
        "prompt_tokens_mean": float(np.mean([each.prompt_tokens for each in good])),
        "prediction_error_blocks": float(np.mean(errors)) / BLOCK if errors else None,
        "requests": len(asked),
        "errors": len(asked) - len(good),
    }


if __name__ == "__main__":
    main()
