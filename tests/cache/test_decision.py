"""The verified decision: the maths, and the budget on simulated tenants."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.cascade import LEARN_SHARE
from cache.decision import account
from cache.decision.account import CAPACITY, Account, Accounts, Budget, BudgetOf
from cache.decision.belief import GRID, MAX_Z, Belief, Counts, Effect, Prior, entry_effect, log_odds, probability, sigmoid
from cache.decision.priors import PRIORS

PRIOR = PRIORS["short"]
scores = st.floats(-MAX_Z, MAX_Z)
observations = st.lists(st.tuples(scores, st.booleans()), max_size=40)


def certain(intercept: float = 0.0, slope: float = 1.0) -> Belief:
    """A belief without doubt, at a point of the grid."""
    return Belief(((GRID[0] == intercept) & np.isclose(GRID[1], slope)).astype(np.float64))


NO_EFFECT = Effect(0.0, 1e-12)


@given(st.floats(0, 1))
def test_log_odds_and_sigmoid_are_inverse_up_to_the_clip(p: float) -> None:
    z = log_odds(p)
    assert -MAX_Z <= z <= MAX_Z
    if sigmoid(-MAX_Z) <= p <= sigmoid(MAX_Z):
        assert sigmoid(z) == pytest.approx(p, abs=1e-9)


def test_a_large_sample_is_believed() -> None:
    rng = np.random.default_rng(7)
    counts = Counts(half_life=1e12)
    for z in rng.uniform(-4, 4, 20_000):
        counts.add(float(z), bool(rng.random() < sigmoid(-0.5 + 1.5 * float(z))))
    assert counts.belief(Prior(2.0, 1.0, 1e-9)).mean == pytest.approx((-0.5, 1.5), abs=0.08)


@given(observations)
def test_any_observations_give_a_belief(seen: list[tuple[float, bool]]) -> None:
    counts = Counts()
    for z, correct in seen:
        counts.add(z, correct)
    weights = counts.belief(PRIOR).weights
    assert np.isfinite(weights).all()
    assert weights.sum() == pytest.approx(1)


def test_sureness_grows_with_right_answers_as_counting_says() -> None:
    """All of n right: with confidence 99 % at least 0.01^(1/n) are (Clopper and Pearson)."""
    z, fresh = log_odds(0.99), PRIOR.effect()
    bounds = []
    for n in (0, 100, 400, 2000):
        counts = Counts(half_life=1e12)
        for _ in range(n):
            counts.add(z, True)
        bounds.append(float(counts.belief(PRIOR).quantiles(z, fresh, np.array([0.01]))[0]))
    assert bounds == sorted(bounds)
    assert bounds[2] >= 0.01 ** (1 / 400) - 0.006
    assert bounds[3] <= 0.9995


@given(observations)
def test_any_observations_give_a_finite_effect(seen: list[tuple[float, bool]]) -> None:
    effect = entry_effect(PRIOR.belief(), PRIOR, seen)
    assert math.isfinite(effect.mean)
    assert 0 < effect.variance <= PRIOR.entry_variance + 1e-12


def test_an_entry_without_observations_is_as_good_as_its_tenants_others() -> None:
    assert entry_effect(PRIOR.belief(), PRIOR, []) == PRIOR.effect()


def test_one_wrong_answer_makes_an_entry_doubtful_and_not_useless() -> None:
    eta, prior = 4.0, Prior(1.5, 0.6, entry_variance=0.3)
    fresh = probability(eta, entry_effect(certain(), prior, []))
    once_wrong = probability(eta, entry_effect(certain(), prior, [(eta, False)]))
    made_up = probability(eta, entry_effect(certain(), prior, [(eta, False)] + [(eta, True)] * 30))
    assert fresh - 0.005 > once_wrong > 0.9
    assert once_wrong < made_up


def test_the_entrys_effect_is_integrated_out() -> None:
    effect, eta = Effect(0.3, 0.8), 2.0
    drawn = np.random.default_rng(1).normal(effect.mean, math.sqrt(effect.variance), 400_000)
    assert probability(eta, effect) == pytest.approx(float(np.mean(1 / (1 + np.exp(-(eta + drawn))))), abs=0.003)


def test_old_observations_fade() -> None:
    counts = Counts(half_life=100)
    for _ in range(1000):
        counts.add(3.0, False)
    for _ in range(300):
        counts.add(3.0, True)
    assert counts.belief(Prior(3.0, 1.0, 0.1)).predictor(3.0) > 1.0


def test_what_others_taught_is_a_start_that_a_tenants_own_observations_outweigh() -> None:
    others, own = Counts(), Counts()
    for _ in range(5000):
        others.add(2.0, True)
    alone, helped = PRIOR.belief(), Counts().belief(PRIOR, others)
    few = np.array([0.05])
    assert helped.quantiles(2.0, PRIOR.effect(), few)[0] > alone.quantiles(2.0, PRIOR.effect(), few)[0] + 0.1
    for _ in range(300):
        own.add(2.0, False)
    assert own.belief(PRIOR, others).quantiles(2.0, PRIOR.effect(), few)[0] < 0.5


# The account

REQUESTS, HITS = Budget(0.02), Budget(0.02, "hits")


def test_requests_earn_and_hits_spend() -> None:
    own = Account()
    assert not own.pay(0.001, REQUESTS), "nothing has been earned"
    for _ in range(10):
        own.earn(REQUESTS)
    assert own.pay(0.04, REQUESTS)
    assert own.saved == pytest.approx(0.16)


def test_the_surest_come_first() -> None:
    """With little saved, only a small error is worth it."""
    own = Account(saved=0.2)
    assert not own.pay(0.1, REQUESTS)
    assert own.pay(0.05, REQUESTS)
    assert Account(saved=CAPACITY).pay(0.4, REQUESTS)


def test_of_a_share_of_the_hits_a_hit_earns_its_own() -> None:
    own = Account()
    own.earn(HITS)
    assert not own.pay(0.021, HITS)
    assert all(own.pay(0.01, HITS) for _ in range(100))
    assert own.saved == pytest.approx(1.0)
    assert own.pay(0.05, HITS)


@given(st.sampled_from([REQUESTS, HITS]), st.lists(st.floats(0, 1), max_size=300))
def test_no_more_is_spent_than_was_earned(budget: Budget, errors: list[float]) -> None:
    own, spent, hits = Account(), 0.0, 0
    for requests, error in enumerate(errors, 1):
        own.earn(budget)
        if own.pay(error, budget):
            spent, hits = spent + error, hits + 1
        assert spent <= budget.share * (hits if budget.of == "hits" else requests) + 1e-9
        assert 0 <= own.saved <= CAPACITY


def test_each_namespace_has_an_account_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "MAX_ACCOUNTS", 2)
    accounts = Accounts()
    for _ in range(20):
        accounts.earn("a1", REQUESTS)
    assert not accounts.pay("b2", 0.01, REQUESTS)
    assert accounts.pay("a1", 0.01, REQUESTS)
    accounts.earn("c3", REQUESTS)
    accounts.earn("d4", REQUESTS)
    assert not accounts.pay("a1", 0.01, REQUESTS), "it was forgotten, with what it had saved"


@pytest.mark.parametrize("budget", [0.005, 0.01, 0.02, 0.05])
@pytest.mark.parametrize("truth", [(0.0, 1.0), (-0.8, 0.9), (1.0, 1.2), (-3.0, 2.0)], ids=["as expected", "harder", "easier", "steeper"])
@pytest.mark.parametrize("of", ["requests", "hits"])
def test_the_budget_holds_on_tenants_that_differ_from_the_prior(budget: float, truth: tuple[float, float], of: BudgetOf) -> None:
    """8,000 requests of a tenant whose entries differ too, from the first one on."""
    rng = random.Random(11)
    effects = [rng.gauss(0, math.sqrt(PRIOR.entry_variance)) for _ in range(500)]
    counts, wrong, hits, belief, own = Counts(), 0, 0, PRIOR.belief(), Account()
    for request in range(8_000):
        own.earn(Budget(budget, of))
        z = min(MAX_Z, max(-2.0, rng.gauss(2.5, 2)))
        right = rng.random() < sigmoid(truth[0] + truth[1] * z + rng.choice(effects))
        if rng.random() >= LEARN_SHARE and own.pay(belief.error(z, PRIOR.effect()), Budget(budget, of)):
            hits, wrong = hits + 1, wrong + (not right)
            if rng.random() < 0.02:  # an audit
                counts.add(z, right)
        else:
            counts.add(z, right)
        if request % 50 == 0:
            belief = counts.belief(PRIOR)
    allowed = budget * (8_000 if of == "requests" else hits)
    assert wrong <= allowed + 3 * math.sqrt(allowed)
    if truth[0] >= 0:
        assert hits > 400


def test_the_shipped_priors_are_proper() -> None:
    for prior in PRIORS.values():
        assert prior.belief().mean == pytest.approx((0, 1), abs=0.1)
