"""Exact hits of one ingress replica and of two, and how soon an invalidation is seen by both under full load.

    python -m benchmarks.hit_scaling

Each ingress process may use the same share of a core (`--share`): all of one where there are cores for two of them, HAProxy and the load
generator, else a quarter, so that what is left carries the rest. `scaling` is what two do, relative to one. For `stale_ms` a question is
asked over and over beside the full load, and its answer invalidated: how long after the invalidation was answered a request began that
still got the old one; the longest of all.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from benchmarks import wrk
from benchmarks.application import QUICK_ENGINE, ROOT, Application, cpu_s
from benchmarks.cpu_quota import cpu_quota
from benchmarks.hit_path import CHAT, QUESTIONS, chat, chat_of, fill
from benchmarks.report import Row, merged, parser, say, show

INGRESSES = (1, 2)
CONNECTIONS = 32
ASKERS = 4
PAUSE_S = 0.01
LOOK_AFTER_S = 2.0
"""How long an invalidated answer is looked for: four times as long as one may be served (`serve_app.epochs.FRESH_S`)."""
TAGGED: dict[str, Any] = {**chat("What is ended now and then?"), "cache": {"tags": ["ended"]}}


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    if not wrk.available():
        sys.exit("wrk is needed: apt-get install wrk")
    rounds = []
    for number in range(options.rounds):
        say(f"round {number + 1} of {options.rounds}")
        rounds.append([row for ingresses in INGRESSES for row in _round(options, ingresses)])
    rows = merged(rounds, added=("requests", "errors"))
    for place, row in enumerate(rows):
        row["stale_ms"] = max(each[place]["stale_ms"] for each in rounds)
    rows[-1]["scaling"] = rows[-1]["requests_per_s"] / rows[0]["requests_per_s"]
    show("hit_scaling", options, rows)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser("hit_scaling", "Hits a second of one and of two ingress replicas, and invalidation under load.")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--share", type=float, default=1.0 if (os.cpu_count() or 1) >= 4 else 0.25, help="of a core, for each ingress")
    made.add_argument("--seconds", type=float, default=8, help="of each measurement")
    made.add_argument("--invalidations", type=int, default=5)
    options = made.parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds, options.invalidations = 1, 2, 1
    return options


def _round(options: argparse.Namespace, ingresses: int) -> Iterator[Row]:
    questions = [chat(f"What does number {number} of {QUESTIONS} stand for, and why?") for number in range(QUESTIONS)]
    llm = {"model": {"name": "mygo-sim"}, "engine": QUICK_ENGINE, "replicas": {"min": 1, "max": 1}}
    args = {"llm": llm, "ingress": {"replicas": ingresses}}
    with tempfile.TemporaryDirectory() as directory, Application(ROOT / "config.sim.yaml", Path(directory), args) as application:
        application.wait_ready()
        fill(application, questions)
        bodies = [chat_of(each, stream=False) for each in questions]
        wrk.load(application.url + CHAT, bodies, CONNECTIONS, 4)  # until each of them holds each answer
        processes = application.processes(":Ingress")
        with cpu_quota(processes, options.share):
            before = [cpu_s([each]) for each in processes]
            measured = wrk.load(application.url + CHAT, bodies, CONNECTIONS, options.seconds)
            used = [(cpu_s([each]) - began) / options.seconds for each, began in zip(processes, before, strict=True)]
            stale_s = asyncio.run(_stale(application, bodies, options.invalidations))
        yield {
            "system": "ours",
            "ingresses": ingresses,
            "share": options.share,
            "requests_per_s": measured.requests_per_s,
            "p50_ms": measured.p50_s * 1e3,
            "p99_ms": measured.p99_s * 1e3,
            "least_cores_used": min(used),
            "most_cores_used": max(used),
            "requests": measured.requests,
            "errors": measured.errors,
            "stale_ms": stale_s * 1e3,
        }


async def _stale(application: Application, bodies: Sequence[bytes], invalidations: int) -> float:
    seconds = 4 + invalidations * (LOOK_AFTER_S + 2)
    load = asyncio.create_task(asyncio.to_thread(wrk.load, application.url + CHAT, bodies, CONNECTIONS, seconds))
    async with httpx.AsyncClient(base_url=application.url, timeout=30) as client:
        longest = max([await _stale_once(client) for _ in range(invalidations)])
    await load
    return longest


async def _stale_once(client: httpx.AsyncClient) -> float:
    """Seconds; 0 if no request that began after the invalidation was answered got the old answer."""
    seen: list[tuple[float, str]] = []
    asking = [asyncio.create_task(_ask_on(client, seen)) for _ in range(ASKERS)]
    await asyncio.sleep(1.0)
    old = {entry for _, entry in seen if entry}
    if not old:
        raise RuntimeError("the question was no hit before its answer was to be invalidated")
    (await client.post("/v1/cache/invalidate", json={"tag": "ended"})).raise_for_status()
    ended = time.perf_counter()
    await asyncio.sleep(LOOK_AFTER_S)
    for task in asking:
        task.cancel()
    for ended_by in await asyncio.gather(*asking, return_exceptions=True):
        if not isinstance(ended_by, asyncio.CancelledError) and isinstance(ended_by, BaseException):
            raise ended_by
    if not any(began > ended and entry not in old for began, entry in seen):
        raise RuntimeError("nothing was answered after the invalidation")
    return max([began - ended for began, entry in seen if entry in old and began > ended], default=0.0)


async def _ask_on(client: httpx.AsyncClient, seen: list[tuple[float, str]]) -> None:
    while True:
        began = time.perf_counter()
        response = await client.post(CHAT, json=TAGGED)
        response.raise_for_status()
        seen.append((began, response.headers.get("x-mygo-entry", "")))
        await asyncio.sleep(PAUSE_S)


if __name__ == "__main__":
    main()
