"""When a replica is passed over, and how it comes back, on a clock that the test sets."""

import pytest

from deployments.circuits import ENOUGH, FIRST_S, IN_A_ROW, LONGEST_S, Circuits, Reason
from deployments.replicas import Replica, ReplicaDirectory
from tests.cache.entries import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened() -> list[Reason]:
    return []


@pytest.fixture
def circuits(clock: Clock, opened: list[Reason]) -> Circuits:
    return Circuits(clock, opened.append)


def fail(circuits: Circuits, times: int, reason: Reason = "lost") -> None:
    for _ in range(times):
        circuits.asked("a")
        circuits.failed("a", reason)


def answer(circuits: Circuits, times: int = 1) -> None:
    for _ in range(times):
        circuits.asked("a")
        circuits.answered("a")


def test_failures_in_a_row_open_a_circuit(circuits: Circuits, opened: list[Reason]) -> None:
    fail(circuits, IN_A_ROW - 1)
    answer(circuits)
    fail(circuits, IN_A_ROW - 1)
    assert circuits.passes("a")
    fail(circuits, 1, "first_token")
    assert not circuits.passes("a")
    assert circuits.passes("b")
    assert opened == ["first_token"]
    assert circuits.counts(["a", "b"]) == {"closed": 1, "open": 1, "half_open": 0}


def test_a_share_of_failures_opens_it_though_each_answer_had_begun(circuits: Circuits, opened: list[Reason]) -> None:
    for _ in range(ENOUGH // 2):
        assert circuits.passes("a")
        answer(circuits)
        circuits.failed("a", "lost")
    assert not circuits.passes("a")
    assert opened == ["lost"]


def test_few_failures_among_many_answers_are_no_reason(circuits: Circuits) -> None:
    for _ in range(100):
        answer(circuits, 3)
        fail(circuits, 1)
    assert circuits.passes("a")


def test_one_request_probes_it_and_closes_it(circuits: Circuits, clock: Clock) -> None:
    fail(circuits, IN_A_ROW)
    clock.now += FIRST_S - 0.001
    assert not circuits.passes("a")
    clock.now += 0.001
    assert circuits.passes("a")
    assert circuits.counts(["a"])["half_open"] == 1
    circuits.asked("a")
    assert not circuits.passes("a")  # the others wait for what becomes of it
    circuits.answered("a")
    assert circuits.passes("a")
    assert (circuits.counts(["a"])["closed"], circuits.badness("a")) == (1, 0)


def test_a_probe_that_is_given_up_leaves_its_place_to_another(circuits: Circuits, clock: Clock) -> None:
    fail(circuits, IN_A_ROW)
    clock.now += FIRST_S
    circuits.asked("a")
    circuits.left("a")
    assert circuits.passes("a")


def test_each_opening_lasts_twice_as_long_up_to_a_limit(circuits: Circuits, clock: Clock, opened: list[Reason]) -> None:
    fail(circuits, IN_A_ROW)
    lasted = []
    for _ in range(6):
        began = clock.now
        while not circuits.passes("a"):
            clock.now += 0.5
        lasted.append(clock.now - began)
        fail(circuits, 1)
    assert lasted == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S, 8 * FIRST_S, LONGEST_S, LONGEST_S]
    assert len(opened) == 7
    clock.now += LONGEST_S
    answer(circuits)
    fail(circuits, IN_A_ROW)
    clock.now += FIRST_S
    assert circuits.passes("a")


def test_an_answer_that_is_no_probes_closes_nothing(circuits: Circuits) -> None:
    fail(circuits, IN_A_ROW)
    answer(circuits, 5)
    assert not circuits.passes("a")


def test_what_was_sent_before_it_opened_does_not_prolong_it(circuits: Circuits, clock: Clock, opened: list[Reason]) -> None:
    fail(circuits, IN_A_ROW)
    for _ in range(5):
        circuits.failed("a", "lost")
    assert opened == ["lost"]
    clock.now += FIRST_S
    assert circuits.passes("a")


def test_a_replica_that_has_gone_is_forgotten(circuits: Circuits) -> None:
    fail(circuits, IN_A_ROW)
    circuits.keep({"b"})
    assert circuits.passes("a")


# In the directory


def directory_of(clock: Clock, *names: str) -> ReplicaDirectory:
    directory = ReplicaDirectory(clock)
    directory.replace([Replica(name, f"tcp://{name}") for name in names])
    return directory


def ids(directory: ReplicaDirectory) -> list[str]:
    return [replica.id for replica in directory.replicas]


def test_an_open_circuits_replica_is_passed_over(clock: Clock) -> None:
    directory = directory_of(clock, "a", "b")
    fail(directory.circuits, IN_A_ROW)
    assert ids(directory) == ["b"]
    clock.now += FIRST_S
    assert ids(directory) == ["a", "b"]


def test_nobody_is_left_without_a_replica(clock: Clock) -> None:
    directory = directory_of(clock, "a", "b", "c")
    for name, openings in (("a", 2), ("b", 1), ("c", 1)):
        for _ in range(openings):
            while not directory.circuits.passes(name):
                clock.now += 1
            for _ in range(IN_A_ROW):
                directory.circuits.asked(name)
                directory.circuits.failed(name, "refused")
    directory.silence("c")
    assert ids(directory) == ["b"]  # it has failed least, and it reports
    directory.discard("b")
    assert ids(directory) == ["a"]
    directory.discard("a")
    assert ids(directory) == ["c"]
