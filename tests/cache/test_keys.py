import hashlib
import hmac
import json
import unicodedata
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cache.errors import KeyFormatError
from cache.keys import canonical_json, exact_key, fingerprint, namespace_of

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12)


class Role(StrEnum):
    USER = "user"


class Level(IntEnum):
    HIGH = 3


def reordered(value: Any) -> Any:
    """The same JSON, its objects' members in the opposite order."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return [reordered(item) for item in value] if isinstance(value, list) else value


def tagged(value: Any) -> Any:
    """A form in which Python's `==` tells true from 1, as JSON does."""
    if isinstance(value, dict):
        return {key: tagged(item) for key, item in value.items()}
    if isinstance(value, list):
        return [tagged(item) for item in value]
    return ("number", value) if isinstance(value, int | float) and not isinstance(value, bool) else (type(value).__name__, value)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if not isinstance(value, dict | list):
        return [path]
    members = value.items() if isinstance(value, dict) else enumerate(value)
    return [leaf for key, item in members for leaf in leaves(item, (*path, key))]


def changed(value: Any, path: tuple[Any, ...], leaf: Any) -> Any:
    if not path:
        return leaf
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], leaf)
    return copy


@given(values)
def test_canonical_json_is_json_of_the_same_value(value: Any) -> None:
    assert tagged(json.loads(canonical_json(value))) == tagged(value)


@given(values)
def test_order_of_members_does_not_count(value: Any) -> None:
    assert canonical_json(reordered(value)) == canonical_json(value)


@given(values, values)
def test_different_values_differ(first: Any, second: Any) -> None:
    assert (canonical_json(first) == canonical_json(second)) == (tagged(first) == tagged(second))


@given(st.dictionaries(st.text(), values, min_size=1, max_size=4), st.data())
def test_any_changed_leaf_changes_the_key(request: dict[str, Any], data: st.DataObject) -> None:
    paths = leaves(request)
    assume(paths)
    other = changed(request, data.draw(st.sampled_from(paths)), data.draw(scalars))
    assume(tagged(other) != tagged(request))
    assert exact_key("n", "chat", other) != exact_key("n", "chat", request)


@given(st.tuples(st.text(), st.text()), st.tuples(st.text(), st.text()))
def test_text_cannot_move_between_namespace_kind_and_request(first: tuple[str, str], second: tuple[str, str]) -> None:
    assume(first != second)
    assert exact_key(*first, {}) != exact_key(*second, {})
    assert exact_key("n", first[0], {"p": first[1]}) != exact_key("n", second[0], {"p": second[1]})


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ({"b": 1, "a": [True, None]}, b'{"a":[true,null],"b":1}'),
        ("日本 é \u0000 \U0001f600", '"日本 é \\u0000 \U0001f600"'.encode()),
        (1.0, b"1"),
        (-0.0, b"0"),
        (1e300, str(int(1e300)).encode()),
        (0.1, b"0.1"),
        (2**70, str(2**70).encode()),
        ((1, 2), b"[1,2]"),
        (MappingProxyType({"a": 1}), b'{"a":1}'),
        (Role.USER, b'"user"'),
        (Level.HIGH, b"3"),
    ],
)
def test_canonical_form(value: Any, form: bytes) -> None:
    assert canonical_json(value) == form


@pytest.mark.parametrize(("first", "second"), [(True, 1), (False, 0), ("1", 1), (None, "null"), ([], {}), ("", None), (0.1 + 0.2, 0.3)])
def test_values_that_look_alike_differ(first: Any, second: Any) -> None:
    assert canonical_json(first) != canonical_json(second)


def test_strings_are_not_normalised() -> None:
    composed, decomposed = unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")
    assert exact_key("n", "chat", {"text": composed}) != exact_key("n", "chat", {"text": decomposed})


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        -float("inf"),
        b"bytes",
        {1, 2},
        object(),
        {1: "a"},
        {None: "a"},
        [{"deep": float("nan")}],
        "\ud800",
        {"\udfff": 1},
        10**5000,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(KeyFormatError):
        canonical_json(value)


def test_deep_nesting_is_refused_and_not_a_recursion_error() -> None:
    deep: Any = "leaf"
    for level in range(100_000):
        deep = [deep] if level % 2 else {"a": deep}
    with pytest.raises(KeyFormatError, match="nested deeper"):
        canonical_json(deep)


def test_exact_key_is_the_documented_hash() -> None:
    form = b'{"kind":"chat","namespace":"n","request":{"model":"m"}}'
    assert exact_key("n", "chat", {"model": "m"}) == hashlib.sha256(form).hexdigest()
    assert fingerprint({"kind": "chat", "namespace": "n", "request": {"model": "m"}}) == exact_key("n", "chat", {"model": "m"})


def test_namespace_is_an_hmac_of_the_tenant() -> None:
    assert namespace_of(b"secret", "acmé") == hmac.new(b"secret", "acmé".encode(), hashlib.sha256).hexdigest()
    assert namespace_of(b"secret", "a") != namespace_of(b"secret", "b")
    assert namespace_of(b"secret", "a") != namespace_of(b"other", "a")


def test_namespace_needs_a_secret_and_a_tenant_in_utf8() -> None:
    with pytest.raises(KeyFormatError, match="secret is empty"):
        namespace_of(b"", "a")
    with pytest.raises(KeyFormatError, match="surrogate"):
        namespace_of(b"secret", "\ud800")
