"""What is believed of P(correct | score), and how observations change it.

    P(correct | z, tenant, entry) = sigmoid(intercept + slope z + effect of the entry)

`z` is the log-odds of the verifier's probability. A verifier that is calibrated for a tenant has intercept 0 and slope 1; that,
with the uncertainty between tenants, is where all begin. What all tenants have taught moves the prior of each a little, a tenant's
own observations move its belief away from there, and an entry's observations the entry's effect away from its tenant's belief. So a
new entry is as good as its tenant's other entries, and one wrong answer makes an entry doubtful, not useless.

The belief over (intercept, slope) is a Gaussian prior times the likelihood, held on a grid. A fit with its curvature (Laplace) would
be smaller, but where nearly all answers are right, which is where hits are, it takes ten times the observations to become as sure.
The entry's effect is a maximum a posteriori fit (Newton's method, finite under separation because of the prior), with its curvature.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
MAX_Z = 6.0
"""Log-odds are clipped to this: no verifier knows more than 99.75 %."""
BINS = 97
"""Observations are counted by score: the belief needs no more than how many were right and wrong at each."""
SCORES = np.linspace(-MAX_Z, MAX_Z, BINS)
INTERCEPTS, SLOPES = np.arange(-8, 4.001, 0.25), np.arange(0.1, 4.001, 0.1)
GRID = np.stack([each.ravel() for each in np.meshgrid(INTERCEPTS, SLOPES, indexing="ij")])
"""Every (intercept, slope), shape (2, points)."""
DOUBT = 0.05
"""With the mean instead, the budget was exceeded by up to a tenth, and more where hits are few; the bound costs few hits."""
MAX_OTHERS = 100.0
"""What all tenants together have taught counts for each of them as so many observations of its own: a start, not a verdict."""
NEWTON_STEPS = 25
TOLERANCE = 1e-9


def log_odds(probability: float) -> float:
    """z of a probability, clipped to ±`MAX_Z`."""
    if not 0 < probability < 1:
        return math.copysign(MAX_Z, probability - 0.5)
    return max(-MAX_Z, min(MAX_Z, math.log(probability / (1 - probability))))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


@dataclass(frozen=True, slots=True)
class Effect:
    """Of one entry, on the log-odds: mean and variance."""

    mean: float
    variance: float


@dataclass(frozen=True, slots=True)
class Prior:
    """Where every tenant begins: standard deviations of intercept (around 0) and slope (around 1), and the variance of the entries'
    effects around their tenant."""

    intercept_deviation: float
    slope_deviation: float
    entry_variance: float

    def belief(self) -> "Belief":
        return Counts().belief(self)

    def effect(self) -> Effect:
        """Of an entry of which nothing is known."""
        return Effect(0.0, self.entry_variance)


@dataclass(frozen=True, slots=True)
class Belief:
    """How probable each point of `GRID` is, shape (points,), with the sum 1."""

    weights: Array

    @property
    def mean(self) -> tuple[float, float]:
        """Of intercept and slope."""
        intercept, slope = GRID @ self.weights
        return float(intercept), float(slope)

    def predictor(self, z: float) -> float:
        """Mean of intercept + slope z."""
        intercept, slope = self.mean
        return intercept + slope * z

    def quantiles(self, z: float, effect: Effect, shares: Array) -> Array:
        """For each share e: the value that P(correct | z) falls below with probability e at most. The entry's effect is integrated out."""
        found = _probabilities(GRID[0] + GRID[1] * z + effect.mean, effect.variance)
        order = np.argsort(found)
        below = np.cumsum(self.weights[order])
        values: Array = found[order][np.minimum(np.searchsorted(below, shares), len(order) - 1)]
        return values

    def error(self, z: float, effect: Effect) -> float:
        """What P(wrong | z) is below, with a probability of 1 - `DOUBT`."""
        return 1 - float(self.quantiles(z, effect, np.array([DOUBT]))[0])


class Counts:
    """Right and wrong observations by score, the older ones fading.

    `half_life`: after so many further observations one counts half, so that a tenant whose questions change is learnt anew.
    """

    def __init__(self, half_life: float = 20_000.0) -> None:
        self._keep = 0.5 ** (1 / half_life)
        self._right = np.zeros(BINS)
        self._wrong = np.zeros(BINS)

    def add(self, z: float, correct: bool) -> None:
        self._right *= self._keep
        self._wrong *= self._keep
        counts = self._right if correct else self._wrong
        counts[round((max(-MAX_Z, min(MAX_Z, z)) + MAX_Z) / (2 * MAX_Z) * (BINS - 1))] += 1

    @property
    def total(self) -> float:
        return float(self._right.sum() + self._wrong.sum())

    def belief(self, prior: Prior, others: "Counts | None" = None) -> Belief:
        """What the prior becomes by these observations, and by those of others, which count as `MAX_OTHERS` at most."""
        log_prior = -0.5 * ((GRID[0] / prior.intercept_deviation) ** 2 + ((GRID[1] - 1) / prior.slope_deviation) ** 2)
        log_weights = log_prior + self._log_likelihood(prior)
        if others is not None and others.total:
            log_weights += min(1.0, MAX_OTHERS / others.total) * others._log_likelihood(prior)
        weights = np.exp(log_weights - log_weights.max())
        return Belief(weights / weights.sum())

    def _log_likelihood(self, prior: Prior) -> Array:
        right, wrong = _log_likelihoods(prior.entry_variance)
        found: Array = right @ self._right + wrong @ self._wrong
        return found


@cache
def _log_likelihoods(entry_variance: float) -> tuple[Array, Array]:
    """log P(correct) and log P(wrong) at each point of the grid and each score, shapes (points, BINS)."""
    p = _probabilities(GRID[0][:, None] + GRID[1][:, None] * SCORES, entry_variance)
    return np.log(p), np.log1p(-p)


def _probabilities(eta: Array, variance: float) -> Array:
    """E[sigmoid(eta + N(0, variance))] (MacKay, "Information Theory, Inference, and Learning Algorithms", section 41.4)."""
    found: Array = 1 / (1 + np.exp(-np.clip(eta / math.sqrt(1 + math.pi * variance / 8), -30, 30)))
    return found


def probability(eta: float, effect: Effect) -> float:
    """P(correct) where intercept + slope z is `eta`, the entry's effect integrated out."""
    return float(_probabilities(np.array(eta + effect.mean), effect.variance))


def entry_effect(tenant: Belief, prior: Prior, observations: Iterable[tuple[float, bool]]) -> Effect:
    """What an entry's own (z, correct) say, beyond its tenant's belief."""
    seen = [(tenant.predictor(z), correct) for z, correct in observations]
    mean, curvature = 0.0, 1 / prior.entry_variance
    for _ in range(NEWTON_STEPS if seen else 0):
        p = [sigmoid(eta + mean) for eta, _ in seen]
        gradient = sum(correct - each for each, (_, correct) in zip(p, seen, strict=True)) - mean / prior.entry_variance
        curvature = sum(each * (1 - each) for each in p) + 1 / prior.entry_variance
        step = max(-2.0, min(2.0, gradient / curvature))
        mean += step
        if abs(step) < TOLERANCE:
            break
    return Effect(mean, 1 / curvature)
