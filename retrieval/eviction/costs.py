"""Seconds of a prefill: `computed` tokens behind `cached` ones."""

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from retrieval.errors import ProfileError


class PrefillCost(Protocol):
    def seconds(self, cached: float, computed: float) -> float: ...


@dataclass(frozen=True, slots=True)
class LinearCost:
    """The model of `cache/prefix/profile.py` for an engine without other work."""

    overhead_s: float = 0.005
    token_s: float = 1e-4
    pair_s: float = 0.0
    """For each pair of a computed token and one before it."""

    def seconds(self, cached: float, computed: float) -> float:
        return self.overhead_s + computed * (self.token_s + self.pair_s * (cached + computed / 2))


@dataclass(frozen=True, slots=True)
class GridCost:
    """Measured seconds, `table[i][j]` for `cached[i]` and `computed[j]` tokens; bilinear between them, and as at the edge beyond them."""

    cached: tuple[float, ...]
    computed: tuple[float, ...]
    table: tuple[tuple[float, ...], ...]

    def seconds(self, cached: float, computed: float) -> float:
        row, down = _place(self.cached, cached)
        column, right = _place(self.computed, computed)
        (a, b), (c, d) = (self.table[at][column : column + 2] for at in (row, row + 1))
        return max(0.0, (1 - down) * ((1 - right) * a + right * b) + down * ((1 - right) * c + right * d))


def _place(axis: Sequence[float], value: float) -> tuple[int, float]:
    """The interval, and how far into it; less than 0 or more than 1 beyond the axis."""
    place = min(max(bisect_right(axis, value) - 1, 0), len(axis) - 2)
    return place, (value - axis[place]) / (axis[place + 1] - axis[place])


def per_token(model: PrefillCost, cached: float, computed: float) -> float:
    """Seconds a computed token; 0 without one."""
    return model.seconds(cached, computed) / computed if computed > 0 else 0.0


def load(path: Path) -> PrefillCost:
    """From JSON: `{"coefficients": [overhead_s, token_s, pair_s]}` or `{"cached": [...], "computed": [...], "seconds": [[...]]}`.

    Raises `ProfileError`.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ProfileError("the prefill profile cannot be read: give the path of a JSON file") from error
    if not isinstance(content, dict):
        raise ProfileError(_FORM)
    return _linear(content["coefficients"]) if "coefficients" in content else _grid(content)


_FORM = "a prefill profile has either three coefficients, or a table of seconds with its two axes, of at least two rising numbers each"


def _linear(given: object) -> LinearCost:
    numbers = _numbers(given)
    if len(numbers) != 3:
        raise ProfileError(_FORM)
    return LinearCost(*numbers)


def _grid(content: dict[str, object]) -> GridCost:
    rows = content.get("seconds")
    if not isinstance(rows, list):
        raise ProfileError(_FORM)
    cached, computed, table = _numbers(content.get("cached")), _numbers(content.get("computed")), tuple(map(_numbers, rows))
    rising = all(len(axis) > 1 and all(one < other for one, other in pairwise(axis)) for axis in (cached, computed))
    if not rising or len(table) != len(cached) or any(len(row) != len(computed) for row in table):
        raise ProfileError(_FORM)
    return GridCost(cached, computed, table)


def _numbers(given: object) -> tuple[float, ...]:
    if not isinstance(given, list) or not all(isinstance(each, int | float) and 0 <= each < float("inf") for each in given):
        raise ProfileError(_FORM)
    return tuple(map(float, given))
