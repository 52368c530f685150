"""Prefill times are learnt from what engines take."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.prefix.profile import PrefillProfile, Sample

Law = Callable[[float, float, float], float]


def law(cached: float, new: float, running: float) -> float:
    """An engine's: 10 ms, 20,000 tokens/s, attention, and decode steps beside."""
    return 0.01 + new * (5e-5 + 2e-9 * (cached + new / 2) + (1e-5 + 5e-7 * running if running else 0))


def sample(chance: random.Random, law: Law = law, noise: float = 0.0, prefills: int = 1) -> Sample:
    """Some prefills of all sizes, with or without others beside."""
    taken = Sample()
    for _ in range(prefills):
        cached, new = chance.choice([0, 0, chance.randrange(16_000)]), chance.randrange(16, 8000)
        running = chance.choice([0, chance.randrange(64)])
        taken.add(cached, new, running)
        taken.seconds += law(cached, new, running)
    taken.seconds *= 1 + chance.gauss(0, noise)
    return taken


def taught(count: int, noise: float = 0.0, prefills: int = 1) -> PrefillProfile:
    profile, chance = PrefillProfile(), random.Random(7)
    for _ in range(count):
        profile.learn(sample(chance, noise=noise, prefills=prefills))
    return profile


def check(profile: PrefillProfile, tolerance: float, law: Law = law) -> None:
    for cached in (0, 4000, 16_000):
        for new in (500, 2000, 8000):
            for running in (0, 8, 60):
                assert profile.seconds(cached, new, running) == pytest.approx(law(cached, new, running), rel=tolerance, abs=0.005)


def test_the_first_guess_is_what_was_said() -> None:
    profile = PrefillProfile(tokens_per_s=1000, overhead_s=0.5)
    assert profile.seconds(0, 2000) == profile.seconds(9000, 2000, 7) == pytest.approx(2.5)
    assert profile.samples == 0


def test_a_law_is_learnt_exactly_without_noise() -> None:
    check(taught(300), 0.02)


@pytest.mark.parametrize("prefills", [1, 4])
def test_a_law_is_learnt_through_noise(prefills: int) -> None:
    profile = taught(2000, noise=0.1, prefills=prefills)
    check(profile, 0.15)
    assert profile.samples == 2000


def test_few_samples_already_help() -> None:
    profile, chance = PrefillProfile(tokens_per_s=1000), random.Random(1)
    for _ in range(30):
        profile.learn(sample(chance, noise=0.05))
    assert profile.seconds(0, 4000) == pytest.approx(law(0, 4000, 0), rel=0.3)


def test_it_follows_an_engine_that_changes() -> None:
    profile, chance = taught(500), random.Random(2)

    def slower(cached: float, new: float, running: float) -> float:
        return 3 * law(cached, new, running)

    for _ in range(2000):
        profile.learn(sample(chance, slower))
    check(profile, 0.1, slower)


def test_an_outlier_does_not_ruin_it() -> None:
    profile, chance = taught(500, noise=0.05), random.Random(3)
    before = profile.seconds(0, 4000)
    stuck = sample(chance)
    stuck.seconds = 3600
    profile.learn(stuck)
    assert profile.seconds(0, 4000) == pytest.approx(before, rel=0.3)
    for _ in range(300):
        profile.learn(sample(chance, noise=0.05))
    check(profile, 0.15)


def test_the_same_request_over_and_over_keeps_it_sane() -> None:
    profile = PrefillProfile()
    for _ in range(20_000):
        one = Sample(seconds=law(0, 1000, 0))
        one.add(0, 1000, 0)
        profile.learn(one)
    assert profile.seconds(0, 1000) == pytest.approx(law(0, 1000, 0), rel=0.01)
    for _ in range(300):
        profile.learn(sample(random.Random(profile.samples)))
    check(profile, 0.15)


some = st.builds(Sample, *[st.floats(0, limit) for limit in (50, 1e5, 1e9, 1e5, 1e7, 1e3)])


@given(st.lists(some, max_size=40), st.integers(0, 200_000), st.integers(0, 200_000), st.integers(0, 500))
def test_predictions_are_never_negative(samples: list[Sample], cached: int, new: int, running: int) -> None:
    profile = PrefillProfile()
    for each in samples:
        profile.learn(each)
    assert 0 <= profile.seconds(cached, new, running) < float("inf")
    assert profile.seconds(cached, new + 100, running) >= profile.seconds(cached, new, running)
    assert all(coefficient >= 0 for coefficient in profile.coefficients)


def test_a_sample_sums_what_the_law_is_linear_in() -> None:
    taken = Sample()
    taken.add(100, 50, 0)
    taken.add(0, 200, 3)
    assert taken.features() == (2, 250, 50 * 125 + 200 * 100, 200, 600)


@pytest.mark.parametrize(("cached", "new", "running"), [(0, 1000, 0), (1024, 100, 4)])
def test_equal_requests_for_hours_do_not_spoil_it(cached: int, new: int, running: int) -> None:
    """What traffic does not show is not learnt, and the doubt of it must not grow without bound."""
    profile, chance = PrefillProfile(tokens_per_s=1000), random.Random(3)
    for number in range(10_000):
        one = Sample()
        one.add(cached, new, running)
        one.seconds = law(cached, new, running) * chance.uniform(0.7, 1.3)
        profile.learn(one)
        if number > 1000:
            assert profile.seconds(cached, new, running) == pytest.approx(law(cached, new, running), rel=0.3)
