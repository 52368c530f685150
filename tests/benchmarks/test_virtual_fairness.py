"""Two ingresses are as fair as one, in virtual time: the application's own turnstiles, watchers and accounts over simulated engines."""

import pytest

from benchmarks.report import Row
from benchmarks.virtual_fairness import main


def test_a_flood_in_two_ingresses_hardly_slows_down_who_keeps_to_its_share(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    main(["--ingresses", "2", "--seconds", "20"])
    rows: list[Row] = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    _, flooded, equal = rows
    assert flooded["p95_ratio"] < 2.0  # 1.5 in the long run, 7 without news of each other; some seconds of some hundred requests vary
    assert flooded["tokens_per_s"] > 13_400
    assert equal["jain"] > 0.98
    assert equal["tokens_per_s"] > 13_400
