"""What the application tells the policy about a request: an object under `mygo` in its `kv_transfer_params`.

    {"profile": [overhead_s, token_s, pair_s]}

The coefficients of `costs.LinearCost`, as this engine's prefills are now. Engines hand the parameters on unread, so whatever does not have
this form is as if it were not there.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from retrieval.eviction.costs import LinearCost

FIELD = "mygo"


def profile(parameters: object) -> LinearCost | None:
    """Never raises."""
    given = parameters.get(FIELD) if isinstance(parameters, Mapping) else None
    found = given.get("profile") if isinstance(given, Mapping) else None
    if not isinstance(found, list) or len(found) != 3 or not all(_is_number(each) for each in found):
        return None
    a, b, c = map(float, found)
    return LinearCost(a, b, c) if a + b + c > 0 else None


def _is_number(given: Any) -> bool:
    return type(given) in (int, float) and isfinite(given) and given >= 0
