from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.exact import OVERHEAD_BYTES, AnswerLru, size_of
from tests.cache.entries import Clock, make_entry, unit

ONE = size_of(make_entry())


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_returns_what_was_put_under_its_namespace_and_key_only(clock: Clock) -> None:
    lru = AnswerLru(10 * ONE, clock)
    entry = make_entry()
    lru.put(entry)
    assert lru.get(entry.namespace, entry.exact_key) == entry
    assert lru.get("other", entry.exact_key) is None
    assert lru.get(entry.namespace, "other") is None


def test_the_least_recently_used_goes_first(clock: Clock) -> None:
    lru = AnswerLru(3 * ONE, clock)
    first, second, third, fourth = (make_entry() for _ in range(4))
    for entry in (first, second, third):
        lru.put(entry)
    lru.get(first.namespace, first.exact_key)
    lru.put(fourth)
    kept = [lru.get(entry.namespace, entry.exact_key) is not None for entry in (first, second, third, fourth)]
    assert kept == [True, False, True, True]


def test_an_entry_is_gone_when_it_expires_and_its_bytes_with_it(clock: Clock) -> None:
    lru = AnswerLru(10 * ONE, clock)
    entry = make_entry(expires_at=clock.now + 60)
    lru.put(entry)
    clock.now += 59.9
    assert lru.get(entry.namespace, entry.exact_key) == entry
    clock.now += 0.1
    assert lru.get(entry.namespace, entry.exact_key) is None
    assert (len(lru), lru.bytes) == (0, 0)


def test_replacing_counts_once(clock: Clock) -> None:
    lru = AnswerLru(10 * ONE, clock)
    old, new = make_entry(exact_key="k"), make_entry(exact_key="k", answer=b"new")
    lru.put(old)
    lru.put(new)
    assert lru.get("a1", "k") == new
    assert (len(lru), lru.bytes) == (1, size_of(new))


def test_an_entry_larger_than_the_limit_is_not_kept_nor_is_what_it_replaces(clock: Clock) -> None:
    lru = AnswerLru(2 * ONE, clock)
    small, other, large = make_entry(exact_key="k"), make_entry(), make_entry(exact_key="k", answer=bytes(2 * ONE))
    lru.put(small)
    lru.put(other)
    lru.put(large)
    assert lru.get("a1", "k") is None
    assert lru.get(other.namespace, other.exact_key) == other


def test_a_limit_of_zero_keeps_nothing(clock: Clock) -> None:
    lru = AnswerLru(0, clock)
    lru.put(make_entry(answer=b""))
    assert (len(lru), lru.bytes) == (0, 0)


def test_discard_and_clear(clock: Clock) -> None:
    lru = AnswerLru(10 * ONE, clock)
    entry, other = make_entry(), make_entry()
    lru.put(entry)
    lru.put(other)
    lru.discard(entry.namespace, entry.exact_key)
    lru.discard("a1", "unknown")
    assert (len(lru), lru.get(entry.namespace, entry.exact_key)) == (1, None)
    lru.clear()
    assert (len(lru), lru.bytes, lru.get(other.namespace, other.exact_key)) == (0, 0, None)


def test_size_covers_all_that_the_entry_keeps_alive() -> None:
    bare = make_entry(answer=b"", text=None)
    assert size_of(bare) == OVERHEAD_BYTES
    assert size_of(make_entry(answer=bytes(1000), text=None)) == OVERHEAD_BYTES + 1000
    assert size_of(make_entry(answer=b"", text=None, vector=unit(1, 0))) == OVERHEAD_BYTES + 8
    assert size_of(make_entry(answer=b"", text="日" * 1000)) >= OVERHEAD_BYTES + 2000


operations = st.lists(st.tuples(st.sampled_from(["put", "get", "discard"]), st.integers(0, 9), st.integers(0, 3 * ONE)), max_size=60)


@given(operations)
def test_never_over_the_limit_and_agrees_with_a_model(steps: list[tuple[str, int, int]]) -> None:
    limit = 5 * ONE
    lru = AnswerLru(limit, Clock())
    model: OrderedDict[str, int] = OrderedDict()
    for operation, number, size in steps:
        key = f"k{number}"
        if operation == "put":
            entry = make_entry(exact_key=key, answer=bytes(size))
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
