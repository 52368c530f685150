"""Intervals of shares."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.decision.intervals import interval


def test_known_values() -> None:
    assert interval(0, 0) == (0.0, 1.0)
    assert interval(1, 10) == pytest.approx((0.01788, 0.40415), abs=1e-4)
    assert interval(0, 100)[1] == pytest.approx(0.03699, abs=1e-4)


@given(of=st.integers(1, 10_000), data=st.data())
def test_the_share_is_inside_and_more_trials_say_more(of: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, of))
    low, high = interval(count, of)
    assert 0 <= low <= count / of <= high <= 1
    wide = interval(count, of)
    narrow = interval(10 * count, 10 * of)
    assert narrow[1] - narrow[0] < wide[1] - wide[0]
