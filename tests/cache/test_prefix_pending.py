"""Blocks are expected as long as a request may bring them."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.prefix.pending import GRACE_S, MAX_LIFE_S, Expected, Pending
from tests.cache.entries import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pending(clock: Clock) -> Pending:
    return Pending(clock)


def test_requests_that_bring_the_same_blocks_are_counted(pending: Pending) -> None:
    first, second, third = pending.add([1, 2, 3], 1), pending.add([2, 3, 4], 1), pending.add([1, 2], 2)
    assert pending.masks == {1: 3, 2: 3, 3: 1, 4: 1}
    pending.drop(first)
    assert pending.masks == {1: 2, 2: 3, 3: 1, 4: 1}
    pending.drop(first)
    pending.drop(third)
    assert pending.masks == {2: 1, 3: 1, 4: 1}
    pending.drop(second)
    assert pending.masks == {}


def test_computed_blocks_stay_expected_until_their_events_have_come(pending: Pending, clock: Clock) -> None:
    expected = pending.add([1, 2], 1)
    pending.stored(expected)
    clock.now += GRACE_S - 0.01
    pending.expire()
    assert pending.masks == {1: 1, 2: 1}
    clock.now += 0.01
    pending.expire()
    assert pending.masks == {}


def test_a_request_that_nobody_ends_is_forgotten(pending: Pending, clock: Clock) -> None:
    pending.add([1], 1)
    clock.now += 1
    late = pending.add([1], 1)
    clock.now += MAX_LIFE_S - 1
    pending.expire()
    assert pending.masks == {1: 1}
    clock.now += 1
    pending.expire()
    pending.drop(late)
    assert pending.masks == {}


def test_the_blocks_of_a_replica_that_has_gone_are_not_expected(pending: Pending) -> None:
    gone, stays = pending.add([1, 2], 1), pending.add([2, 3], 2)
    pending.leave(1)
    assert pending.masks == {2: 2, 3: 2}
    pending.drop(gone)
    pending.drop(stays)
    assert pending.masks == {}


def test_expected_blocks_move_with_their_replica(pending: Pending) -> None:
    moved, again, other = pending.add([1, 2], 1), pending.add([2, 3], 1), pending.add([3], 2)
    pending.move(1, 4)
    assert pending.masks == {1: 4, 2: 4, 3: 6}
    for expected in (moved, again, other):
        pending.drop(expected)
    assert pending.masks == {}


ACTIONS = ["add", "add", "drop", "stored", "shorten", "wait", "move", "leave"]
pending_steps = st.lists(
    st.tuples(st.sampled_from(ACTIONS), st.integers(0, 9), st.integers(0, 2)),
    max_size=40,
)


@given(pending_steps)
def test_nothing_is_left_over(steps: list[tuple[str, int, int]]) -> None:
    clock = Clock()
    pending = Pending(clock)
    all_expected: list[Expected] = []
    until: dict[Expected, float] = {}
    fresh = itertools.count(10)
    bits = [1, 2, 4]
    for action, number, replica in steps:
        if action == "add":
            expected = pending.add(range(number, number + replica * 3), bits[replica])
            all_expected.append(expected)
            until[expected] = clock.now + MAX_LIFE_S
        elif action == "wait":
            clock.now += number * 10 if replica else number / 9
            pending.expire()
            until = {each: end for each, end in until.items() if end > clock.now}
        elif action == "move":
            bits[replica], old = 1 << next(fresh), bits[replica]
            pending.move(old, bits[replica])
        elif action == "leave":
            pending.leave(bits[replica])
            until = {each: end for each, end in until.items() if each.bit != bits[replica]}
        elif all_expected:
            expected = all_expected[number % len(all_expected)]
            if action == "drop":
                pending.drop(expected)
                until.pop(expected, None)
            elif action == "shorten":
                pending.shorten(expected, replica)
            else:
                pending.stored(expected)
                if expected in until:
                    until[expected] = min(until[expected], clock.now + GRACE_S)
        model: dict[int, int] = {}
        for expected in until:
            for key in expected.keys:
                model[key] = model.get(key, 0) | expected.bit
        assert pending.masks == model
    clock.now += MAX_LIFE_S
    pending.expire()
    assert pending.masks == {}
