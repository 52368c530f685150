"""What is remembered of searches, for whom, and for how long."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cache.entry import Vector
from retrieval.indexes.base import Found
from retrieval.result_cache import Counts, ResultCache, ResultCacheConfig, SearchKey
from tests.cache.entries import Clock, unit

KEY = SearchKey(access="a", stores=("x", "y"), versions=(3, 5), top_k=2, filters='{"k":1}', threshold=0.25)
FOUND = [Found(7, 0.9), Found(3, 0.5)]
QUERY = unit(1, 0, 0)


def near(cosine: float) -> Vector:
    return unit(cosine, (1 - cosine**2) ** 0.5, 0)


def cache(clock: Clock | None = None, **changes: float) -> ResultCache:
    return ResultCache(ResultCacheConfig(**{"tolerance": 0.05, **changes}), clock or Clock())  # type: ignore[arg-type]


def test_the_same_search_has_its_result_again() -> None:
    results = cache()
    assert results.exact(KEY, "What is it?") is None
    results.put(KEY, "What is it?", QUERY, FOUND)
    assert results.exact(KEY, "What is it?") == FOUND
    assert results.exact(KEY, "  What\tis \n it? ") == FOUND
    assert results.exact(KEY, "what is it?") is None
    assert results.counts == Counts(exact=2)


def test_characters_that_look_and_encode_alike_are_alike() -> None:
    results = cache()
    results.put(KEY, "caf\u00e9 \ud800", QUERY, FOUND)
    assert results.exact(KEY, "cafe\u0301 \ud800") == FOUND


def test_a_text_of_any_length_takes_its_time_only_once() -> None:
    results = cache()
    began = time.process_time()
    for hostile in ("a" + "\u0301\u0316" * 40_000, "\u0301 \n" * 40_000):
        results.put(KEY, hostile, QUERY, FOUND)
        assert results.exact(KEY, hostile) == FOUND
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, access="b"),
        replace(KEY, stores=("x", "z")),
        replace(KEY, stores=("y", "x")),
        replace(KEY, versions=(3, 6)),
        replace(KEY, versions=(2, 5)),
        replace(KEY, top_k=3),
        replace(KEY, filters=""),
        replace(KEY, threshold=None),
    ],
)
def test_searches_of_other_keys_share_nothing(other: SearchKey) -> None:
    results = cache()
    results.put(KEY, "q", QUERY, FOUND)
    assert results.exact(other, "q") is None
    assert results.near(other, "q", QUERY) is None


@pytest.mark.parametrize(("cosine", "hit"), [(1.0, True), (0.96, True), (0.94, False), (-1.0, False)])
def test_a_query_within_the_tolerance_has_the_result_of_the_nearest(cosine: float, hit: bool) -> None:
    results = cache()
    results.put(KEY, "far", unit(0, 0, 1), [Found(1, 0.1)])
    results.put(KEY, "q", QUERY, FOUND)
    results.put(KEY, "opposite", unit(0, -1, 0), [])
    assert results.near(KEY, "other", near(cosine)) == (FOUND if hit else None)
    assert results.exact(KEY, "other") == (FOUND if hit else None)  # and then for its text, too
    assert results.counts == (Counts(near=1, exact=1) if hit else Counts(misses=1))


def test_tolerance_does_not_add_up() -> None:
    """What was found near is no neighbour for others: they would drift away from what was searched."""
    results = cache()
    results.put(KEY, "q", QUERY, FOUND)
    assert results.near(KEY, "near", near(0.96)) == FOUND
    assert results.near(KEY, "further", near(0.90)) is None


def test_without_tolerance_only_equal_texts_count() -> None:
    results = cache(tolerance=0)
    results.put(KEY, "q", QUERY, FOUND)
    assert results.near(KEY, "p", QUERY) is None
    assert results.exact(KEY, "q") == FOUND


def test_a_change_of_a_collection_ends_all_results_of_it() -> None:
    results = cache()
    for number in range(5):
        results.put(KEY, str(number), QUERY, FOUND)
    newer = replace(KEY, versions=(3, 6))
    assert results.exact(newer, "1") is None
    assert (len(results), results.bytes, results.counts.outdated) == (0, 0, 5)
    results.put(newer, "1", QUERY, [])
    results.put(KEY, "2", QUERY, FOUND)  # a search that was slower than the change
    assert results.exact(KEY, "1") is results.exact(KEY, "2") is results.near(KEY, "2", QUERY) is None
    assert results.exact(newer, "1") == []


def test_a_result_ends_with_its_time_and_so_does_what_it_served_nearby() -> None:
    clock = Clock()
    results = cache(clock, ttl_s=10)
    results.put(KEY, "q", QUERY, FOUND)
    clock.now += 9
    assert results.near(KEY, "p", near(0.99)) == FOUND
    clock.now += 1
    assert results.exact(KEY, "q") is results.exact(KEY, "p") is results.near(KEY, "q", QUERY) is None
    assert len(results) == 0


def test_the_least_recently_used_goes_first() -> None:
    results = cache(max_entries=3, tolerance=0.01)
    for number in range(3):
        results.put(KEY, str(number), unit(1, number, 0), FOUND)
    results.exact(KEY, "0")
    results.put(KEY, "3", unit(0, 0, 1), FOUND)
    assert [results.exact(KEY, str(number)) is not None for number in range(4)] == [True, False, True, True]
    assert results.near(KEY, "gone", unit(1, 1, 0)) is None
    assert results.near(KEY, "new", unit(0, 0, 1)) == FOUND
    assert results.counts.evicted == 2


def test_bytes_are_limited() -> None:
    results = cache(max_bytes=5000)
    for number in range(50):
        results.put(KEY, str(number) * 10, QUERY, FOUND)
        assert results.bytes <= 5000
    assert 1 < len(results) < 10
    results.put(KEY, "x" * 5000, QUERY, FOUND)
    assert results.exact(KEY, "x" * 5000) is None
    results.exact(replace(KEY, versions=(4, 5)), "x")  # all of older versions goes
    assert (len(results), results.bytes) == (0, 0)


def test_the_caller_may_change_what_it_was_given() -> None:
    results, found, vector = cache(), list(FOUND), QUERY.copy()
    results.put(KEY, "q", vector, found)
    found.clear()
    vector[:] = unit(0, 1, 0)
    again = results.exact(KEY, "q")
    assert again == FOUND
    again.clear()
    assert results.near(KEY, "p", QUERY) == FOUND


def test_threads_see_only_what_was_put_under_their_key() -> None:
    results = cache(max_entries=20)
    barrier = threading.Barrier(6)

    def work(thread: int) -> None:
        barrier.wait()
        for step in range(300):
            key, found = replace(KEY, access=str(thread % 3), versions=(step // 50, 0)), [Found(thread % 3, 0.5)]
            results.put(key, str(step % 10), unit(1, step % 10, 0), found)
            for again in (results.exact(key, str(step % 7)), results.near(key, "p", unit(1, step % 7, 0))):
                assert again in (None, found)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert len(results) <= 20


@pytest.mark.parametrize("changes", [{"tolerance": 1}, {"tolerance": -0.1}, {"max_entries": 0}, {"max_bytes": 0}, {"ttl_s": 0}, {"x": 1}])
def test_what_cannot_be_configured_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        ResultCacheConfig(**changes)  # type: ignore[arg-type]


steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "exact", "near", "later"]),
        st.sampled_from(["a", "b"]),
        st.integers(0, 3),
        st.integers(0, 11),
    ),
    max_size=80,
)
VECTORS = [unit(np.cos(angle), np.sin(angle), 0) for angle in np.linspace(0, 3, 12)]


@given(script=steps)
def test_any_use_returns_only_what_was_put_at_this_version_within_tolerance_and_time(script: list[tuple[str, str, int, int]]) -> None:
    clock = Clock()
    results = cache(clock, max_entries=4, ttl_s=30, tolerance=0.05)
    put: dict[tuple[str, int, int], float] = {}
    for step, access, version, query in script:
        key, now = replace(KEY, access=access, versions=(version, 0)), clock.now
        live = {other for (who, when, other), at in put.items() if (who, when) == (access, version) and now < at + 30}
        if step == "put":
            results.put(key, str(query), VECTORS[query], [Found(query, 0.5)])
            put[access, version, query] = now
        elif step == "later":
            clock.now += 1 + query
        else:
            found = results.exact(key, str(query)) if step == "exact" else results.near(key, str(query), VECTORS[query])
            if found is not None:
                assert found[0].row in live
                assert float(VECTORS[found[0].row] @ VECTORS[query]) >= 0.95 - 1e-5
        assert len(results) <= 4
    for access in {access for _, access, _, _ in script}:
        results.exact(replace(KEY, access=access, versions=(99, 0)), "")  # all of older versions goes
    assert results.bytes == 0
