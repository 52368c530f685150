import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import QueryError
from retrieval.filters import EXAMPLE, MAX_COMPARISONS, MAX_DEPTH, MAX_VALUES, MAX_VALUES_IN_ALL, parse_filter

CANARY = "canary_7f3a9"


def of(operator: str, value: Any, key: str = "a") -> dict[str, Any]:
    return {"type": operator, "key": key, "value": value}


@pytest.mark.parametrize(
    ("raw", "attributes", "matches"),
    [
        (of("eq", 1), {"a": 1.0}, True),
        (of("eq", 1), {"a": True}, False),
        (of("eq", True), {"a": 1}, False),
        (of("eq", "1"), {"a": 1}, False),
        (of("eq", 1), {}, False),
        (of("ne", 1), {"a": 2}, True),
        (of("ne", 1), {"a": 1}, False),
        (of("ne", 1), {}, True),
        (of("gt", 1), {"a": 1.5}, True),
        (of("gt", 1), {"a": 1}, False),
        (of("gte", 1), {"a": 1}, True),
        (of("lt", 1), {"a": 0}, True),
        (of("lt", 1), {"a": True}, False),
        (of("lt", 1), {"a": "0"}, False),
        (of("lte", "2024-05-01"), {"a": "2024-04-30"}, True),
        (of("gt", 1), {}, False),
        (of("in", ["x", 1]), {"a": 1}, True),
        (of("in", ["x", 1]), {"a": True}, False),
        (of("in", [False]), {"a": False}, True),
        (of("nin", ["x"]), {"a": "y"}, True),
        (of("nin", ["x"]), {}, True),
        (of("nin", ["x"]), {"a": "x"}, False),
        ({"type": "and", "filters": [of("gt", 1), of("lt", 3)]}, {"a": 2}, True),
        ({"type": "and", "filters": [of("gt", 1), of("lt", 3)]}, {"a": 3}, False),
        ({"type": "or", "filters": [of("eq", 1), {"type": "and", "filters": [of("eq", "x", "b")]}]}, {"b": "x"}, True),
    ],
)
def test_what_a_filter_lets_through(raw: Any, attributes: dict[str, Any], matches: bool) -> None:
    assert parse_filter(raw, "filters").matches(attributes) == matches


def nested(levels: int) -> dict[str, Any]:
    raw = of("eq", 1)
    for level in range(levels - 1):
        raw = {"type": "and", "filters": [raw, of("eq", level, "b")]}
    return raw


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (None, "f"),
        ([], "f"),
        ("eq", "f"),
        ({}, "f.type"),
        (of(CANARY, 1), "f.type"),
        ({"type": ["eq"], "key": "a", "value": 1}, "f.type"),
        ({"type": "eq", "value": 1}, "f.key"),
        ({"type": "eq", "key": "a"}, "f.value"),
        (of("eq", 1, key=""), "f.key"),
        (of("eq", 1, key="x" * 65), "f.key"),
        (of("eq", 1, key="\ud800"), "f.key"),
        ({"type": "eq", "key": 1, "value": 1}, "f.key"),
        ({**of("eq", 1), f"{CANARY} ": 1}, "f"),
        ({**of("eq", 1), "vlaue": 1}, "f.vlaue"),
        (of("eq", None), "f.value"),
        (of("eq", [1]), "f.value"),
        (of("eq", {}), "f.value"),
        (of("eq", "x" * 513), "f.value"),
        (of("eq", float("nan")), "f.value"),
        (of("eq", 10**400), "f.value"),
        (of("gt", True), "f.value"),
        (of("in", CANARY), "f.value"),
        (of("in", []), "f.value"),
        (of("in", [[CANARY]]), "f.value"),
        (of("in", list(range(MAX_VALUES + 1))), "f.value"),
        ({"type": "and"}, "f.filters"),
        ({"type": "and", "filters": []}, "f.filters"),
        ({"type": "or", "filters": {}}, "f.filters"),
        ({"type": "or", "filters": [of("eq", 1), of("eq", None)]}, "f.filters[1].value"),
        ({"type": "or", "filters": [of("eq", 1)] * (MAX_COMPARISONS + 1)}, "f.filters"),
        ({"type": "or", "filters": [{"type": "and", "filters": [of("eq", 1)] * 33}] * 2}, "f"),
        ({"type": "or", "filters": [of("in", [each, *range(100, 300)]) for each in range(6)]}, "f"),
        (nested(MAX_DEPTH + 1), "f" + ".filters[0]" * MAX_DEPTH),
        (nested(2000), "f" + ".filters[0]" * MAX_DEPTH),
    ],
)
def test_what_is_no_filter_names_its_place(raw: Any, field: str) -> None:
    with pytest.raises(QueryError) as refused:
        parse_filter(raw, "f")
    assert refused.value.field == field
    assert CANARY not in str(refused.value)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"kind": "manual"}, f"f.type is missing; for example {EXAMPLE}"),
        ({"type": "equals"}, "f.type is not an allowed value; allowed: and, or, eq, ne, gt, gte, lt, lte, in, nin"),
        ({"type": "eq", "key": "kind"}, "f.value is required"),
        ({"type": "or", "filters": [{"type": "eq", "key": "a"}]}, "f.filters[0].value is required"),
        ({**of("eq", 1), "keys": 1}, "f.keys is not known; allowed: key, type, value; did you mean key?"),
    ],
)
def test_what_is_no_filter_is_told_what_would_be_one(raw: Any, message: str) -> None:
    with pytest.raises(QueryError) as refused:
        parse_filter(raw, "f")
    assert str(refused.value) == message
    parse_filter(json.loads(EXAMPLE), "f")


def test_the_deepest_and_longest_filters_are_taken() -> None:
    assert (
        parse_filter(nested(MAX_DEPTH), "f").matches(
            {
                "a": 1,
            }
        )
        is False
    )
    assert parse_filter(of("in", list(range(MAX_VALUES))), "f").matches({"a": 5})
    assert parse_filter({"type": "or", "filters": [of("eq", i) for i in range(MAX_COMPARISONS)]}, "f").matches({"a": 63})


VALUES = st.one_of(st.text("ab", max_size=2), st.integers(-2, 2), st.sampled_from([0.5, 1.0, -1.0]), st.booleans())
KEYS = st.sampled_from("ab")
COMPARISONS = st.one_of(
    st.builds(of, st.sampled_from(["eq", "ne"]), VALUES, KEYS),
    st.builds(of, st.sampled_from(["gt", "gte", "lt", "lte"]), VALUES.filter(lambda value: not isinstance(value, bool)), KEYS),
    st.builds(of, st.sampled_from(["in", "nin"]), st.lists(VALUES, min_size=1, max_size=3), KEYS),
)
FILTERS = st.recursive(
    COMPARISONS,
    lambda parts: st.builds(
        lambda kind, filters: {"type": kind, "filters": filters}, st.sampled_from(["and", "or"]), st.lists(parts, min_size=1, max_size=3)
    ),
    max_leaves=6,
).filter(lambda raw: json.dumps(raw).count('"filters"') < MAX_DEPTH)
ATTRIBUTES = st.dictionaries(KEYS, VALUES)


def turned(raw: Any) -> Any:
    """The same filter, said in another order."""
    if "filters" in raw:
        return {"filters": [turned(part) for part in reversed(raw["filters"])], "type": raw["type"]}
    value = list(reversed(raw["value"])) if isinstance(raw["value"], list) else raw["value"]
    return {"value": value, "key": raw["key"], "type": raw["type"]}


@given(FILTERS, ATTRIBUTES)
def test_order_makes_no_other_filter(raw: Any, attributes: dict[str, Any]) -> None:
    one, other = parse_filter(raw, "f"), parse_filter(turned(raw), "f")
    assert one == other
    assert hash(one) == hash(other)
    assert one.digest == other.digest
    assert one.matches(attributes) == other.matches(attributes)


@given(FILTERS, FILTERS, ATTRIBUTES)
def test_filters_of_one_digest_let_the_same_through(first: Any, second: Any, attributes: dict[str, Any]) -> None:
    one, other = parse_filter(first, "f"), parse_filter(second, "f")
    if one.digest == other.digest:
        assert one.matches(attributes) == other.matches(attributes)
    assert (one == other) == (one.digest == other.digest)


@given(COMPARISONS, ATTRIBUTES)
def test_each_operator_has_an_opposite(raw: Any, attributes: dict[str, Any]) -> None:
    opposites = {"eq": "ne", "ne": "eq", "in": "nin", "nin": "in"}
    if raw["type"] in opposites:
        opposite = parse_filter({**raw, "type": opposites[raw["type"]]}, "f")
        assert parse_filter(raw, "f").matches(attributes) != opposite.matches(attributes)


def test_one_and_true_are_two_filters() -> None:
    assert parse_filter(of("eq", 1), "f") != parse_filter(of("eq", True), "f")
    assert parse_filter(of("eq", 1), "f") == parse_filter(of("eq", 1.0), "f")


def test_of_too_many_comparisons_no_more_are_read() -> None:
    part: Any = of("eq", 1)
    for _ in range(3):
        part = {"type": "and", "filters": [part] * MAX_COMPARISONS}
    began = time.process_time()
    with pytest.raises(QueryError):
        parse_filter(part, "f")
    assert time.process_time() - began < 0.5


def test_many_values_take_no_longer_than_few() -> None:
    among = [of("nin", [f"{key}-{i}" for i in range(MAX_VALUES)], f"k{key % 16}") for key in range(MAX_VALUES_IN_ALL // MAX_VALUES)]
    filters = parse_filter({"type": "and", "filters": among}, "f")
    attributes = {f"k{key}": "x" for key in range(16)}
    began = time.process_time()
    assert all(filters.matches(attributes) for _ in range(2000))
    assert time.process_time() - began < 2


@given(FILTERS)
def test_a_filter_that_travels_is_the_same_one(raw: Any) -> None:
    assert parse_filter(msgspec.msgpack.decode(msgspec.msgpack.encode(raw)), "f") == parse_filter(raw, "f")
