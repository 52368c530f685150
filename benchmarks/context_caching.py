"""A context that is kept while other prompts fill the caches many times over, and when its replica is killed.

    python -m benchmarks.context_caching
    python -m benchmarks.context_caching --engine vllm --pressure-tokens-per-s 4500

Two replicas. Questions about one context come `--every` seconds; meanwhile so many tokens of prompts that nobody asks again come that each
replica's cache is filled anew between two questions. The same twice: with the context's messages as they are, and with a context that was
made (`/v1/caching`). Then the replica that keeps it is killed, and at last the context's time ends. A question counts as cached if all full
blocks of the context were found. Tokens a second are the engines' own count of prompts' tokens.
"""

import argparse
import asyncio
import itertools
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks import report
from benchmarks.application import ROOT, Application
from benchmarks.report import Row, say
from benchmarks.routing_vllm import BLOCK, BYTES_A_TOKEN, MODEL, WORDS

PRESSURE_TOKENS = 900
"""Of one prompt that nobody asks again, about."""
BACK_LIMIT_S = 30.0
TENANT, OTHERS = {"x-mygo-tenant": "asking"}, {"x-mygo-tenant": "others"}
NAMES = {"simulated": "mygo-sim", "vllm": MODEL}


def main() -> None:
    parser = report.parser("context_caching", "A kept context under eviction pressure, after its replica's death, and after its end.")
    parser.add_argument("--engine", choices=tuple(NAMES), default="simulated")
    parser.add_argument("--context-tokens", type=int, default=4000, help="of the kept context, about")
    parser.add_argument("--kv-tokens", type=int, default=16_384, help="that one replica holds")
    parser.add_argument("--seconds", type=float, default=60.0, help="under pressure")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two questions")
    parser.add_argument("--pressure-tokens-per-s", type=float, default=18_000, help="of other prompts, on both replicas together")
    options = parser.parse_args()
    if options.quick:
        options.seconds = 12.0
    with tempfile.TemporaryDirectory() as directory, start(options, Path(directory)) as application:
        application.wait_ready()
        say(f"ready after {application.ready_after_s:.0f} s")
        rows = asyncio.run(measure(application, options))
    report.show("context_caching", options, rows)


def start(options: argparse.Namespace, directory: Path) -> Application:
    replicas = {"min": 2, "max": 2}
    if options.engine == "simulated":
        engine: dict[str, Any] = {"type": "simulated", "kv_blocks": options.kv_tokens // BLOCK, "block_size": BLOCK}
        model, config = {"name": NAMES["simulated"]}, ROOT / "config.sim.yaml"
    else:
        args = {"enforce_eager": True, "block_size": BLOCK, "max_model_len": 8192, "max_num_seqs": 64}
        engine = {"type": "vllm", "args": {**args, "kv_cache_memory_bytes": options.kv_tokens * BYTES_A_TOKEN}}
        model, config = {"name": MODEL, "source": "demo"}, ROOT / "config.yaml"
    return Application(config, directory, {"llm": {"model": model, "engine": engine, "replicas": replicas}})


async def measure(application: Application, options: argparse.Namespace) -> list[Row]:
    async with httpx.AsyncClient(base_url=application.url, timeout=120, limits=httpx.Limits(max_connections=None)) as client:
        run = Run(client, options)
        await run.settle()
        rows = [await run.row("not_kept", [{"role": "system", "content": run.context_text()}])]
        messages = [{"role": "system", "content": run.context_text()}]
        made = await run.make(messages, ttl=3600)
        kept = await run.row("ours", [{"role": "cache", "content": f"cache_id={made['id']}"}])
        kept["back_after_kill_s"] = await run.back_after_kill(application, made["id"])
        kept["after_end"] = await run.after_end(made["id"])
        return [kept, *rows]


class Run:
    """One application under load."""

    def __init__(self, client: httpx.AsyncClient, options: argparse.Namespace) -> None:
        self._client = client
        self._options = options
        self._chance = random.Random(options.seed)
        self._names = itertools.count()
        self._pressed = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._words_a_token = 1.0

    async def settle(self) -> None:
        """How long words are in tokens."""
        usage = await self._ask([{"role": "user", "content": self._text(500)}])
        self._words_a_token = 500 / usage["prompt_tokens"]

    def context_text(self) -> str:
        return self._text(int(self._options.context_tokens * self._words_a_token))

    async def make(self, messages: list[dict[str, str]], ttl: int) -> dict[str, Any]:
        answer = await self._client.post("/v1/caching", json={"model": self._model, "messages": messages, "ttl": ttl}, headers=TENANT)
        if answer.status_code != 200:
            raise AssertionError(answer.text)
        made: dict[str, Any] = answer.json()
        return made

    async def row(self, system: str, beginning: list[dict[str, str]]) -> Row:
        """Questions behind this beginning while others fill the caches."""
        await self._ask([*beginning, {"role": "user", "content": "What is this?"}])
        pressing = asyncio.ensure_future(self._press())
        self._pressed, began = 0, time.perf_counter()
        cached, found = [], []
        try:
            for number in range(1, int(self._options.seconds / self._options.every) + 1):
                await asyncio.sleep(began + number * self._options.every - time.perf_counter())
                usage = await self._ask([*beginning, {"role": "user", "content": f"What is number {number}?"}])
                found.append(usage["prompt_tokens_details"]["cached_tokens"])
                cached.append(found[-1] >= (usage["prompt_tokens"] - 64) // BLOCK * BLOCK)
        finally:
            pressing.cancel()
        seconds = time.perf_counter() - began
        await asyncio.gather(*self._tasks)
        pressed = self._pressed / (2 * self._options.kv_tokens)
        row = {"system": system, "cached_request_share": sum(cached) / len(cached), "requests": len(cached)}
        row |= {"cached_tokens_mean": sum(found) / len(found), "pressure_in_caches": pressed, "tokens_per_s": self._pressed / seconds}
        say(f"{row}")
        return row

    async def back_after_kill(self, application: Application, context_id: str) -> float:
        """Seconds until a question finds the context cached again, and it is said to be kept."""
        question = [{"role": "cache", "content": f"cache_id={context_id}"}]
        replica = ""
        for _ in range(3):
            replica = await self._replica_of(question)
        _process_of(application, replica).kill()
        began = time.perf_counter()
        while time.perf_counter() - began < BACK_LIMIT_S:
            state = await self._client.get(f"/v1/caching/{context_id}", headers=TENANT)
            if state.status_code == 200 and state.json()["status"] == "ready" and await self._is_cached(question, replica):
                return time.perf_counter() - began
            await asyncio.sleep(0.05)
        return float("inf")

    async def _is_cached(self, question: list[dict[str, str]], dead: str) -> bool:
        """The first question of its kind: it does not find what another one has computed."""
        answer = await self._post([*question, {"role": "user", "content": f"What is {next(self._names)}?"}])
        if answer.status_code != 200 or answer.headers["x-mygo-replica"] == dead:
            return False
        usage = answer.json()["usage"]
        return bool(usage["prompt_tokens_details"]["cached_tokens"] >= (usage["prompt_tokens"] - 64) // BLOCK * BLOCK)

    async def after_end(self, context_id: str) -> int:
        """The status of a question about a context whose end has come."""
        await self._client.put(f"/v1/caching/{context_id}", json={"ttl": 1}, headers=TENANT)
        await asyncio.sleep(1.1)
        question = [{"role": "cache", "content": f"cache_id={context_id}"}, {"role": "user", "content": "What is this?"}]
        return (await self._post(question)).status_code

    async def _press(self) -> None:
        """Prompts that nobody asks again, at an even pace."""
        began, sent = time.perf_counter(), 0
        while True:
            task = asyncio.ensure_future(self._press_once())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            sent += PRESSURE_TOKENS
            await asyncio.sleep(began + sent / self._options.pressure_tokens_per_s - time.perf_counter())

    async def _press_once(self) -> None:
        text = f"{next(self._names)} {self._text(int(PRESSURE_TOKENS * self._words_a_token))}"
        usage = await self._ask([{"role": "user", "content": text}], tenant=OTHERS)
        self._pressed += usage["prompt_tokens"]

    async def _replica_of(self, question: list[dict[str, str]]) -> str:
        replica: str = (await self._post([*question, {"role": "user", "content": f"Is it {next(self._names)}?"}])).headers["x-mygo-replica"]
        return replica

    async def _ask(self, messages: list[dict[str, str]], tenant: dict[str, str] = TENANT) -> dict[str, Any]:
        answer = await self._post(messages, tenant)
        usage: dict[str, Any] = answer.raise_for_status().json()["usage"]
        return usage

    async def _post(self, messages: list[dict[str, str]], tenant: dict[str, str] = TENANT) -> httpx.Response:
        body = {"model": self._model, "messages": messages, "max_tokens": 2, "temperature": 0, "cache": {"mode": "off"}}
        return await self._client.post("/v1/chat/completions", json=body, headers=tenant)

    @property
    def _model(self) -> str:
        return NAMES[self._options.engine]

    def _text(self, words: int) -> str:
        return " ".join(self._chance.choices(WORDS, k=words))


def _process_of(application: Application, replica: str) -> psutil.Process:
    """Each replica's process writes a log of its own, which has its name."""
    return next(_that_write(application, replica.rpartition("#")[2]))


def _that_write(application: Application, name: str) -> Iterator[psutil.Process]:
    for process in application.processes("LlmReplica"):
        if any(name in file.path for file in process.open_files()):
            yield process


if __name__ == "__main__":
    main()
