"""Predictions that are wrong again and again are not believed."""

import pytest

from cache.prefix.drift import Drift

SIZE = 16


def add(drift: Drift, times: int, error: int, prompt: int = 1000) -> bool:
    for _ in range(times):
        drift.add(error, prompt, SIZE)
    return drift.alarm


def test_nothing_is_wrong_before_anything_was_seen() -> None:
    assert not Drift().alarm


@pytest.mark.parametrize(
    ("error", "prompt"),
    [
        pytest.param(0, 1000, id="right"),
        pytest.param(2 * SIZE, 100, id="two blocks of a short prompt"),
        pytest.param(1500, 10_000, id="many tokens, but few of a long prompt"),
    ],
)
def test_calm_below(error: int, prompt: int) -> None:
    assert not add(Drift(), 200, error, prompt)


def test_alarm_above_but_not_on_a_few() -> None:
    drift = Drift()
    assert not add(drift, 15, 900)
    assert add(drift, 1, 900)
    assert drift.far_share == 1


def test_single_misses_are_normal() -> None:
    drift = Drift()
    for _ in range(100):
        assert not add(drift, 9, 0)
        assert not add(drift, 1, 1000)


def test_one_huge_prompt_weighs_no_more_than_a_small_one() -> None:
    drift = Drift()
    assert not add(drift, 63, 0, 500)
    assert not add(drift, 1, 100_000, 100_000)


def test_an_alarm_stays_until_few_are_far_off() -> None:
    drift = Drift()
    assert add(drift, 64, 900)
    assert add(drift, 40, 0)
    assert not add(drift, 8, 0)
    assert not add(drift, 16, 900)
    assert add(drift, 40, 900)


def test_prompts_of_no_tokens_do_not_break_it() -> None:
    assert not add(Drift(), 20, 0, 0)
