"""How many replicas the reported work asks for."""

from types import SimpleNamespace
from typing import Any

import pytest

from deployments.autoscaling import BUSY, KV, QUEUED, QueueingPolicy


def wanted(reported: dict[str, tuple[float, float, float]] | None, current: int, target_now: int | None = None) -> float:
    """`reported`: by replica, seconds that wait, share of time, share of the KV cache."""
    metrics: dict[str, dict[str, float]] | None = None
    if reported is not None:
        names = (QUEUED, BUSY, KV)
        metrics = {name: {replica: each[place] for replica, each in reported.items()} for place, name in enumerate(names)}
        metrics["another"] = {"a": 1000.0}
    context: Any = SimpleNamespace(
        aggregated_metrics=metrics, current_num_replicas=current, target_num_replicas=current if target_now is None else target_now
    )
    replicas, state = QueueingPolicy(queue_s=2.0, busy=0.5, kv_usage=0.8)(context)
    assert state == {}
    return replicas


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        ({"a": (0, 0, 0)}, 0.0),
        ({"a": (6, 0, 0)}, 3.0),
        ({"a": (6, 0, 0), "b": (2, 0, 0)}, 4.0),
        ({"a": (0, 0.5, 0), "b": (0, 1.0, 0)}, 3.0),
        ({"a": (0, 0, 0.8), "b": (0, 0, 0.8), "c": (0, 0, 0.4)}, 2.5),
        ({"a": (1, 0.1, 0.9)}, 1.125),
    ],
)
def test_the_tightest_limit_counts(reported: dict[str, tuple[float, float, float]], expected: float) -> None:
    assert wanted(reported, len(reported)) == pytest.approx(expected)


@pytest.mark.parametrize("reported", [None, {}, {"a": (0.0, 0.0, 0.0)}])
def test_while_a_replica_is_silent_none_is_taken_away(reported: dict[str, tuple[float, float, float]] | None) -> None:
    assert wanted(reported, 2) == 2


def test_while_a_replica_is_silent_there_can_be_more() -> None:
    assert wanted({"a": (10, 0, 0)}, 2) == 5


def test_replicas_that_are_still_starting_are_kept() -> None:
    assert wanted({"a": (2, 0, 0)}, 2, target_now=3) == 3


def test_reports_of_replicas_that_are_gone_still_count() -> None:
    assert wanted({"a": (1, 0, 0), "b": (1, 0, 0)}, 1) == 1
