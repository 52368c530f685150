"""Confidence intervals of shares."""

import math


def interval(count: int, of: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share, 95 % by default; (0, 1) of nothing.

    Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    if of == 0:
        return 0.0, 1.0
    share = count / of
    middle, half = share + z * z / (2 * of), z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    scale = 1 + z * z / of
    # At 0 and 1 the bound is the share itself, which rounding would miss.
    return max(0.0, min(share, (middle - half) / scale)), min(1.0, max(share, (middle + half) / scale))
