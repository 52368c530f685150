"""Recent vectors are found before the index has them."""

import pytest

from cache.overlay import Overlay
from cache.vectors.base import Neighbour, VectorRecord
from tests.cache.entries import Clock, unit


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def overlay(clock: Clock) -> Overlay:
    return Overlay(clock, max_records=3)


def record(entry_id: str, x: float, y: float, namespace: str = "a1", fingerprint: str = "f1") -> VectorRecord:
    return VectorRecord(entry_id, namespace, fingerprint, unit(x, y))


def ids(overlay: Overlay, namespace: str = "a1", fingerprint: str = "f1", k: int = 9) -> list[str]:
    return [each.id for each in overlay.search(namespace, fingerprint, unit(1, 0), k)]


def test_the_closest_come_first_and_partitions_are_walls(overlay: Overlay) -> None:
    overlay.add(record("far", 0, 1))
    overlay.add(record("near", 1, 0))
    overlay.add(record("elsewhere", 1, 0, fingerprint="f2"))
    assert overlay.search("a1", "f1", unit(1, 0), 9) == [Neighbour("near", 1.0), Neighbour("far", 0.0)]
    assert ids(overlay, k=1) == ["near"]
    assert ids(overlay, fingerprint="f2") == ["elsewhere"]
    assert ids(overlay, namespace="b2") == []


def test_the_oldest_go_when_it_is_full(overlay: Overlay) -> None:
    for number in range(5):
        overlay.add(record(str(number), 1, number))
    assert ids(overlay) == ["2", "3", "4"]


def test_a_settled_record_goes_when_the_index_shows_it(overlay: Overlay, clock: Clock) -> None:
    overlay.add(record("x", 1, 0))
    overlay.settle(["x", "unknown"], 5)
    clock.now += 4.9
    assert ids(overlay) == ["x"]
    clock.now += 0.1
    assert ids(overlay) == []
    assert len(overlay) == 0


def test_a_record_that_is_added_again_is_recent_again(overlay: Overlay, clock: Clock) -> None:
    overlay.add(record("x", 1, 0))
    overlay.settle(["x"], 5)
    overlay.add(record("x", 0, 1))
    clock.now += 99
    assert overlay.search("a1", "f1", unit(0, 1), 1) == [Neighbour("x", 1.0)]
