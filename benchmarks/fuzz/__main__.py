"""Fuzzes the application over HTTP: `python -m benchmarks.fuzz`. Exit code 1 if anything is wrong."""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.application import ROOT, Application
from benchmarks.fuzz import bytes_part
from benchmarks.fuzz.bytes_part import MAX_SHOWN, Outcome, make_case, run_case
from benchmarks.fuzz.world import ARGS, World
from benchmarks.report import Row, parser, say, show

BATCH = 2000
"""Numbers after which what was deleted is made again."""
SCHEMA_SHARE = 0.2


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    made = parser("fuzz", __doc__)
    made.add_argument("--requests", type=int, default=50_000, help="in all; a fifth of them by schemathesis, which is slower")
    made.add_argument("--first", type=int, default=0, help="the first number of the bytes part, to go on where another run has ended")
    made.add_argument("--part", choices=("both", "bytes", "schema"), default="both")
    made.add_argument("--seconds", type=float, default=86_400.0, help="stop then, even if not all is sent")
    made.add_argument("--show", action="store_true", help="bytes: print what is sent, and what comes back")
    return made.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = options_of(arguments)
    if options.quick:
        options.requests = min(options.requests, 4000)
    with (
        tempfile.TemporaryDirectory() as directory,
        Application(ROOT / "config.sim.yaml", Path(directory), ARGS, builder="serve_app.app:build") as app,
    ):
        app.wait_ready()
        rows, faults = attack(World(app), options)
    for each in faults[:MAX_SHOWN]:
        say(each)
    show("fuzz", options, rows)
    return 1 if faults else 0


def attack(world: World, options: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """What was sent and answered by part, and everything that is wrong."""
    schema = {"both": round(options.requests * SCHEMA_SHARE), "schema": options.requests, "bytes": 0}[options.part]
    rows: list[Row] = []
    faults: list[str] = []
    world.check()
    until = time.monotonic() + options.seconds
    before = world.footprint()
    if numbers := range(options.first, options.first + options.requests - schema):
        rows.append(_measured("bytes", faults, lambda outcome: _bytes(world, options, numbers, outcome, until)))
    if schema:
        from benchmarks.fuzz import schema_part  # importing it takes seconds

        rows.append(_measured("schema", faults, lambda outcome: schema_part.run(world, options.seed, schema, outcome, until)))
    try:
        world.check()
    except AssertionError as error:
        faults.append(f"afterwards: {error}")
    faults += [f"logged: {each}" for each in world.logged()]
    after = world.footprint()
    for kind, used in after.items():
        was = before.get(kind, {})
        rows.append(
            {
                "system": "ours",
                "part": kind,
                **{name: round(value) for name, value in used.items()},
                **{f"{name}_before": round(was.get(name, 0)) for name in used},
            }
        )
    return rows, faults


def _measured(part: str, faults: list[str], work: Callable[[Outcome], None]) -> Row:
    outcome = Outcome()
    began = time.monotonic()
    try:
        work(outcome)
    except AssertionError as error:
        outcome.add(part, [f"it does not answer as it should: {error}"])
    took = time.monotonic() - began
    faults += outcome.faults
    statuses = " ".join(f"{status}:{number}" for status, number in sorted(outcome.statuses.items()))
    counts = {"requests": outcome.requests, "errors": len(outcome.faults), "canaries": outcome.canaries}
    return {
        "system": "ours",
        "part": part,
        **counts,
        "requests_per_s": outcome.requests / took,
        "slowest_s": outcome.slowest_s,
        "statuses": statuses,
    }


def _bytes(world: World, options: argparse.Namespace, numbers: range, outcome: Outcome, until: float) -> None:
    if options.show:
        asyncio.run(_show(world, options.seed, numbers, outcome))
        return
    for first in range(numbers.start, numbers.stop, BATCH):
        asyncio.run(bytes_part.run(world, options.seed, range(first, min(first + BATCH, numbers.stop)), outcome))
        world.mend()
        say(f"{first}: {outcome.requests} requests, {len(outcome.faults)} faults")
        if time.monotonic() > until:
            break


async def _show(world: World, seed: int, numbers: range, outcome: Outcome) -> None:
    for number in numbers:
        case = make_case(world, seed, number)
        result, found = await run_case(world, case)
        outcome.requests += 1
        outcome.add(f"bytes --seed {seed} --first {number}", found)
        say(f"--- {number} {case.kind} {case.owners} due={case.is_due} hung={result.hung} {result.seconds:.3f} s {found}")
        for piece in case.pieces:
            say(f"> {piece[:1500]!r}")
        say(f"< {result.raw[:1500]!r}")


if __name__ == "__main__":
    sys.exit(main())
