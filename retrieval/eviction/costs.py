"""Seconds of a prefill: `computed` tokens behind `cached` ones."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LinearCost:
    """The model of `cache/prefix/profile.py` for an engine without other work."""

    overhead_s: float = 0.005
    token_s: float = 1e-4
    pair_s: float = 0.0
    """For each pair of a computed token and one before it."""

    def seconds(self, cached: float, computed: float) -> float:
        return self.overhead_s + computed * (self.token_s + self.pair_s * (cached + computed / 2))


def per_token(model: LinearCost, cached: float, computed: float) -> float:
    """Seconds a computed token; 0 without one."""
    return model.seconds(cached, computed) / computed if computed > 0 else 0.0
