"""Token buckets: never more than the limit in a minute beyond what was saved up, whatever is taken and given back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.admission.bucket import Bucket


def test_it_is_full_at_first_and_refilled_all_the_time() -> None:
    bucket = Bucket(60, 0.0)
    assert (bucket.level(0.0), bucket.wait_s(60, 0.0), bucket.full_s(0.0)) == (60.0, 0.0, 0.0)
    bucket.take(60, 0.0)
    assert (bucket.level(0.0), bucket.wait_s(1, 0.0), bucket.full_s(0.0)) == (0.0, 1.0, 60.0)
    assert (bucket.level(30.0), bucket.wait_s(40, 30.0), bucket.full_s(30.0)) == (30.0, 10.0, 30.0)
    assert bucket.level(1000.0) == 60.0


def test_what_was_more_than_expected_has_to_fill_up_first() -> None:
    bucket = Bucket(60, 0.0)
    bucket.take(150, 0.0)
    assert (bucket.level(0.0), bucket.wait_s(1, 0.0)) == (-90.0, 91.0)
    bucket.take(-30, 0.0)
    assert bucket.level(0.0) == -60.0
    bucket.take(-1000, 0.0)
    assert bucket.level(0.0) == 60.0  # never more than the limit


def test_what_is_more_than_the_limit_can_be_had_when_it_is_full() -> None:
    bucket = Bucket(60, 0.0)
    assert bucket.wait_s(1000, 0.0) == 0.0
    bucket.take(30, 0.0)
    assert bucket.wait_s(1000, 0.0) == 30.0


def test_a_limit_of_nothing_lets_nothing_pass() -> None:
    bucket = Bucket(0, 0.0)
    assert (bucket.wait_s(1, 0.0), bucket.wait_s(1, 1e9), bucket.full_s(5.0)) == (60.0, 60.0, 60.0)


@pytest.mark.parametrize(("limit", "level"), [(120, 90.0), (30, 0.0), (10, -20.0)])
def test_another_limit_keeps_what_was_taken(limit: int, level: float) -> None:
    bucket = Bucket(60, 0.0)
    bucket.take(30, 0.0)
    bucket.resize(limit, 0.0)
    assert bucket.level(0.0) == level


def test_a_clock_that_goes_back_refills_nothing() -> None:
    bucket = Bucket(60, 100.0)
    bucket.take(60, 100.0)
    assert (bucket.level(50.0), bucket.level(100.0), bucket.level(101.0)) == (0.0, 0.0, 1.0)


@given(st.integers(1, 100), st.lists(st.tuples(st.floats(0, 30), st.integers(1, 120)), max_size=60))
def test_in_no_span_of_time_more_than_its_share_and_one_bucket(limit: int, asked: list[tuple[float, int]]) -> None:
    bucket, now, taken = Bucket(limit, 0.0), 0.0, list[tuple[float, float]]()
    for pause, amount in asked:
        now += pause
        if bucket.wait_s(amount, now) == 0.0:
            bucket.take(amount, now)
            taken.append((now, amount))
    for place, (start, _) in enumerate(taken):
        for end in range(place + 1, len(taken) + 1):
            span = taken[end - 1][0] - start
            before_last = sum(amount for _, amount in taken[place : end - 1])
            assert before_last + min(taken[end - 1][1], limit) <= limit * (1 + span / 60) + 1e-6 + sum(
                max(amount - limit, 0) for _, amount in taken[place : end - 1]
            )
