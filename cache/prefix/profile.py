"""Seconds of a prefill, learnt on line from how long engines took.

A linear model of the uncached tokens `new`, the `cached` ones before them, and the requests that are `running` beside them:

    seconds = a + new * (b + c * (cached + new / 2) + d * [running > 0] + e * running)

`b` is what the weights cost, `c` attention over everything before, `d` and `e` the decode steps that share the engine with the chunks.
Least squares over the past, which is forgotten exponentially, with weights that cannot be negative (Lawson and Hanson 1974; solved by
coordinate descent). The first guess stays in it as a weak prior: so what traffic does not show for long stays what it was guessed to be.
The recursive form, which keeps the inverse instead, blows up there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Coefficients = tuple[float, float, float, float, float]
_FORGETTING = 0.998
_SCALES = (1.0, 1e-3, 1e-7, 1e-3, 1e-5)
"""Bring the features to the order of one."""
_FIRST_VARIANCES = (0.01, 1.0, 0.1, 0.1, 0.1)
"""Of the first guess."""
_SWEEPS = 10
_NOISE_S, _NOISE = 0.002, 0.3
"""Standard deviation of a sample, in seconds and as a share of them: short prefills teach as much as long ones."""
_TRUSTED_AFTER = 20
_OUTLIER = 4.0
"""A sample that took so many times longer than predicted waited for something else; it counts as this much."""


@dataclass(slots=True)
class Sample:
    """Prefills that were computed one after the other, or together, in `seconds`."""

    count: float = 0.0
    new: float = 0.0
    attended: float = 0.0
    """Sum of new * (cached + new / 2)."""
    accompanied: float = 0.0
    """Sum of new where anything was running."""
    beside: float = 0.0
    """Sum of new * running."""
    seconds: float = 0.0

    def add(self, cached: float, new: float, running: float) -> None:
        self.count += 1
        self.new += new
        self.attended += new * (cached + new / 2)
        self.accompanied += new * (running > 0)
        self.beside += new * running

    def features(self) -> Sequence[float]:
        return self.count, self.new, self.attended, self.accompanied, self.beside


class PrefillProfile:
    """Of one model on one kind of hardware. All replicas of a deployment share it."""

    def __init__(self, tokens_per_s: float = 10_000.0, overhead_s: float = 0.005) -> None:
        """The first guess, until some samples have come."""
        self._weights = np.array([overhead_s, 1 / tokens_per_s, 0.0, 0.0, 0.0]) / _SCALES
        self._prior = np.diag(1 / np.array(_FIRST_VARIANCES))
        self._guess = self._prior @ self._weights
        self._squares = np.zeros_like(self._prior)
        self._products = np.zeros_like(self._guess)
        self.coefficients = self._unscaled()
        """a to e."""
        self.samples = 0

    def seconds(self, cached: float, new: float, running: float = 0.0) -> float:
        """Predicted time of a prefill that has the engine to itself, but for `running` requests that decode."""
        a, b, c, d, e = self.coefficients
        return a + new * (b + c * (cached + new / 2) + (d + e * running if running else 0.0))

    def learn(self, sample: Sample) -> None:
        if sample.seconds <= 0:  # it came together with the one before, which had all of the time
            return
        features = np.array(sample.features()) * _SCALES
        predicted = float(features @ self._weights)
        seconds = min(sample.seconds, _OUTLIER * predicted) if self.samples > _TRUSTED_AFTER and predicted > 0 else sample.seconds
        scaled = features / (_NOISE_S + _NOISE * max(predicted, 0.0)) ** 2
        self._squares = _FORGETTING * self._squares + np.outer(scaled, features)
        self._products = _FORGETTING * self._products + scaled * seconds
        self._solve()
        self.samples += 1
        self.coefficients = self._unscaled()

    def _solve(self) -> None:
        matrix, target, weights = self._prior + self._squares, self._guess + self._products, self._weights
        for _ in range(_SWEEPS):
            for place in range(len(weights)):
                rest = target[place] - matrix[place] @ weights
                weights[place] = max(weights[place] + rest / matrix[place, place], 0.0)

    def _unscaled(self) -> Coefficients:
        a, b, c, d, e = (self._weights * _SCALES).tolist()
        return a, b, c, d, e
