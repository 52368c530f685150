"""Keys: the canonical form of a request, and the hashes made from it.

Two values have one canonical form exactly if they mean the same JSON: the order of object members and the notation of
numbers (`1`, `1.0`) do not count, everything else does. Strings are compared as they are, without Unicode normalisation.
"""

import hashlib
import hmac
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from cache.errors import KeyFormatError

MAX_DEPTH = 200
"""Deepest nesting of lists and objects. Far below Python's recursion limit, far above any request."""
MAX_INTEGER_BITS = 2048
"""Longest integer. Every finite float fits; Python refuses to write out numbers of some thousands of digits."""


def canonical_json(value: object) -> bytes:
    """The canonical form: UTF-8 JSON with sorted keys and no whitespace.

    Takes what JSON can hold: mappings with string keys, lists, tuples (as lists), strings, numbers, booleans, None.
    Raises `KeyFormatError` for anything else, for NaN, infinity and lone surrogates, past `MAX_DEPTH`
    and past `MAX_INTEGER_BITS`.
    """
    try:
        return msgspec.json.encode(_normal(value, 0), order="deterministic")
    except UnicodeEncodeError:
        raise KeyFormatError("a string holds a lone surrogate, which UTF-8 cannot express") from None


def fingerprint(value: object) -> str:
    """SHA-256 of the canonical form, as 64 hex digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def exact_key(namespace: str, kind: str, request: Mapping[str, Any]) -> str:
    """The exact tier's key. `request` must hold everything that changes the answer, `kind` names the API."""
    return fingerprint({"namespace": namespace, "kind": kind, "request": request})


def namespace_of(secret: bytes, tenant: str) -> str:
    """A tenant's opaque name: HMAC-SHA256, as 64 hex digits. Without the secret it cannot be traced to the tenant."""
    if not secret:
        raise KeyFormatError("the secret is empty: anybody could compute a tenant's namespace")
    try:
        return hmac.new(secret, tenant.encode(), hashlib.sha256).hexdigest()
    except UnicodeEncodeError:
        raise KeyFormatError("the tenant holds a lone surrogate, which UTF-8 cannot express") from None


def _normal(value: object, depth: int) -> object:
    """A copy of the value, of plain types only, in which equal meanings are equal objects."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int | float):
        return _number(value)
    if depth >= MAX_DEPTH:
        raise KeyFormatError(f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        return {_member_name(key): _normal(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_normal(item, depth + 1) for item in value]
    raise KeyFormatError(f"{type(value).__name__} has no canonical form")


def _number(value: float) -> float:
    """An int where the value is integral (so 1.0 is 1, and -0.0 is 0), a float otherwise."""
    if not isinstance(value, int) and not math.isfinite(value):
        raise KeyFormatError("NaN and infinity have no canonical form")
    if not isinstance(value, int) and not value.is_integer():
        return float(value)
    integer = int(value)
    if integer.bit_length() > MAX_INTEGER_BITS:
        raise KeyFormatError(f"an integer of more than {MAX_INTEGER_BITS} bits")
    return integer


def _member_name(key: object) -> str:
    if not isinstance(key, str):
        raise KeyFormatError(f"an object's keys are strings, not {type(key).__name__}")
    return str.__str__(key)
