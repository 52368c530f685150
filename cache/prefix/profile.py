"""Seconds of a prefill, learnt on line from how long engines took.

A linear model of the uncached tokens `new`, the `cached` ones before them, and the requests that are `running` beside them:

    seconds = a + new * (b + c * (cached + new / 2) + d * [running > 0] + e * running)

`b` is what the weights cost, `c` attention over everything before, `d` and `e` the decode steps that share the engine with the chunks.
Recursive least squares with forgetting (Haykin, Adaptive Filter Theory, ch. 10) follows an engine that changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Coefficients = tuple[float, float, float, float, float]
_FORGET = 0.998
_SCALES = (1.0, 1e-3, 1e-7, 1e-3, 1e-5)
"""Bring the features to the order of one."""
_DOUBT = (0.01, 1.0, 0.1, 0.1, 0.1)
"""Variances of the first guess."""
_MAX_DOUBT = 1e3
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
    shared: float = 0.0
    """Sum of new where anything was running."""
    beside: float = 0.0
    """Sum of new * running."""
    seconds: float = 0.0

    def add(self, cached: float, new: float, running: float) -> None:
        self.count += 1
        self.new += new
        self.attended += new * (cached + new / 2)
        self.shared += new * (running > 0)
        self.beside += new * running

    def features(self) -> Sequence[float]:
        return self.count, self.new, self.attended, self.shared, self.beside


class PrefillProfile:
    """Of one model on one kind of hardware. All replicas of a deployment share it."""

    def __init__(self, tokens_per_s: float = 10_000.0, overhead_s: float = 0.005) -> None:
        """The first guess, until some samples have come."""
        self._weights = np.array([overhead_s, 1 / tokens_per_s, 0.0, 0.0, 0.0]) / _SCALES
        self._doubt = np.diag(_DOUBT)
        self._plain = self._clipped()
        self.samples = 0
        self.error_s = 0.0
        """Moving average of the absolute error of predictions."""

    def seconds(self, cached: float, new: float, running: float = 0.0) -> float:
        """Predicted time of a prefill that has the engine to itself, but for `running` requests that decode."""
        a, b, c, d, e = self._plain
        return a + new * (b + c * (cached + new / 2) + (d + e * running if running else 0.0))

    @property
    def coefficients(self) -> Coefficients:
        """a to e."""
        return self._plain

    def learn(self, sample: Sample) -> None:
        features = np.array(sample.features()) * _SCALES
        predicted = float(features @ self._weights)
        seconds = min(sample.seconds, _OUTLIER * predicted) if self.samples > _TRUSTED_AFTER and predicted > 0 else sample.seconds
        self.error_s += 0.05 * (abs(seconds - predicted) - self.error_s)
        spread = self._doubt @ features
        gain = spread / (_FORGET + features @ spread)
        self._weights += gain * (seconds - predicted)
        self._doubt = (self._doubt - np.outer(gain, spread)) / _FORGET
        np.clip(self._doubt, -_MAX_DOUBT, _MAX_DOUBT, out=self._doubt)
        self.samples += 1
        self._plain = self._clipped()

    def _clipped(self) -> Coefficients:
        a, b, c, d, e = np.maximum(self._weights * _SCALES, 0).tolist()
        return a, b, c, d, e
