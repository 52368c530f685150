"""Which replicas requests are sent to, with a clock that the test sets."""

import pytest

from deployments.replicas import SUSPENSION_S, Replica, ReplicaDirectory, directory_of
from tests.cache.entries import Clock


def replica(name: str) -> Replica:
    return Replica(name, f"http://{name}", 100, 16)


A, B, C = replica("a"), replica("b"), replica("c")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(clock: Clock) -> ReplicaDirectory:
    directory = ReplicaDirectory(clock)
    directory.replace([B, C, A])
    return directory


def test_replicas_are_in_the_order_of_their_ids(directory: ReplicaDirectory) -> None:
    assert directory.replicas == (A, B, C)


def test_a_replica_from_its_metadata() -> None:
    metadata = {"url": "http://10.0.0.1:5", "max_model_len": 8192, "block_size": 32, "kv_events": []}
    assert Replica.from_metadata("r", metadata) == Replica("r", "http://10.0.0.1:5", 8192, 32)
    named = Replica.from_metadata("r", {**metadata, "model": "m", "control_tokens": ["<end>"]})
    assert (named.model, named.control_tokens) == ("m", ("<end>",))


def test_a_suspended_replica_is_passed_over_for_a_while(directory: ReplicaDirectory, clock: Clock) -> None:
    def known() -> list[str]:
        return [replica.id for replica in directory.replicas]

    directory.suspend("b")
    assert known() == ["a", "c"]
    clock.now += SUSPENSION_S - 0.001
    assert known() == ["a", "c"]
    clock.now += 0.001
    assert known() == ["a", "b", "c"]


def test_a_second_refusal_makes_the_suspension_longer(directory: ReplicaDirectory, clock: Clock) -> None:
    directory.suspend("b")
    clock.now += 4
    directory.suspend("b")
    clock.now += 4
    assert directory.replicas == (A, C)


def test_replicas_of_another_model_are_passed_over_until_there_are_the_right_ones(directory: ReplicaDirectory) -> None:
    old, new = (Replica(name, f"http://{name}", model=name) for name in ("old", "new"))
    directory.require("new")
    directory.replace([old])
    assert (directory.replicas, directory.known, directory.is_other("old")) == ((), (), True)
    directory.replace([old, new])
    assert (directory.replicas, directory.known) == ((new,), (new,))
    assert [directory.is_other(name) for name in ("old", "new", "unknown")] == [True, False, False]
    directory.discard("new")
    directory.require("old")
    assert directory.replicas == (old,)


def test_when_every_replica_is_suspended_all_are_tried(directory: ReplicaDirectory) -> None:
    for name in "abc":
        directory.suspend(name)
    assert directory.replicas == (A, B, C)


def test_a_suspension_outlives_the_news_of_other_replicas(directory: ReplicaDirectory) -> None:
    directory.suspend("b")
    directory.replace([A, B, replica("d")])
    assert directory.replicas == (A, replica("d"))


def test_a_replica_that_comes_back_is_not_suspended(directory: ReplicaDirectory) -> None:
    directory.suspend("b")
    directory.replace([A])
    directory.replace([A, B])
    assert directory.replicas == (A, B)


def test_a_discarded_replica_is_gone(directory: ReplicaDirectory) -> None:
    directory.discard("b")
    directory.discard("unknown")
    assert directory.replicas == (A, C)


def test_an_unknown_replica_can_be_suspended(directory: ReplicaDirectory) -> None:
    directory.suspend("unknown")
    assert directory.replicas == (A, B, C)


def test_without_replicas_there_are_none(clock: Clock) -> None:
    assert ReplicaDirectory(clock).replicas == ()


def test_a_deployment_has_one_directory_in_a_process() -> None:
    assert directory_of("x of this test") is directory_of("x of this test")
    assert directory_of("x of this test") is not directory_of("y of this test")


def test_a_silent_replica_is_passed_over_until_it_reports_again() -> None:
    directory = ReplicaDirectory(lambda: 0.0)
    directory.replace([Replica(name, f"tcp://{name}") for name in "ab"])
    directory.silence("a")
    assert [replica.id for replica in directory.replicas] == ["b"]
    directory.silence("b")
    assert len(directory.replicas) == 2
    directory.resume("a")
    assert [replica.id for replica in directory.replicas] == ["a"]


def test_reports_do_not_end_the_suspension_of_a_replica_that_refused() -> None:
    now = 0.0
    directory = ReplicaDirectory(lambda: now)
    directory.replace([Replica(name, f"tcp://{name}") for name in "ab"])
    directory.suspend("a")
    directory.resume("a")
    assert [replica.id for replica in directory.replicas] == ["b"]
    now = SUSPENSION_S
    assert len(directory.replicas) == 2
