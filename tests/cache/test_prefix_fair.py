"""Whose turn it is: shares by weights, whatever the others ask for, and nothing is saved up."""

from collections import Counter
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.prefix.fair import FairQueue

WEIGHTS = {"a": 1.0, "b": 2.0, "c": 0.5}


def queue_of(*items: tuple[str, float]) -> FairQueue[int]:
    queue = FairQueue[int](0)
    for number, (flow, cost) in enumerate(items):
        queue.add(number, flow, 1.0, cost)
    return queue


def popped(queue: FairQueue[int]) -> list[int]:
    return [queue.pop()[0] for _ in range(len(queue))]


def test_one_flow_is_in_order_of_arrival() -> None:
    assert popped(queue_of(*[("a", 5.0)] * 4)) == [0, 1, 2, 3]
    with pytest.raises(LookupError):
        FairQueue[int](0).pop()


def test_who_comes_late_does_not_wait_behind_all_of_another() -> None:
    assert popped(queue_of(*[("a", 1.0)] * 5, ("b", 1.0), ("b", 1.0))) == [5, 0, 6, 1, 2, 3, 4]


def test_what_counts_is_tokens_not_requests() -> None:
    queue = queue_of(*[("a", 30.0)] * 2, *[("b", 10.0)] * 6)
    order = popped(queue)
    assert [order.index(1), sum(each > 1 for each in order[: order.index(1)])] == [5, 4]


def test_a_flow_that_was_away_saves_nothing_up_and_owes_nothing() -> None:
    queue = FairQueue[int](0)
    for _ in range(100):  # alone, without having to wait
        queue.passed("a", 1.0, 10.0)
    for number in range(6):
        queue.add(number, "ab"[number % 2], 1.0, 10.0)
    turns = popped(queue)
    assert max(abs(sum(1 if each % 2 else -1 for each in turns[:end])) for end in range(7)) <= 2


def test_a_credit_is_what_a_flow_may_have_at_once_of_what_it_did_not_ask_for() -> None:
    queue = FairQueue[int](0)
    queue.credit = 30.0
    queue.passed("known", 1.0, 10.0)
    for number in range(100, 120):
        queue.add(number, "a", 1.0, 10.0)
    for _ in range(10):
        queue.pop()
    for number in range(6):
        queue.add(number, "known", 1.0, 10.0)
    assert [each >= 100 for each in popped(queue)[:8]] == [False, False, False, False, True, False, True, False]
    for number in range(200, 203):
        queue.add(number, "ab"[number % 2], 1.0, 10.0)
    assert [queue.pop()[0] for _ in range(2)] == [201, 200]  # of whom nothing is known saves nothing up


def test_priorities_are_a_flows_own_affair() -> None:
    queue = FairQueue[int](0)
    for number, (flow, priority) in enumerate([("a", 5), ("a", 1), ("a", 5), ("b", 9)]):
        queue.add(number, flow, 1.0, 10.0, priority=priority)
    order = popped(queue)
    assert [each for each in order if each != 3] == [1, 0, 2]
    assert order.index(3) <= 1


def test_corrections_count() -> None:
    queue = queue_of(*[("a", 10.0)] * 3, *[("b", 10.0)] * 3)
    assert queue.pop() == (3, 10.0)
    queue.charge("b", 1.0, 15.0)  # its answer was longer
    assert popped(queue) == [0, 1, 2, 4, 5]
    queue = queue_of(("a", 10.0), ("b", 10.0), ("b", 10.0))
    queue.charge("a", 1.0, -15.0)
    assert queue.pop() == (0, 10.0)


def test_what_others_have_sent_of_a_flow_counts_also_while_it_does_not_wait() -> None:
    queue = FairQueue[int](0)
    for number in range(3):
        queue.add(number, "b", 1.0, 10.0)
    queue.charge("a", 1.0, 25.0)
    for number in range(3, 6):
        queue.add(number, "a", 1.0, 10.0)
    assert popped(queue) == [0, 1, 2, 3, 4, 5]


def test_who_leaves_costs_nothing() -> None:
    queue = queue_of(("a", 100.0), ("a", 1.0), ("b", 5.0))
    queue.remove(0)
    queue.remove(0)
    queue.remove(99)
    assert (len(queue), queue.waiting("a"), queue.waiting("none")) == (2, 1, 0)
    assert popped(queue) == [2, 1]
    assert queue.weights == {}


def test_how_long_a_flow_has_to_wait() -> None:
    queue = queue_of(("a", 10.0), ("a", 10.0), ("b", 50.0), ("c", 5.0))
    assert queue.wait_cost("a", 1.0) == 20 + 20 + 5
    assert queue.wait_cost("d", 1.0) == 0  # it is next
    assert queue.wait_cost("b", 1.0) == 50 + 20 + 5


def test_idle_counters_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cache.prefix.fair.MAX_IDLE", 3)
    queue = FairQueue[int](0)
    for number in range(10):
        queue.charge(str(number), 1.0, 1.0)
    assert list(queue._idle) == ["7", "8", "9"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 100)), min_size=1, max_size=200))
def test_flows_that_wait_all_the_time_get_what_their_weights_say(costs: list[tuple[str, int]]) -> None:
    """The bound of the algorithm: between any two, weighted service differs by no more than their dearest requests."""
    queue, numbers, flows = FairQueue[int](0), count(), dict[int, tuple[str, int]]()

    def add(flow: str, cost: int) -> None:
        number = next(numbers)
        flows[number] = flow, cost
        queue.add(number, flow, WEIGHTS[flow], cost)

    for flow in WEIGHTS:
        add(flow, 1)
    dearest, served = 1.0, Counter[str]()
    for _, cost in costs:
        flow, paid = flows[queue.pop()[0]]
        served[flow] += paid
        add(flow, cost)  # it waits all the time
        dearest = max(dearest, cost)
        shares = [served[each] / WEIGHTS[each] for each in WEIGHTS]
        assert max(shares) - min(shares) <= 2 * dearest / min(WEIGHTS.values())


@given(st.lists(st.tuples(st.sampled_from(["add", "pop", "remove", "charge"]), st.sampled_from("abc"), st.integers(0, 20)), max_size=100))
def test_nothing_is_lost_or_given_twice(steps: list[tuple[str, str, int]]) -> None:
    queue, waiting, numbers = FairQueue[int](3), dict[int, str](), count()
    for step, flow, number in steps:
        if step == "add":
            item = next(numbers)
            queue.add(item, flow, WEIGHTS[flow], number, priority=number % 2, cached=number)
            waiting[item] = flow
        elif step == "pop" and waiting:
            del waiting[queue.pop()[0]]
        elif step == "remove":
            queue.remove(number)
            waiting.pop(number, None)
        else:
            queue.charge(flow, WEIGHTS[flow], number - 5)
        assert len(queue) == len(waiting)
        assert all(queue.waiting(each) == sum(flow == each for flow in waiting.values()) for each in "abc")
    assert sorted(popped(queue)) == sorted(waiting)
