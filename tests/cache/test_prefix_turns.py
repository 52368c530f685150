import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.prefix.turns import Turns


def popped(turns: Turns[int]) -> list[int]:
    return [turns.pop() for _ in range(len(turns))]


def test_most_cached_first_and_of_equals_the_oldest() -> None:
    turns = Turns[int](8)
    for item, (cached, computed) in enumerate([(0, 100), (50, 50), (90, 10), (500, 500), (10, 0)]):
        turns.add(item, cached, computed)
    assert popped(turns) == [4, 2, 1, 3, 0]


def test_a_window_of_zero_is_the_order_of_arrival() -> None:
    turns = Turns[int](0)
    for item in range(5):
        turns.add(item, item, 1)
    assert popped(turns) == [0, 1, 2, 3, 4]


def test_who_leaves_is_forgotten() -> None:
    turns = Turns[int](3)
    turns.add(1, 0, 1)
    turns.add(2, 9, 1)
    turns.remove(2)
    turns.remove(7)
    assert popped(turns) == [1]
    with pytest.raises(LookupError):
        turns.pop()


@given(st.integers(0, 5), st.lists(st.tuples(st.booleans(), st.integers(0, 100), st.integers(0, 100)), max_size=60))
def test_nobody_is_overtaken_by_more_than_the_window(window: int, steps: list[tuple[bool, int, int]]) -> None:
    turns, waiting, overtaken = Turns[int](window), list[int](), dict[int, int]()
    for number, (comes, cached, computed) in enumerate(steps):
        if comes or not waiting:
            turns.add(number, cached, computed)
            waiting.append(number)
            overtaken[number] = 0
            continue
        chosen = turns.pop()
        for older in waiting[: waiting.index(chosen)]:
            overtaken[older] += 1
        waiting.remove(chosen)
        assert max(overtaken.values()) <= window
