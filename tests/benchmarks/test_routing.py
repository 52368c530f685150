"""The fleet simulator: what goes in comes out, and the ways to choose replicas differ as they should."""

import json
from pathlib import Path

import pytest

from benchmarks import systems, traces
from benchmarks.fleet import Clock, Fleet, summary
from benchmarks.report import Row
from benchmarks.routing_decision import Filled, events
from benchmarks.traces import Line
from deployments.config import SimulatedEngineConfig

BLOCK = 128
ENGINE = SimulatedEngineConfig(block_size=BLOCK, kv_blocks=400, max_model_len=400 * BLOCK, max_running=64)
LINES = traces.groups(12, 6, prefix=2048, question=200, answer=20, requests_per_s=8.0, seed=1)


def replay(name: str, lines: list[Line] | None = None, replicas: int = 4, ingresses: int = 1) -> Row:
    clock = Clock()
    fleet = Fleet(ENGINE, replicas, systems.create(name, ENGINE, replicas, clock, 0, ingresses), clock)
    fleet.run(traces.arrivals(lines or LINES))
    return summary(fleet)


@pytest.mark.parametrize("name", ["ours", "round_robin", "power_of_two", "random", "ray_prefix_affinity"])
def test_every_request_is_answered(name: str) -> None:
    row = replay(name)
    assert (row["requests"], row["errors"], row["rejected"]) == (len(LINES), 0, 0)
    assert 0 <= row["cached_token_share"] <= traces.shared_share(LINES, BLOCK)


def test_the_cache_is_used_best_by_who_knows_it() -> None:
    ours, blind = replay("ours"), replay("round_robin")
    assert ours["cached_token_share"] > 1.5 * blind["cached_token_share"]
    assert ours["ttft_p50_s"] < blind["ttft_p50_s"]


def test_several_ingresses_do_as_well_as_one() -> None:
    assert replay("ours", ingresses=3)["cached_token_share"] == pytest.approx(replay("ours")["cached_token_share"], rel=0.05)


@pytest.mark.parametrize("ingresses", [1, 2])
def test_a_burst_of_one_new_prefix_is_spread(ingresses: int) -> None:
    lines = traces.burst(300, prefix=4096, question=500, answer=20, seconds=2.0, seed=0)
    assert replay("ours", lines, ingresses=ingresses)["max_mean_load"] <= 1.25


def test_a_request_that_fits_no_engine_is_counted() -> None:
    lines = [Line(0.0, 401 * BLOCK, 1, tuple(range(101))), *LINES]
    assert replay("ours", lines)["rejected"] == 1


def test_mooncakes_format_is_read(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    lines = [
        {"timestamp": 0, "input_length": 700, "output_length": 3, "hash_ids": [7, 8]},
        {"timestamp": 500, "input_length": 1024, "output_length": 0, "hash_ids": [7, 9]},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    read = traces.mooncake(str(path))
    assert read == [Line(0.0, 700, 3, (7, 8)), Line(0.5, 1024, 1, (7, 9))]
    first, second = traces.arrivals(read, 4.0)
    assert (len(first.prompt), len(second.prompt), second.at_s) == (700, 1024, 0.5)
    assert first.prompt[:512] == second.prompt[:512]
    assert first.prompt[512:] != second.prompt[512:700]
    assert traces.shared_share(read, BLOCK) == 512 / 1724


def test_an_unknown_trace_says_where_to_get_one() -> None:
    with pytest.raises(FileNotFoundError, match="Mooncake"):
        traces.find("no such trace")


def test_decisions_are_timed() -> None:
    row = Filled(4, 2000, 32, 0).decisions(8_000, 10)
    assert 0 < row["decision_p50_us"] <= row["decision_p99_us"]
    assert events(32, 4, 2_000)["events_per_s"] > 0
