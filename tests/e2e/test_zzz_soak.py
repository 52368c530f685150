"""Four minutes of mixed load, while replicas are killed and the store is restarted. Last of all: it takes the whole machine."""

from benchmarks import report, soak

MINUTES = 4.0
KILL_EVERY_S = 40.0
RESTART_EVERY_S = 70.0


def test_nothing_is_wrong_lost_or_growing() -> None:
    options = soak.options(["--minutes", str(MINUTES), "--kill-every", str(KILL_EVERY_S), "--restart-every", str(RESTART_EVERY_S)])
    row = soak.run(options)
    report.show("soak", options, [row])
    assert (row["wrong"], row["improper"], row["lost_entries"]) == (0, 0, 0)
    assert row["kills"] >= 4
    assert row["store_restarts"] >= 3
    assert row["stored_entries"] > 50
    assert row["answered"] > 0.95 * row["requests"]
    assert row["refused"] + row["broken"] < 0.05 * row["requests"]
    assert row["rss_growth"] < 0.1
    assert row["files_growth"] <= 20
