"""The benchmarks of chunk indexes and of the result cache, on few rows."""

import json

import numpy as np
import pytest

from benchmarks import result_cache, vector_search
from benchmarks.report import Row
from benchmarks.vector_world import World
from retrieval.indexes.building import build


def printed(capsys: pytest.CaptureFixture[str]) -> list[Row]:
    rows: list[Row] = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    return rows


def test_kinds_are_measured_against_comparing_all(capsys: pytest.CaptureFixture[str]) -> None:
    vector_search.main(["--rows", "1500", "--queries", "10", "--kinds", "flat,hnsw,ivf_sq8,ours", "--data", "clustered", "--threads", "1"])
    rows = [row for row in printed(capsys) if "build_s" in row]
    assert [row["system"] for row in rows] == ["flat", "hnsw", "ivf_sq8", "ours"]
    assert rows[0]["recall"] == 1
    assert all(row["recall"] >= 0.9 and row["disk_mb"] > 1500 * 384 * 4 / 1e6 for row in rows)


def test_stages_and_filters_of_an_ivf_are_measured() -> None:
    world = World(1500, 0, "clustered")
    index = build(world.slices(), version=1, dimension=384, embedder="e", kind="ivf")
    stages = vector_search._staged(index, world.queries(5))
    assert [row["stage"] for row in stages] == [1, 2, 3, 4]
    assert stages[-1]["first_final_share"] == stages[-1]["time_share"] == 1
    assert all(row["recall"] == 1 for row in vector_search._filtered(index, world, world.queries(5)))  # few rows are compared


def test_a_search_through_the_service_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    vector_search.main(["--through", "service", "--rows", "5000", "--queries", "5", "--threads", "1"])
    rows = {(row["case"], row.get("from")): row for row in printed(capsys)}
    assert [case for case, _ in rows] == ["open", "open", "new", "repeated", "first", "filtered"]
    assert rows["new", None]["kind"] == "flat"
    assert all(row["search_p50_ms"] > 0 for (case, _), row in rows.items() if case != "open")


def test_a_world_is_the_same_each_time() -> None:
    (rows, vectors), (again, same) = (next(World(100, 5, "clustered").slices()) for _ in range(2))
    assert np.array_equal(rows, again)
    assert np.array_equal(vectors, same)
    assert not np.array_equal(vectors, next(World(100, 6, "clustered").slices())[1])


def test_tolerance_brings_hits_and_costs_truth(capsys: pytest.CaptureFixture[str]) -> None:
    result_cache.main(["--quick", "--requests", "150"])
    rows = printed(capsys)
    assert rows[0]["near_hit_rate"] == 0
    assert [row["hit_rate"] for row in rows] == sorted(row["hit_rate"] for row in rows)
    assert rows[-1]["near_hit_rate"] > 0
    assert 0 < rows[-1]["overlap"] < 1
