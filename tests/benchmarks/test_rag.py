"""The benchmarks of documents: what goes in comes out, and the ways to order documents differ as they should."""

import argparse
import json
from types import ModuleType

import pytest

from benchmarks import rag_fleet, rag_overlap
from benchmarks.rag_fleet import SYSTEMS, Case, replay
from benchmarks.report import Row


def options(**changes: int) -> argparse.Namespace:
    small = {"requests": 80, "documents": 1000, "kv_tokens": 12_000, "host_tokens": 24_000, "answer": 6, "seed": 0}
    return argparse.Namespace(**{**small, "max_displacement": 4, "reorder_window": 0, **changes})


def row(system: str, **changes: int) -> Row:
    return replay(Case(system, 5, 3, 0, 0.6, 6.0, options(**changes)))


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_request_is_answered(system: str) -> None:
    made = row(system)
    assert (made["requests"], made["errors"], made["rejected"]) == (168, 0, 0)
    assert 0 <= made["cached_token_share"] < 1


def test_choosing_order_and_replica_together_finds_most() -> None:
    shares = {system: row(system)["cached_token_share"] for system in ("round_robin", "kv_aware_retrieval_order", "greedy_order", "ours")}
    assert shares["ours"] > 1.2 * max(shares["greedy_order"], shares["kv_aware_retrieval_order"])
    assert shares["kv_aware_retrieval_order"] > shares["round_robin"]


def test_without_displacement_documents_stay_by_rank() -> None:
    bound = row("ours", max_displacement=0)
    assert bound["displacement_mean"] == 0
    assert bound["cached_token_share"] < row("ours")["cached_token_share"]


def test_who_waits_for_a_turn_is_answered_too() -> None:
    made = replay(Case("ours", 5, 3, 0, 2.0, 60.0, options(reorder_window=8)))
    assert (made["requests"], made["errors"]) == (168, 0)


@pytest.mark.parametrize("benchmark", [rag_fleet, rag_overlap])
def test_the_quick_form_runs(benchmark: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    systems = ["--systems", "ours,round_robin"] if benchmark is rag_fleet else []
    benchmark.main(["--quick", "--processes", "1", "--load", "0.5", *systems])
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert {"ours"} < {row["system"] for row in rows}
    assert all(row["errors"] == 0 for row in rows)


def test_head_starts_hide_searches() -> None:
    found = {}
    for system in rag_overlap.SYSTEMS:
        asked = argparse.Namespace(**vars(options()), first=0.2, agreement=0.9, k=5, replicas=3)
        found[system] = rag_overlap.replay(rag_overlap.Case(system, 100.0, 0.2, 2.0, asked))
    assert found["ours"]["head_starts"] > 100
    assert found["ours"]["wasted_token_share"] < 0.1
    rows = list(found.values())
    assert (rag_overlap.hidden(found["ours"], rows) or 0) > 0.4
    assert abs(rag_overlap.hidden(found["sequential"], rows) or 0) < 0.2
