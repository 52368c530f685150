"""A small form of `benchmarks.fuzz`: damaged requests to the whole application, with keys, on the simulated engine."""

from pathlib import Path

from benchmarks.fuzz.__main__ import attack, options_of
from benchmarks.fuzz.world import ARGS, World
from tests.e2e.system import ROOT, System, report

REQUESTS = "4000"
SECONDS = "60"


def test_damaged_requests(tmp_path: Path) -> None:
    report("starting scripts/serve with config.sim.yaml and keys")
    system = System(ROOT / "config.sim.yaml", tmp_path, ARGS)
    try:
        system.wait_ready()
        rows, faults = attack(World(system), options_of(["--requests", REQUESTS, "--seconds", SECONDS]))
    finally:
        system.stop()
    assert faults == []
    parts = {row["part"]: row for row in rows}
    assert parts["bytes"]["requests"] >= 1000
    assert parts["bytes"]["canaries"] > 0
    assert parts["schema"]["requests"] > 0
