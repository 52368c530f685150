from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.entry import Entry
from cache.exact import OVERHEAD_BYTES, AnswerLru, size_of
from tests.cache.entries import Clock, make_entry, unit


def bare(**changes: Any) -> Entry:
    """As an LRU holds it."""
    return make_entry(**{"text": None, **changes})


ONE = size_of(bare())


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_returns_what_was_put_under_its_namespace_and_key_only(clock: Clock) -> None:
    lru = AnswerLru(10 * ONE, clock)
    entry = bare()
    lru.put(entry)
    assert lru.get(entry.namespace, entry.exact_key) == entry
    assert lru.get("other", entry.exact_key) is None
    assert lru.get(entry.namespace, "other") is None


def test_the_least_recently_used_goes_first(clock: Clock) -> None:
    lru = AnswerLru(3 * ONE, clock)
    first, second, third, fourth = (bare() for _ in range(4))
    for entry in (first, second, third):
        lru.put(entry)
    lru.get(first.namespace, first.exact_key)
    lru.put(fourth)
    kept = [lru.get(entry.namespace, entry.exact_key) is not None for entry in (first, second, third, fourth)]
    assert kept == [True, False, True, True]


def test_an_entry_is_gone_when_it_expires_and_its_bytes_with_it(clock: Clock) -> None:
    lru = AnswerLru(10 * ONE, clock)
    entry = bare(expires_at=clock.now + 60)
    lru.put(entry)
    clock.now += 59.9
    assert lru.get(entry.namespace, entry.exact_key) == entry
    clock.now += 0.1
    assert lru.get(entry.namespace, entry.exact_key) is None
    assert (len(lru), lru.bytes) == (0, 0)


def test_replacing_counts_once(clock: Clock) -> None:
    lru = AnswerLru(10 * ONE, clock)
    old, new = bare(exact_key="k"), bare(exact_key="k", answer=b"new")
    lru.put(old)
    lru.put(new)
    assert lru.get("a1", "k") == new
    assert (len(lru), lru.bytes) == (1, size_of(new))


def test_an_entry_larger_than_the_limit_is_not_kept_nor_is_what_it_replaces(clock: Clock) -> None:
    lru = AnswerLru(2 * ONE, clock)
    small, other, large = bare(exact_key="k"), bare(), bare(exact_key="k", answer=bytes(2 * ONE))
    lru.put(small)
    lru.put(other)
    lru.put(large)
    assert lru.get("a1", "k") is None
    assert lru.get(other.namespace, other.exact_key) == other


def test_a_limit_of_zero_keeps_nothing(clock: Clock) -> None:
    lru = AnswerLru(0, clock)
    lru.put(bare(answer=b""))
    assert (len(lru), lru.bytes) == (0, 0)


def test_discard_and_clear(clock: Clock) -> None:
    lru = AnswerLru(10 * ONE, clock)
    entry, other = bare(), bare()
    lru.put(entry)
    lru.put(other)
    lru.discard(entry.namespace, entry.exact_key)
    lru.discard("a1", "unknown")
    assert (len(lru), lru.get(entry.namespace, entry.exact_key)) == (1, None)
    lru.clear()
    assert (len(lru), lru.bytes, lru.get(other.namespace, other.exact_key)) == (0, 0, None)


def test_only_what_a_reader_needs_is_held_and_counted(clock: Clock) -> None:
    lru = AnswerLru(10 * ONE, clock)
    entry = bare(answer=bytes(1000), text="日" * 1000, vector=unit(1, 0), tags=("a",))
    lru.put(entry)
    held = lru.get(entry.namespace, entry.exact_key)
    assert held is not None
    assert (held.answer, held.text, held.vector, held.tags) == (entry.answer, None, None, ())
    assert lru.bytes == size_of(entry) == OVERHEAD_BYTES + 1000


def test_what_a_reader_makes_is_counted_with_the_entry_and_goes_with_it(clock: Clock) -> None:
    lru = AnswerLru(3 * ONE, clock)
    first, second = bare(), bare()
    for entry in (first, second):
        lru.put(entry)
    held = lru.held(second.namespace, second.exact_key)
    assert held is not None
    lru.attach(held, "made", ONE + 1)
    assert (lru.get(first.namespace, first.exact_key), lru.bytes) == (None, 2 * ONE + 1)
    again = lru.held(second.namespace, second.exact_key)
    assert again is not None
    assert again.made == "made"
    lru.put(second)
    lru.attach(held, "made of what is gone", ONE)
    again = lru.held(second.namespace, second.exact_key)
    assert again is not None
    assert (again.made, lru.bytes) == (None, ONE)


operations = st.lists(st.tuples(st.sampled_from(["put", "get", "discard"]), st.integers(0, 9), st.integers(0, 3 * ONE)), max_size=60)


@given(operations)
def test_never_over_the_limit_and_agrees_with_a_model(steps: list[tuple[str, int, int]]) -> None:
    limit = 5 * ONE
    lru = AnswerLru(limit, Clock())
    model: OrderedDict[str, int] = OrderedDict()
    for operation, number, size in steps:
        key = f"k{number}"
        if operation == "put":
            entry = bare(exact_key=key, answer=bytes(size))
            lru.put(entry)
            model[key] = size_of(entry)
            model.move_to_end(key)
            while sum(model.values()) > limit:
                model.popitem(last=False)
        elif operation == "get":
            assert (lru.get("a1", key) is not None) == (key in model)
            if key in model:
                model.move_to_end(key)
        else:
            lru.discard("a1", key)
            model.pop(key, None)
        assert lru.bytes == sum(model.values()) <= limit
        assert len(lru) == len(model)
