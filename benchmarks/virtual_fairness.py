"""`benchmarks/fairness.py` in virtual time: the same cases without HTTP, Ray and a machine's noise, in seconds instead of minutes.

    python -m benchmarks.virtual_fairness

`waited_p95_s`: of B's time to the first token, what it has waited in its ingress.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import random
from collections import Counter
from collections.abc import Sequence

import numpy as np

from benchmarks import report
from benchmarks.fairness import DEMANDS, ENGINE, SYSTEMS, WARM_UP
from benchmarks.report import Row
from benchmarks.tenants import Offer, arrivals, jain
from benchmarks.virtual_fleet import Served, VirtualFleet
from benchmarks.virtual_time import run
from deployments.config import RoutingConfig, SimulatedEngineConfig


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("virtual_fairness", "Times to the first token of a tenant while another floods the fleet, in virtual time.")
    parser.add_argument("--ingresses", type=report.several(int), default="1,2", help="comma-separated")
    parser.add_argument("--replicas", type=int, default=2, help="engines")
    parser.add_argument("--systems", type=report.several(tuple(SYSTEMS)), default="ours", help="comma-separated")
    parser.add_argument("--seconds", type=float, default=40.0, help="of each phase")
    parser.add_argument("--share", type=float, default=0.8, help="of its half of the capacity, what B sends")
    parser.add_argument("--excess", type=float, default=10.0, help="times its half, what A sends")
    parser.add_argument("--prompt", type=int, default=800, help="tokens of each prompt")
    parser.add_argument("--answer", type=int, default=16, help="tokens of each answer")
    parser.add_argument("--capacity", type=float, default=8.5, help="requests a second that an engine completes")
    parser.add_argument("--ahead", type=float, default=RoutingConfig().ahead_s, help="seconds of work that engines are given in advance")
    parser.add_argument("--rounds", type=int, default=1, help="each with other arrivals")
    options = parser.parse_args(arguments)
    if options.quick:
        options.ingresses, options.seconds = "2", 10.0
    cases = [(system, int(number)) for number in options.ingresses.split(",") for system in options.systems.split(",")]
    rounds = [
        [row for case in cases for row in measured(*case, options, seed)] for seed in range(options.seed, options.seed + options.rounds)
    ]
    report.show("virtual_fairness", options, report.merged(rounds, added=("requests", "rejected")))


def measured(system: str, ingresses: int, options: argparse.Namespace, seed: int) -> list[Row]:
    full = options.capacity * options.replicas
    b = _offer("b", options.share * full / 2, options)
    cases = {
        "alone": [b],
        "flooded": [b, _offer("a", options.excess * full / 2, options)],
        "equal": [_offer(f"t{place}", demand * full / len(DEMANDS), options) for place, demand in enumerate(DEMANDS)],
    }
    rows = [_case(case, offers, system, ingresses, options, seed) for case, offers in cases.items()]
    rows[1]["p95_ratio"] = rows[1]["ttft_p95_s"] / rows[0]["ttft_p95_s"]
    return rows


def _offer(tenant: str, per_s: float, options: argparse.Namespace) -> Offer:
    return Offer(tenant, per_s, options.prompt, options.answer)


def _case(case: str, offers: Sequence[Offer], system: str, ingresses: int, options: argparse.Namespace, seed: int) -> Row:
    routing = RoutingConfig(fair=SYSTEMS[system], ahead_s=options.ahead)
    random.seed(seed)
    sent = run(_served(offers, ingresses, options, routing, seed))
    counted = [each for each in sent if each.tenant == offers[0].tenant and WARM_UP * options.seconds <= each.at_s]
    times = [each.first_s for each in counted if each.first_s]
    waited = [each.waited_s for each in counted if each.first_s]
    tokens = Counter[str]()
    for each in sent:
        if each.end_s and WARM_UP * options.seconds <= each.at_s + each.end_s <= options.seconds:
            tokens[each.tenant] += options.prompt + options.answer
    return {
        "system": system,
        "ingresses": ingresses,
        "case": case,
        **{f"ttft_p{percent}_s": float(np.percentile(times, percent)) for percent in (50, 95, 99)},
        "waited_p95_s": float(np.percentile(waited, 95)),
        "p95_ratio": None,
        "jain": jain(tokens) if case == "equal" else None,
        "tokens_per_s": sum(tokens.values()) / ((1 - WARM_UP) * options.seconds),
        "requests": len(sent),
        "rejected": sum(not each.first_s for each in sent),
    }


async def _served(offers: Sequence[Offer], ingresses: int, options: argparse.Namespace, routing: RoutingConfig, seed: int) -> list[Served]:
    fleet = VirtualFleet(SimulatedEngineConfig.model_validate(ENGINE), options.replicas, ingresses, routing, seed)
    await asyncio.sleep(1.0)
    began, clock, tasks = asyncio.get_running_loop().time(), asyncio.get_running_loop().time, []
    for at_s, offer in heapq.merge(*(arrivals(offer, options.seconds, seed) for offer in offers), key=lambda each: each[0]):
        await asyncio.sleep(max(began + at_s - clock(), 0.0))
        tasks.append(asyncio.create_task(fleet.ask(offer.tenant, offer.prompt_tokens, offer.answer_tokens)))
    sent = await asyncio.gather(*tasks)
    for each in sent:
        each.at_s -= began
    fleet.close()
    return sent


if __name__ == "__main__":
    main()
