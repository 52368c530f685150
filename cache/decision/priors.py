"""Where every tenant's belief begins, for each kind of score."""

from cache.decision.belief import Prior

_CALIBRATED = Prior(intercept_deviation=1.5, slope_deviation=0.6, entry_variance=0.1)

PRIORS = {
    # A calibrated verifier: right on average, more or less sure of one tenant's questions than of another's.
    "short": _CALIBRATED,
    "doubted": _CALIBRATED,
    # Cosines between long texts, which nothing was calibrated on.
    "long": Prior(intercept_deviation=1.5, slope_deviation=0.6, entry_variance=0.3),
}
