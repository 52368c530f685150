"""What the application does with far more than it can compute, over HTTP, on simulated engines.

    python -m benchmarks.overload

Tenants send `--excess` times what the fleet completes. `goodput_share`: of the capacity, the answers whose first token came within the
longest wait and a second. `refused_p99_s`: how long a refusal takes. `recovery_s`: after the flood, until a request's first token comes
within twice the idle time. `memory_growth`: of all processes together, from the flood's second fifth to its end.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import report
from benchmarks.application import ROOT, Application
from benchmarks.fairness import ENGINE, MODEL
from benchmarks.report import Row, say
from benchmarks.tenants import Offer, Sent, capacity, counts, send_all

TENANTS = 8
LATE_S = 0.05
"""A refusal that takes longer came after a wait in vain."""
SLACK_S = 1.0
RECOVERED = 2.0
RECOVERY_LIMIT_S = 60.0


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("overload", "Goodput, refusals, memory and recovery under several times the capacity.")
    parser.add_argument("--ingresses", type=int, default=1, help="processes that answer HTTP")
    parser.add_argument("--replicas", type=int, default=2, help="engines")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the flood")
    parser.add_argument("--excess", type=float, default=5.0, help="times the capacity")
    parser.add_argument("--max-wait", type=float, default=2.0, help="seconds that a request may wait for an engine")
    parser.add_argument("--prompt", type=int, default=800, help="tokens of each prompt")
    parser.add_argument("--answer", type=int, default=16, help="tokens of each answer")
    options = parser.parse_args(arguments)
    if options.quick:
        options.seconds = 8.0
    args = {
        "llm": {"model": {"name": MODEL}, "engine": ENGINE, "replicas": {"min": options.replicas, "max": options.replicas}},
        "ingress": {"replicas": options.ingresses, "max_ongoing_requests": 20_000},
        "embedding": {"source": "fake"},
        "retrieval": {"enabled": False},
    }
    with tempfile.TemporaryDirectory() as directory, Application(ROOT / "config.sim.yaml", Path(directory), args) as application:
        application.wait_ready()
        row = measured(application, options)
    report.show("overload", options, [row])


def measured(application: Application, options: argparse.Namespace) -> Row:
    url, one = application.url, Offer("all", 1.0, options.prompt, options.answer)
    capacity(url, MODEL, one, 8, first=2 * 10**9)
    full = capacity(url, MODEL, one, 40 * options.replicas)
    idle_s = float(np.median([_first(url, one, number) for number in range(10)]))
    say(f"capacity {full:.1f} requests/s, idle first token {idle_s:.3f} s")
    memory = Memory(application)
    each = Offer("", options.excess * full / TENANTS, options.prompt, options.answer, options.max_wait)
    offers = [replace(each, tenant=f"t{number}") for number in range(TENANTS)]
    with memory:
        sent = asyncio.run(send_all(url, MODEL, offers, options.seconds, options.seed))
    began = time.perf_counter()
    while _first(url, one, 10**6 + int(1e6 * time.perf_counter())) > RECOVERED * idle_s:
        if time.perf_counter() - began > RECOVERY_LIMIT_S:
            break
    return {
        **_row(sent, full, options),
        "recovery_s": time.perf_counter() - began,
        "memory_growth": memory.growth,
        "memory_mb": memory.last,
    }


def _first(url: str, one: Offer, number: int) -> float:
    """Seconds to the first token of one or two requests."""
    sent = asyncio.run(send_all(url, MODEL, [replace(one, tenant=f"probe-{number}", per_s=50.0)], 0.04, number))
    return max((each.first_s for each in sent if each.is_answered), default=RECOVERY_LIMIT_S) if sent else _first(url, one, number + 1)


def _row(sent: Sequence[Sent], full: float, options: argparse.Namespace) -> Row:
    good = sum(each.is_answered and each.first_s <= options.max_wait + SLACK_S for each in sent)
    refused = [each for each in sent if each.is_refused]
    times = [each.first_s for each in refused]
    span = max(each.at_s + each.end_s for each in sent if each.is_answered)
    return {
        "system": "ours",
        "capacity_per_s": full,
        "goodput_share": good / span / full,
        **{f"refused_p{percent}_s": float(np.percentile(times, percent)) for percent in (50, 99)},
        "refused_max_s": max(times),
        "refused_late": sum(time > LATE_S for time in times),
        "refused_late_until_s": max((each.at_s for each in refused if each.first_s > LATE_S), default=0.0),
        "without_retry_after": sum(not each.retry_after for each in refused),
        **counts(sent),
    }


class Memory:
    """Of all the application's processes, each second, in MB."""

    def __init__(self, application: Application) -> None:
        self._processes = application.descendants()
        self._seen: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(1.0):
            self._seen.append(sum(each.memory_info().rss for each in self._processes if each.is_running()) / 1e6)

    @property
    def last(self) -> float:
        return self._seen[-1] if self._seen else 0.0

    @property
    def growth(self) -> float:
        return self.last / self._seen[len(self._seen) // 5] - 1 if self._seen else 0.0


if __name__ == "__main__":
    main()
