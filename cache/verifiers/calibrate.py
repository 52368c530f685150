"""From a network's output to a probability."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

STEPS = 50
RIDGE = 1e-3


def calibrate(same: NDArray[np.bool_], features: Sequence[NDArray[np.float64]]) -> list[float]:
    """Intercept and a weight for each feature of P(same) = sigmoid(intercept + sum of weight x feature), by maximum likelihood.

    `same` and each feature have shape (pairs,), of pairs that were not trained on. Platt, "Probabilistic Outputs for Support Vector
    Machines", 1999, for one feature.
    """
    x = np.stack([np.ones(len(same)), *features], axis=1)
    weights = np.zeros(x.shape[1])
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        hessian = (x.T * (p * (1 - p))) @ x + RIDGE * np.eye(len(weights))
        weights += np.linalg.solve(hessian, x.T @ (same - p) - RIDGE * weights)
    return [round(float(weight), 4) for weight in weights]
