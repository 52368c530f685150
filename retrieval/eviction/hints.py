"""What the application tells the policy about a request: an object under `mygo` in its `kv_transfer_params`.

    {"documents": [[start, end, weight], ...], "profile": [a, b, c]}

`documents` are spans of the prompt's tokens, in order, without overlap; `weight` may be left out. `profile` are the coefficients of
`costs.LinearCost`. Engines hand the parameters on unread, so whatever does not have this form is as if it were not there.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import Any

from retrieval.eviction.base import Span

FIELD = "mygo"
MAX_SPANS = 256
MAX_WEIGHT = 1000.0
_MAX_TOKENS = 1 << 31


@dataclass(frozen=True, slots=True)
class Hints:
    documents: tuple[Span, ...] = ()
    profile: tuple[float, float, float] | None = None

    def weights(self, ends: list[int]) -> list[float] | None:
        """Of blocks that end at these tokens: that of the document which a block's last token belongs to, else 1. None: all 1."""
        if all(span.weight == 1.0 for span in self.documents):
            return None
        starts = [span.start for span in self.documents]
        return [self._weight(bisect_right(starts, end - 1) - 1, end - 1) for end in ends]

    def _weight(self, place: int, token: int) -> float:
        return self.documents[place].weight if place >= 0 and token < self.documents[place].end else 1.0


NONE = Hints()


def parse(parameters: object) -> Hints:
    """Never raises."""
    given = parameters.get(FIELD) if isinstance(parameters, Mapping) else None
    if not isinstance(given, Mapping):
        return NONE
    return Hints(_documents(given.get("documents")), _profile(given.get("profile")))


def _documents(given: object) -> tuple[Span, ...]:
    if not isinstance(given, list) or len(given) > MAX_SPANS:
        return ()
    spans = [_span(each) for each in given]
    found = [span for span in spans if span is not None]
    ordered = all(one.end <= other.start for one, other in pairwise(found))
    return tuple(found) if ordered and len(found) == len(spans) else ()


def _span(given: object) -> Span | None:
    if not isinstance(given, list) or not 2 <= len(given) <= 3:
        return None
    start, end, weight = given[0], given[1], given[2] if len(given) == 3 else 1.0
    if not (type(start) is int and type(end) is int and 0 <= start < end < _MAX_TOKENS):
        return None
    return Span(start, end, float(weight)) if _is_number(weight) and weight <= MAX_WEIGHT else None


def _profile(given: object) -> tuple[float, float, float] | None:
    if not isinstance(given, list) or len(given) != 3 or not all(_is_number(each) for each in given):
        return None
    a, b, c = map(float, given)
    return (a, b, c) if a + b + c > 0 else None


def _is_number(given: Any) -> bool:
    return type(given) in (int, float) and isfinite(given) and given >= 0
