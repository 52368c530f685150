"""Semantic hits over HTTP: embedding, search, guards, verifier and answer included, with 10,000 entries kept.

    python -m benchmarks.semantic_path

The application is started with the simulated engine and the semantic tier in mode `static`. It imports questions of
`benchmarks/question_stream.py`; then the same things are asked in other words, none of them kept. `one`: one request after the other;
only compared hits count (`x-mygo-cache: semantic` with a similarity below 1). `at_once`: further questions, 16 at a time, by `wrk`; all of
them count, also those that the engine has to answer. `again`: the hits of `one` once more, 16 at a time: they are decided on again, but
their vectors and judgements are remembered. `stages` are means of `one` and `at_once`, as the application itself measures them: `ask_*` and
`wait_*` are what the ingress waits for, the others are parts of them. `encoder` and `verifier` are the networks alone, on one core: text
after text (`one`, the least that a look-up can take), and in batches as the embedding deployment makes them.
"""

import argparse
import json
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import wrk
from benchmarks.application import QUICK_ENGINE, ROOT, Application
from benchmarks.question_stream import stream
from benchmarks.report import Row, merged, parser, say, show
from cache.embedders.factory import load_embedder
from cache.embedders.sources import PACKAGED
from cache.verifiers.base import Pair
from cache.verifiers.factory import load_verifier
from deployments.config import EmbeddingConfig

CHAT = "/v1/chat/completions"
IMPORT_LINES = 1_000
AT_ONCE_S = 4
EXPORTED_S = 12.0
"""Until Ray's exporter has everything."""
_STAGE = re.compile(r'^mygo_cache_stage_seconds_(sum|count)\{.*stage="(\w+)".*\} ([\d.e+-]+)$', re.MULTILINE)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    rounds = [_round(options, number) for number in range(options.rounds)]
    rows = merged(rounds, added=("asked", "compared_hits", "errors"))
    show("semantic_path", options, rows)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser("semantic_path", "Latency and rate of semantic hits over HTTP.")
    made.add_argument("--entries", type=int, default=10_000)
    made.add_argument("--questions", type=int, default=500, help="asked in other words, one by one; as many again for each second at once")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--verifier", default="packaged", help="as cache.semantic.verifier; `none` decides by the cosine")
    options = made.parse_args(arguments)
    if options.quick:
        options.entries, options.questions, options.rounds = 300, 100, 1
    return options


def _round(options: argparse.Namespace, number: int) -> list[Row]:
    say(f"round {number + 1} of {options.rounds}")
    kept, asked = _questions(options.entries, (1 + AT_ONCE_S) * options.questions, options.seed + number)
    llm = {"model": {"name": "mygo-sim"}, "engine": QUICK_ENGINE, "replicas": {"min": 1, "max": 1}}
    args = {"llm": llm, "cache": {"semantic": {"mode": "static", "verifier": options.verifier}}}
    with tempfile.TemporaryDirectory() as directory, Application(ROOT / "config.sim.yaml", Path(directory), args) as application:
        application.wait_ready()
        _import(application, kept)
        found, seconds = _one_by_one(application, asked[: options.questions])
        rows = [_row(options, "one", seconds, 1 / statistics.mean(seconds), options.questions, len(found))]
        rows.append(_at_once(application, options, "at_once", asked[options.questions :], AT_ONCE_S))
        time.sleep(EXPORTED_S)
        stages = list(_stages(application))
        rows.append(_at_once(application, options, "again", found, AT_ONCE_S))
        return [*rows, *stages, *_alone(asked, kept)]


def _at_once(application: Application, options: argparse.Namespace, case: str, texts: Sequence[str], seconds: float) -> Row:
    measured = wrk.load(application.url + CHAT, [_body(text) for text in texts], 16, seconds)
    return {
        "system": "ours",
        "case": case,
        "entries": options.entries,
        "p50_ms": measured.p50_s * 1e3,
        "p99_ms": measured.p99_s * 1e3,
        "lookups_per_s": measured.requests_per_s,
        "errors": measured.errors,
    }


def _questions(kept: int, asked: int, seed: int) -> tuple[list[str], list[str]]:
    """To be kept, and to be asked: other writings of what is kept."""
    first: dict[str, int] = {}
    others: dict[str, int] = {}
    for query in stream(8 * (kept + asked), seed):
        if len(first) < kept:
            first.setdefault(query.text, query.intent)
        elif len(others) < asked and query.text not in first:
            others.setdefault(query.text, query.intent)
    intents = set(first.values())
    return list(first), [text for text, intent in others.items() if intent in intents]


def _import(application: Application, texts: Sequence[str]) -> None:
    began = time.monotonic()
    for start in range(0, len(texts), IMPORT_LINES):
        batch = texts[start : start + IMPORT_LINES]
        lines = [json.dumps({"text": each, "answer": "An answer. " * 20, "model": "mygo-sim"}) for each in batch]
        report = application.http.post("/v1/cache/import", content="\n".join(lines), timeout=300).json()
        if report["imported"] != len(lines):
            raise RuntimeError(f"not everything was imported: {report}")
    say(f"  {len(texts)} entries after {time.monotonic() - began:.0f} s")


def _body(text: str) -> bytes:
    return json.dumps({"model": "mygo-sim", "messages": [{"role": "user", "content": text}]}).encode()


def _one_by_one(application: Application, texts: Sequence[str]) -> tuple[list[str], list[float]]:
    """Compared hits, and their seconds."""
    found, seconds = [], []
    for place, text in enumerate(texts):
        body, began = _body(text), time.perf_counter()
        response = application.http.post(CHAT, content=body, headers={"content-type": "application/json"})
        took = time.perf_counter() - began
        response.raise_for_status()
        is_compared = response.headers["x-mygo-cache"] == "semantic" and float(response.headers["x-mygo-similarity"]) < 1
        if is_compared and place >= len(texts) // 20:  # the first ones warm it up
            found.append(text)
            seconds.append(took)
    return found, seconds


def _row(options: argparse.Namespace, case: str, seconds: Sequence[float], per_s: float, asked: int, hits: int) -> Row:
    p50, p99 = np.quantile(seconds, (0.5, 0.99)) * 1e3
    return {
        "system": "ours",
        "case": case,
        "entries": options.entries,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "lookups_per_s": per_s,
        "asked": asked,
        "compared_hits": hits,
    }


def _stages(application: Application) -> Iterator[Row]:
    """Means, in milliseconds."""
    sums: dict[tuple[str, str], float] = {}
    for kind, stage, value in _STAGE.findall(application.http.get("/metrics").text):
        sums[kind, stage] = sums.get((kind, stage), 0.0) + float(value)
    for stage in sorted({stage for _, stage in sums}):
        yield {"system": "ours", "case": "stages", "stage": stage, "mean_ms": sums["sum", stage] / sums["count", stage] * 1e3}


def _alone(asked: Sequence[str], kept: Sequence[str]) -> Iterator[Row]:
    """On one core, the application being idle."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    config = EmbeddingConfig()
    encoder = load_embedder(PACKAGED, 1, config.precision)
    verifier = load_verifier("packaged", 1, encoder.name, config.precision)
    pairs = [Pair(*both, 0.9) for both in zip(asked, kept, strict=False)]
    for name, work, items in (("encoder", encoder.embed, asked), ("verifier", verifier.probabilities, pairs)):
        yield _network(name, work, items[:300], config.max_batch_size)
    os.sched_setaffinity(0, allowed)


def _network(name: str, work: Callable[[Any], object], items: Sequence[Any], batch: int) -> Row:
    work(items[:20])
    seconds = []
    for item in items:
        began = time.perf_counter()
        work([item])
        seconds.append(time.perf_counter() - began)
    began = time.perf_counter()
    for start in range(0, len(items), batch):
        work(items[start : start + batch])
    per_s = len(items) / (time.perf_counter() - began)
    return {"system": name, "case": "alone", "p50_ms": statistics.median(seconds) * 1e3, "lookups_per_s": per_s}


if __name__ == "__main__":
    main()
