"""How many replicas the reported load asks for."""

from types import SimpleNamespace
from typing import Any

import pytest

from deployments.autoscaling import ONGOING, OngoingRequestsPolicy


def wanted(reported: dict[str, float] | None, current: int, target_now: int | None = None) -> float:
    metrics = None if reported is None else {ONGOING: reported, "another": {"a": 1000.0}}
    context: Any = SimpleNamespace(
        aggregated_metrics=metrics, current_num_replicas=current, target_num_replicas=current if target_now is None else target_now
    )
    replicas, state = OngoingRequestsPolicy(target=10)(context)
    assert state == {}
    return replicas


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        ({"a": 0.0}, 0.0),
        ({"a": 10.0}, 1.0),
        ({"a": 11.0}, 1.1),
        ({"a": 30.0, "b": 0.0}, 3.0),
        ({"a": 5.0, "b": 5.0}, 1.0),
    ],
)
def test_replicas_follow_the_load_of_all(reported: dict[str, float], expected: float) -> None:
    assert wanted(reported, len(reported)) == pytest.approx(expected)


@pytest.mark.parametrize("reported", [None, {}, {"a": 0.0}])
def test_while_a_replica_is_silent_none_is_taken_away(reported: dict[str, float] | None) -> None:
    assert wanted(reported, 2) == 2


def test_while_a_replica_is_silent_there_can_be_more() -> None:
    assert wanted({"a": 50.0}, 2) == 5


def test_replicas_that_are_still_starting_are_kept() -> None:
    assert wanted({"a": 5.0}, 2, target_now=3) == 3


def test_reports_of_replicas_that_are_gone_still_count() -> None:
    assert wanted({"a": 5.0, "b": 5.0}, 1) == 1
