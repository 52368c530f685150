"""The benchmarks run, print one line of JSON, and say what they promise on small inputs."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cache_isolation, cache_lookup, semantic_decision, semantic_stream
from benchmarks.question_stream import intents, stream
from tests.cache.databases import MARIADB, empty_mariadb, milvus_url
from tests.cache.minimal_edits import load


def rows(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    """By system."""
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    return {row["system"]: row for row in found["rows"]}


def test_semantic_decision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = tmp_path / "pairs.jsonl"
    lines = [json.dumps({"a": edit.a, "b": edit.b, "same": edit.same}) for edit in load() if edit.lang == "en"]
    pairs.write_text("\n".join(lines[::4]))
    semantic_decision.main(["--pairs", str(pairs)])
    found = rows(capsys)
    assert found.keys() == {"cosine", "gptcache", "ours_no_verifier", "ours"}
    assert found["ours"]["precision"] >= 0.97 > found["gptcache"]["precision"]
    assert found["ours"]["recall"] > 0.3


def test_semantic_stream(capsys: pytest.CaptureFixture[str]) -> None:
    semantic_stream.main(["--quick", "--queries", "150"])
    found = rows(capsys)
    assert found.keys() == {"ours", "best_static", "same_error"}
    assert found["ours"]["request_error"] <= 0.02
    assert found["ours"]["requests"] + found["ours"]["exact_hits"] == 150


def test_the_stream_is_the_same_every_time_and_as_popular_as_it_says() -> None:
    asked = list(stream(5000, 3))
    assert asked == list(stream(5000, 3))
    assert asked != list(stream(5000, 4))
    times = sorted((sum(each.intent == intent for each in asked) for intent in {each.intent for each in asked}), reverse=True)
    assert times[0] > 10 * times[len(times) // 2]
    assert max(each.intent for each in asked) < len(intents())


def test_cache_lookup(capsys: pytest.CaptureFixture[str]) -> None:
    cache_lookup.main(["--quick", "--entries", "300", "--lookups", "20"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [row["kind"] for row in found] == ["exact", "semantic", "miss", "far"]
    assert all(0 < row["lookup_p50_ms"] <= row["lookup_p99_ms"] for row in found)


@pytest.mark.parametrize("are_servers", [False, True], ids=["embedded", "servers"])
def test_cache_isolation(capsys: pytest.CaptureFixture[str], are_servers: bool) -> None:
    where = []
    if are_servers:
        empty_mariadb().close()
        where = ["--database", MARIADB, "--vectors", milvus_url()]
    cache_isolation.main(["--quick", *where])
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert (row["foreign"], row["dead"]) == (0, 0)
    assert row["hits"] > 100
