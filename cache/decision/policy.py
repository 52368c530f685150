"""How often to pass over a cached answer so that errors stay within the budget.

    tau(z) = min over e of 1 - budget / (1 - a_e(z)),    a_e(z) = (1 - e) P_e(correct | z)

vCache's rule (arXiv 2502.03771, section 4): serving with probability 1 - tau makes P(wrong) = (1 - tau)(1 - a) <= budget, and `a` is a
lower bound on P(correct) that holds with confidence 1 - e. Two things differ from it.

The bound is on the tenant's belief, which all its entries share, and not on the entry's: errors of entries average out over
requests, an error in the shared belief does not.

The confidences are spaced logarithmically: on a grid of 50 even steps the smallest useful e is 0.02, which alone spends a budget
of 2 % and caps the hits of a smaller one at a half.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cache.decision.belief import Array, Belief, Effect

CONFIDENCES = np.logspace(-5, np.log10(0.5), 40)
"""e"""

BudgetOf = Literal["requests", "hits"]


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that may be wrong: a share of all requests (as vCache promises), or of the hits (what many take that for)."""

    share: float
    of: BudgetOf = "requests"


def lower_bounds(z: float, tenant: Belief, effect: Effect) -> Array:
    """a_e for each e of `CONFIDENCES`."""
    return (1 - CONFIDENCES) * tenant.quantiles(z, effect, CONFIDENCES)


def exploration(z: float, tenant: Belief, effect: Effect, budget: Budget) -> float:
    """tau: the probability with which to compute the answer anew although there is a candidate."""
    best = float(lower_bounds(z, tenant, effect).max())
    if best >= 1 - budget.share:
        return 0.0
    # A share of the hits leaves no room for chance: either the answer is good enough, or it is not served.
    return 1.0 if budget.of == "hits" else 1 - budget.share / (1 - best)
