"""Entries for tests."""

import itertools
from typing import Any

import numpy as np

from cache.entry import Entry, Vector

_numbers = itertools.count()


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def make_entry(**changes: Any) -> Entry:
    """A live entry of namespace `a1` and fingerprint `f1`, with an id and an exact key of its own."""
    number = next(_numbers)
    values: dict[str, Any] = {
        "id": f"id-{number:06}",
        "namespace": "a1",
        "exact_key": f"key-{number}",
        "fingerprint": "f1",
        "model": "m",
        "text": "What is a cache?",
        "answer": b'{"choices": []}',
        "created_at": 1_000_000.0,
        "expires_at": 1_000_100.0,
        "vector": None,
    }
    return Entry(**{**values, **changes})


def unit(*components: float) -> Vector:
    """The unit vector of this direction."""
    vector = np.array(components, np.float64)
    return (vector / np.linalg.norm(vector)).astype(np.float32)
