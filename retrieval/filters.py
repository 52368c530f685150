"""Filters on documents' attributes, in OpenAI's form: comparisons, joined by `and` and `or`.

A comparison has a type: a text is never equal to a number, nor a number to a boolean. What a document does not say of itself is neither
equal, nor greater or less, nor among any values; so `ne` and `nin` hold for it.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import ge, gt, le, lt
from typing import Any, Literal

from retrieval.documents import MAX_KEY_CHARS, MAX_VALUE_CHARS, Attributes, is_unicode, is_value
from retrieval.errors import QueryError
from retrieval.wording import unknown_field

MAX_DEPTH = 8
MAX_COMPARISONS = 64
MAX_VALUES = 256
"""Of one `in` or `nin`."""
MAX_VALUES_IN_ALL = 1024
"""Of one filter: searches that go on hold theirs, hundreds at once."""
EXAMPLE = '{"type": "eq", "key": "kind", "value": "manual"}'

Value = str | float | bool
Operator = Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {"gt": gt, "gte": ge, "lt": lt, "lte": le}
_EQUAL = ("eq", "ne")
_AMONG = ("in", "nin")


@dataclass(frozen=True)
class Comparison:
    """`values` are distinct, in one order for all filters, and for all operators but `in` and `nin` exactly one."""

    operator: Operator
    key: str
    values: tuple[Value, ...]

    @cached_property
    def digest(self) -> str:
        """Equal for filters that say the same in the same way, whatever the order of their parts. A hash: a filter may have megabytes,
        and who keeps something of it keeps this."""
        return _digest(json.dumps([self.operator, self.key, [_canonical(value) for value in self.values]]))

    def matches(self, attributes: Attributes) -> bool:
        value = attributes.get(self.key)
        if self.operator in _ORDERS:
            (bound,) = self.values
            return value is not None and _kind(value) == _kind(bound) and _ORDERS[self.operator](value, bound)
        is_among = value is not None and (_kind(value), value) in self._known
        return is_among == (self.operator in ("eq", "in"))

    @cached_property
    def _known(self) -> frozenset[tuple[str, Value]]:
        """A set: all documents of a collection are asked for, and values may be many."""
        return frozenset((_kind(each), each) for each in self.values)

    def __eq__(self, other: object) -> bool:  # 1 is not true here
        return isinstance(other, Comparison) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


@dataclass(frozen=True)
class Compound:
    """`parts` are distinct, and sorted by their digests."""

    operator: Literal["and", "or"]
    parts: tuple["Filter", ...]

    @cached_property
    def digest(self) -> str:
        return _digest(f"{self.operator} {' '.join(part.digest for part in self.parts)}")

    def matches(self, attributes: Attributes) -> bool:
        together = all if self.operator == "and" else any
        return together(part.matches(attributes) for part in self.parts)


Filter = Comparison | Compound


def parse_filter(raw: Any, field: str) -> Filter:
    """A filter from JSON. Raises `QueryError`, which names the place below `field`."""
    parsed, _ = _parse(raw, field, MAX_DEPTH)
    if _values(parsed) > MAX_VALUES_IN_ALL:
        raise QueryError(f"more than {MAX_VALUES_IN_ALL} values in all", field)
    return parsed


def _values(parsed: Filter) -> int:
    return len(parsed.values) if isinstance(parsed, Comparison) else sum(map(_values, parsed.parts))


def _parse(raw: Any, field: str, levels: int) -> tuple[Filter, int]:
    """And how many comparisons it has."""
    if not isinstance(raw, Mapping):
        raise QueryError("a filter is an object", field)
    if levels == 0:
        raise QueryError(f"filters are nested deeper than {MAX_DEPTH} levels", field)
    operator = raw.get("type")
    if "type" not in raw:
        raise QueryError(f"{field}.type is missing; for example {EXAMPLE}", f"{field}.type")
    if operator in ("and", "or"):
        return _compound(raw, operator, field, levels)
    if operator not in (*_EQUAL, *_ORDERS, *_AMONG):
        allowed = ", ".join(("and", "or", *_EQUAL, *_ORDERS, *_AMONG))
        raise QueryError(f"{field}.type is not an allowed value; allowed: {allowed}", f"{field}.type")
    return _comparison(raw, operator, field), 1


def _compound(raw: Mapping[str, Any], operator: Any, field: str, levels: int) -> tuple[Filter, int]:
    _require_keys(raw, {"type", "filters"}, field)
    parts = raw["filters"]
    if not isinstance(parts, list) or not 1 <= len(parts) <= MAX_COMPARISONS:
        raise QueryError(f"a list of 1 to {MAX_COMPARISONS} filters", f"{field}.filters")
    distinct: dict[str, Filter] = {}
    count = 0
    for at, part in enumerate(parts):
        parsed, comparisons = _parse(part, f"{field}.filters[{at}]", levels - 1)
        distinct.setdefault(parsed.digest, parsed)
        count += comparisons
        if count > MAX_COMPARISONS:  # what follows may be megabytes
            raise QueryError(f"more than {MAX_COMPARISONS} comparisons", field)
    if len(distinct) == 1:
        return next(iter(distinct.values())), count
    return Compound(operator, tuple(distinct[key] for key in sorted(distinct))), count


def _comparison(raw: Mapping[str, Any], operator: Any, field: str) -> Comparison:
    _require_keys(raw, {"type", "key", "value"}, field)
    key, value = raw["key"], raw["value"]
    if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY_CHARS or not is_unicode(key):
        raise QueryError(f"an attribute's key is a text of 1 to {MAX_KEY_CHARS} characters", f"{field}.key")
    if operator in _AMONG:
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_VALUES or not all(is_value(each) for each in value):
            raise QueryError(f"for {operator}, a list of 1 to {MAX_VALUES} texts, numbers or booleans", f"{field}.value")
        distinct = {json.dumps(_canonical(each)): each for each in value}
        return Comparison(operator, key, tuple(distinct[each] for each in sorted(distinct)))
    if not is_value(value):
        allowed = f"a text of at most {MAX_VALUE_CHARS} characters, a number (an integer of at most 2^53) or a boolean"
        raise QueryError(allowed, f"{field}.value")
    if operator in _ORDERS and isinstance(value, bool):
        raise QueryError(f"for {operator}, a number or a text", f"{field}.value")
    return Comparison(operator, key, (value,))


def _require_keys(raw: Mapping[str, Any], keys: set[str], field: str) -> None:
    if missing := sorted(keys - raw.keys()):
        raise QueryError(f"{field}.{missing[0]} is required", f"{field}.{missing[0]}")
    if unknown := raw.keys() - keys:
        place, message = unknown_field(field, min(unknown), sorted(keys))
        raise QueryError(message, place)


def _kind(value: Value) -> str:
    return "boolean" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"


def _canonical(value: Value) -> list[Any]:
    """1 and 1.0 are one number."""
    is_whole = isinstance(value, float) and value.is_integer()
    return [_kind(value), int(value) if is_whole else value]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
