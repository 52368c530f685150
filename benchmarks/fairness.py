"""Whether one tenant's flood slows down another, over HTTP, on simulated engines.

    python -m benchmarks.fairness

`alone`: tenant B sends `--share` of half of what the fleet completes. `flooded`: the same, while A sends `--excess` times its half.
`equal`: eight tenants, each of which sends more than its eighth, by 1.2 to 10 times; `jain` is Jain's index of the tokens that they got.
`first_come` is the same application with `routing.fair: false`: engines serve in order of arrival. Without keys the tenant is a header.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import report
from benchmarks.application import ROOT, Application
from benchmarks.report import Row, say
from benchmarks.tenants import Offer, capacity, counts, jain, send_all
from deployments.config import RoutingConfig

SYSTEMS = {"ours": True, "first_come": False}
MODEL = "mygo-sim"
ENGINE = {"type": "simulated", "prefill_tokens_per_s": 8000, "decode_step_s": 0.01, "decode_step_per_request_s": 0.0002, "kv_blocks": 8192}
DEMANDS = (1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0)
"""Of eight tenants, in multiples of their share."""
WARM_UP = 0.2
"""Of the time: the queues fill up meanwhile."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("fairness", "Times to the first token of a tenant while another floods the fleet, and shares of eight.")
    parser.add_argument("--ingresses", type=report.several(int), default="1,2", help="processes that answer HTTP, comma-separated")
    parser.add_argument("--replicas", type=int, default=2, help="engines")
    parser.add_argument("--systems", type=report.several(tuple(SYSTEMS)), default=",".join(SYSTEMS), help="comma-separated")
    parser.add_argument("--seconds", type=float, default=40.0, help="of each phase")
    parser.add_argument("--share", type=float, default=0.8, help="of its half of the capacity, what B sends")
    parser.add_argument("--excess", type=float, default=10.0, help="times its half, what A sends")
    parser.add_argument("--prompt", type=int, default=800, help="tokens of each prompt")
    parser.add_argument("--answer", type=int, default=16, help="tokens of each answer")
    parser.add_argument("--ahead", type=float, default=RoutingConfig().ahead_s, help="seconds of work that engines are given in advance")
    parser.add_argument("--rounds", type=int, default=1, help="each with a running application of its own")
    options = parser.parse_args(arguments)
    if options.quick:
        options.ingresses, options.seconds, options.systems = "1", 6.0, "ours"
    cases = [(system, int(number)) for number in options.ingresses.split(",") for system in options.systems.split(",")]
    rounds = [
        [row for case in cases for row in measured(*case, options, seed)] for seed in range(options.seed, options.seed + options.rounds)
    ]
    report.show("fairness", options, report.merged(rounds, added=("requests", "rejected", "errors")))


def measured(system: str, ingresses: int, options: argparse.Namespace, seed: int) -> list[Row]:
    args = {
        "llm": {"model": {"name": MODEL}, "engine": ENGINE, "replicas": {"min": options.replicas, "max": options.replicas}},
        "ingress": {"replicas": ingresses, "max_ongoing_requests": 20_000},
        "embedding": {"source": "fake"},
        "retrieval": {"enabled": False},
        "routing": {"fair": SYSTEMS[system], "ahead_s": options.ahead},
    }
    with tempfile.TemporaryDirectory() as directory, Application(ROOT / "config.sim.yaml", Path(directory), args) as application:
        application.wait_ready()
        return list(Phases(system, ingresses, application, options, seed).rows())


class Phases:
    def __init__(self, system: str, ingresses: int, application: Application, options: argparse.Namespace, seed: int) -> None:
        self._system = system
        self._ingresses = ingresses
        self._application = application
        self._options = options
        self._seed = seed

    def rows(self) -> list[Row]:
        options = self._options
        one = self._offer("all", 1.0)
        capacity(self._application.url, MODEL, one, 16, first=2 * 10**9)
        full = capacity(self._application.url, MODEL, one, 40 * options.replicas)
        say(f"{self._system}, {self._ingresses} ingresses: capacity {full:.1f} requests/s")
        b = self._offer("b", options.share * full / 2)
        alone = self._phase("alone", [b])
        flooded = self._phase("flooded", [b, self._offer("a", options.excess * full / 2)])
        flooded["p95_ratio"] = flooded["ttft_p95_s"] / alone["ttft_p95_s"]
        equal = self._phase("equal", [self._offer(f"t{place}", demand * full / len(DEMANDS)) for place, demand in enumerate(DEMANDS)])
        return [alone, flooded, equal]

    def _offer(self, tenant: str, per_s: float) -> Offer:
        return Offer(tenant, per_s, self._options.prompt, self._options.answer)

    def _phase(self, case: str, offers: list[Offer]) -> Row:
        """Times are of the first offer's tenant."""
        seconds = self._options.seconds
        sent = asyncio.run(send_all(self._application.url, MODEL, offers, seconds, self._seed))
        counted = [each for each in sent if WARM_UP * seconds <= each.at_s]
        first = [each.first_s for each in counted if each.tenant == offers[0].tenant and each.is_answered]
        served = Counter[str]()
        for each in sent:
            if each.is_answered and WARM_UP * seconds <= each.at_s + each.end_s <= seconds:
                served[each.tenant] += each.tokens
        row: Row = {"system": self._system, "ingresses": self._ingresses, "case": case, **_quantiles(first)}
        row["p95_ratio"] = None
        row["jain"] = jain(served) if case == "equal" else None
        row["rejected_first"] = sum(each.is_refused for each in counted if each.tenant == offers[0].tenant)
        say(f"{self._system}, {self._ingresses} ingresses, {case}: p95 {row['ttft_p95_s']:.3f} s of {len(first)}")
        return {**row, "tokens_per_s": sum(served.values()) / ((1 - WARM_UP) * seconds), **counts(sent)}


def _quantiles(first: Sequence[float]) -> Row:
    return {f"ttft_p{percent}_s": float(np.percentile(first, percent)) if first else float("nan") for percent in (50, 95, 99)}


if __name__ == "__main__":
    main()
