"""What policies are told, and what prefills cost."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.eviction.costs import LinearCost, per_token
from retrieval.eviction.hints import profile


def test_the_profile_is_read() -> None:
    assert profile({"mygo": {"profile": [0.01, 1e-4, 0]}, "other": 1}) == LinearCost(0.01, 1e-4, 0.0)


@pytest.mark.parametrize("given", [None, 1, [], [1, 2], [0, 0, 0], [1, 2, -1], [1, 2, "3"], [float("inf"), 1, 1], [True, 1, 1]])
def test_profiles_of_another_form_are_none(given: object) -> None:
    assert profile({"mygo": {"profile": given}}) is None


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["mygo", "profile", "x"]), inner, max_size=4),
)


@given(json_values)
def test_nothing_that_a_client_sends_raises(given: object) -> None:
    profile({"mygo": {"profile": given}})
    profile(given)


def test_the_linear_model() -> None:
    model = LinearCost(0.01, 1e-4, 1e-8)
    assert model.seconds(1000, 100) == pytest.approx(0.01 + 100 * 1e-4 + 100 * 1050 * 1e-8)
    assert per_token(model, 1000, 100) == pytest.approx(model.seconds(1000, 100) / 100)
    assert per_token(model, 1000, 0) == 0
    assert per_token(model, 8000, 100) > per_token(model, 0, 100), "deep in a prompt a token costs more"
