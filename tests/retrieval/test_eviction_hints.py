"""What policies are told, and what prefills cost."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import ProfileError
from retrieval.eviction.costs import GridCost, LinearCost, load, per_token
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


GRID = GridCost((0.0, 1000.0, 3000.0), (100.0, 200.0), ((1.0, 2.0), (2.0, 4.0), (4.0, 8.0)))


@pytest.mark.parametrize(
    ("cached", "computed", "seconds"),
    [(0, 100, 1), (3000, 200, 8), (500, 100, 1.5), (500, 150, 2.25), (2000, 150, 4.5), (0, 300, 3), (0, 0, 0), (5000, 100, 6)],
)
def test_the_grid_is_interpolated(cached: float, computed: float, seconds: float) -> None:
    assert GRID.seconds(cached, computed) == pytest.approx(seconds)


@given(st.floats(0, 3000), st.floats(100, 200))
def test_within_the_grid_seconds_are_between_its_own(cached: float, computed: float) -> None:
    assert 1 - 1e-9 <= GRID.seconds(cached, computed) <= 8 + 1e-9


def write(folder: Path, content: object) -> Path:
    path = folder / "profile.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_profiles_are_loaded(tmp_path: Path) -> None:
    assert load(write(tmp_path, {"coefficients": [0.01, 1e-4, 0]})) == LinearCost(0.01, 1e-4, 0.0)
    table = {"cached": [0, 1000, 3000], "computed": [100, 200], "seconds": [[1, 2], [2, 4], [4, 8]]}
    assert load(write(tmp_path, table)) == GRID


@pytest.mark.parametrize(
    "content",
    [
        "{",
        [],
        {},
        {"coefficients": [1, 2]},
        {"coefficients": [1, 2, -3]},
        {"coefficients": "123"},
        {"cached": [0], "computed": [1, 2], "seconds": [[1, 2]]},
        {"cached": [0, 0], "computed": [1, 2], "seconds": [[1, 2], [1, 2]]},
        {"cached": [0, 1], "computed": [2, 1], "seconds": [[1, 2], [1, 2]]},
        {"cached": [0, 1], "computed": [1, 2], "seconds": [[1, 2]]},
        {"cached": [0, 1], "computed": [1, 2], "seconds": [[1, 2], [1]]},
        {"cached": [0, 1], "computed": [1, 2], "seconds": 1},
    ],
)
def test_profiles_of_another_form_are_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(ProfileError):
        load(write(tmp_path, content))


def test_a_profile_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="path of a JSON file"):
        load(tmp_path / "none.json")
