"""What an entry is worth keeping for."""

from math import log2

HALF_LIFE_S = 86_400.0
"""After so long without a hit an entry counts half."""


def value(tokens: int, hits: int, last_used_at: float) -> float:
    """The logarithm of what the entry saves, tokens x hits, halved with every `HALF_LIFE_S` seconds since its last use.

    All entries age alike, so their order does not depend on the time of asking, and the value can be stored and indexed: it is
    log2((tokens + 1) (hits + 1) 2^(-(now - last_used_at) / half-life)) plus now / half-life, which all have in common.
    (Exponentially decayed counts, as in LRFU: Lee et al., IEEE Transactions on Computers 50(12), 2001.)
    """
    return log2((tokens + 1) * (hits + 1)) + last_used_at / HALF_LIFE_S
