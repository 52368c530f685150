"""From the network's output to a probability."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.verifiers.pairs import LabelledPair

STEPS = 50
RIDGE = 1e-3


def calibrate(pairs: Sequence[LabelledPair], logits: NDArray[np.float64]) -> dict[str, Any]:
    """Intercept and slope of P(same) = sigmoid(intercept + slope logit), by maximum likelihood on pairs that were not trained on.

    Platt, "Probabilistic Outputs for Support Vector Machines", 1999.
    """
    x = np.stack([np.ones_like(logits), logits], axis=1)
    same = np.array([pair.same for pair in pairs], np.float64)
    weights = np.zeros(2)
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        hessian = (x.T * (p * (1 - p))) @ x + RIDGE * np.eye(2)
        weights += np.linalg.solve(hessian, x.T @ (same - p) - RIDGE * weights)
    return {"intercept": round(float(weights[0]), 4), "slope": round(float(weights[1]), 4)}
