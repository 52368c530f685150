"""`rag_overlap` over HTTP: the real application, simulated engines, and searches that take their time (`slow_search`).

Documents and requests are those of `rag_workload`. A document's text is one word again and again, and a question names the words of its
documents, so that the fake encoder finds these. All rows of a round are one running application, which is given another pace for each; each
has the same questions at the same times under a salt of its own, first some that fill the caches. `sequential` has no provisional
results, so nothing can begin early. A load of 1 is what the application completes when all requests come at once and nothing is cached.
`search_hidden_share`: of the search's time, what head starts take off the median time to the first token; `search_hidden_mean_share`: off
the mean one. `wasted_token_share`: of the tokens that engines computed, by the application's own count. `alarms`: rounds at whose end
the application took its predictions for wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import httpx
import numpy as np

from benchmarks import report
from benchmarks.application import ROOT, Application, poll
from benchmarks.rag_vllm import ask, ask_all
from benchmarks.rag_workload import RagRequest, Traffic, Workload
from benchmarks.report import Row, say
from benchmarks.routing_vllm import MODEL, Asked, row_of
from benchmarks.slow_search import Pace, set_pace

BLOCK = 32
METRICS_S = 0.5
"""How often Ray tells what metrics are."""
METRICS_LIMIT_S = 30
FILLING_LOAD = 0.9
_BATCH = 50
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_TOKENS = re.compile(r'^mygo_head_start_tokens_total\{.*use="(\w+)".*\} (\S+)$', re.MULTILINE)
_TRUSTED = re.compile(r"^mygo_prefix_trusted\{.*\} (\S+)$", re.MULTILINE)
_REQUESTS = re.compile(r'^mygo_requests_total\{.*path="POST /v1/chat/completions".*\} (\S+)$', re.MULTILINE)


def measured(options: argparse.Namespace) -> list[Row]:
    with tempfile.TemporaryDirectory() as directory, start(options, Path(directory)) as application:
        application.wait_ready()
        say(f"ready after {application.ready_after_s:.0f} s")
        return asyncio.run(Measurement(application, options).rows())


def start(options: argparse.Namespace, directory: Path) -> Application:
    blocks = options.kv_tokens // BLOCK
    engine = {"block_size": BLOCK, "kv_blocks": blocks, "max_model_len": blocks * BLOCK, "max_running": 128}
    args = {
        "llm": {
            "model": {"name": MODEL},
            "engine": {"type": "simulated", **engine, "host_blocks": options.host_tokens // BLOCK, "host_policy": "pgdsf"},
            "replicas": {"min": options.replicas, "max": options.replicas},
        },
        "embedding": {"source": "fake"},
        "retrieval": {
            "chunk_tokens": options.kv_tokens,  # a document is one chunk
            "chunk_overlap_tokens": 0,
            "max_displacement": options.max_displacement,
            "result_cache": {"enabled": False},
        },
    }
    env = {"RAY_metrics_report_interval_ms": str(int(METRICS_S * 1000))}
    return Application(ROOT / "config.sim.yaml", directory, args, env, builder="benchmarks.slow_search:build")


class Measurement:
    """Of one running application."""

    def __init__(self, application: Application, options: argparse.Namespace) -> None:
        self._application = application
        self._options = options
        self._data_dir = Path(application.args["data_dir"])
        self._workload = Workload(options.documents, seed=options.seed)
        self._sent = 0

    async def rows(self) -> list[Row]:
        options = self._options
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=self._application.url, timeout=300, limits=limits) as client:
            self._client = client
            self._store = await self._filled_store()
            capacity = await self._capacity()
            say(f"capacity: {capacity:.2f} requests/s")
            made = []
            for load in map(float, options.load.split(",")):
                rounds = [await self._round(number, load, capacity) for number in range(options.rounds)]
                made += report.merged(rounds, added=("requests", "errors", "alarms"))
            return made

    async def _filled_store(self) -> str:
        store: str = (await self._client.post("/v1/vector_stores", json={"name": "benchmark"})).raise_for_status().json()["id"]
        began = time.perf_counter()
        for at in range(0, self._options.documents, _BATCH):
            numbers = range(at, min(at + _BATCH, self._options.documents))
            documents = [{"id": name(number), "text": text_of(self._workload, number)} for number in numbers]
            (await self._client.post(f"/v1/vector_stores/{store}/documents", json={"documents": documents})).raise_for_status()
        say(f"{self._options.documents} documents in {time.perf_counter() - began:.0f} s")
        return store

    async def _capacity(self) -> float:
        """Requests a second, each with a salt of its own."""
        set_pace(self._data_dir, Pace())
        questions = list(self._questions(0, self._options.replicas * self._options.filling))
        await ask(self._client, self._store, "ours", questions[0], self._options.k, "first")
        began = time.perf_counter()
        asked = await asyncio.gather(
            *(ask(self._client, self._store, "ours", text, self._options.k, f"{number}") for number, text in enumerate(questions))
        )
        self._sent += 1 + len(questions)
        return float(row_of("", asked, time.perf_counter() - began)["requests_per_s"])

    def _questions(self, number: int, count: int) -> Iterator[str]:
        """Of a round."""
        traffic = Traffic((number + 1) * count, self._options.k)
        return islice(map(question_of, self._workload.requests(traffic)), number * count, None)

    async def _round(self, number: int, load: float, capacity: float) -> list[Row]:
        options = self._options
        phases = [("no_search", 0.0)]
        phases += [(system, search_ms) for search_ms in map(float, options.search_ms.split(",")) for system in ("sequential", "ours")]
        rows = []
        for system, search_ms in phases:
            pace = Pace(search_ms / 1000, options.first if system == "ours" else 1.0, options.agreement)
            row = await self._phase(number, load, capacity, pace, f"{system} {search_ms} {load} {number}")
            rows.append({"system": system, "search_ms": search_ms, "load": load, **row})
            say(f"round {number + 1}, {system}, {search_ms:.0f} ms, load {load}: p50 {row['ttft_p50_s']:.3f} s")
        for row in rows:
            for column, measure in (("search_hidden_share", "ttft_p50_s"), ("search_hidden_mean_share", "ttft_mean_s")):
                row[column] = hidden(row, rows, measure)
        return rows

    async def _phase(self, number: int, load: float, capacity: float, pace: Pace, salt: str) -> Row:
        options = self._options
        filling, count = (options.replicas * each for each in (options.filling, options.requests))
        questions = list(self._questions(number, filling + count))
        set_pace(self._data_dir, pace)
        await self._asked(questions[:filling], FILLING_LOAD * capacity, salt)
        used, wasted = head_start_tokens(self._told())
        began = time.perf_counter()
        asked = await self._asked(questions[filling:], load * capacity, salt)
        wall_s = time.perf_counter() - began
        told = self._told()
        all_used, all_wasted = head_start_tokens(told)
        return row_of_phase(asked, wall_s, all_used - used, all_wasted - wasted) | {"alarms": int(not is_trusted(told))}

    async def _asked(self, questions: Sequence[str], rate: float, salt: str) -> list[Asked]:
        options = argparse.Namespace(rate=rate, k=self._options.k)
        self._sent += len(questions)
        return await ask_all(self._client, self._store, "ours", questions, options, salt)

    def _told(self) -> str:
        """The application's metrics, of all requests so far."""
        text: str = poll("the metrics", METRICS_LIMIT_S, self._metrics)
        return text

    def _metrics(self) -> str | None:
        """None: they lack requests."""
        text = self._application.http.get("/metrics").text
        return text if sum(map(float, _REQUESTS.findall(text))) >= self._sent else None


def head_start_tokens(metrics: str) -> tuple[float, float]:
    """Used and wasted ones."""
    tokens = {"used": 0.0, "wasted": 0.0}
    for use, count in _TOKENS.findall(metrics):
        tokens[use] += float(count)
    return tokens["used"], tokens["wasted"]


def is_trusted(metrics: str) -> bool:
    """No ingress takes predictions for wrong: else documents are not planned, and nothing begins early."""
    return all(float(value) for value in _TRUSTED.findall(metrics))


def row_of_phase(asked: Sequence[Asked], wall_s: float, used: float, wasted: float) -> Row:
    row = row_of("", asked, wall_s)
    # What a head start has computed, the request finds in the cache.
    computed = sum(each.prompt_tokens - each.cached_tokens for each in asked) + used + wasted
    del row["system"], row["max_mean_load"]
    return {
        **row,
        "ttft_mean_s": float(np.mean([each.ttft_s for each in asked if each.status == 200])),
        "used_token_share": used / computed,
        "wasted_token_share": wasted / computed,
    }


def hidden(row: Row, rows: Sequence[Row], measure: str) -> float | None:
    """Of the search's time, what `measure` has less than without head starts."""
    if row["system"] != "ours":
        return None
    without = next(each for each in rows if each["system"] == "sequential" and each["search_ms"] == row["search_ms"])
    return float((without[measure] - row[measure]) / (row["search_ms"] / 1000))


def name(number: int) -> str:
    """A word that is one token of simulated engines, and a document's alone."""
    digits = ""
    for _ in range(4):
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return f"d{digits}"


def text_of(workload: Workload, number: int) -> str:
    """As many tokens as the document has."""
    return " ".join([name(number)] * int(workload.documents[number]))


def question_of(request: RagRequest) -> str:
    """Nearest to the request's documents, and no other request's."""
    return f"{' '.join(map(name, request.documents))} {request.number}?"
