"""Vectors to search, and what a search must find."""

from collections.abc import Iterable

import numpy as np

from cache.entry import Vector, Vectors
from retrieval.indexes.base import Found, RowIds, Slice

Truth = dict[int, Vector]
"""Vectors by row."""


def units(seed: int, count: int, dimension: int = 8) -> Vectors:
    rows = np.random.default_rng(seed).standard_normal((count, dimension))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def topics(seed: int, count: int, dimension: int, centres: int = 200, spread: float = 1.0) -> Vectors:
    """Vectors in clusters that overlap."""
    random = np.random.default_rng(seed)
    found = units(0, centres, dimension)[random.integers(0, centres, count)]
    rows = found + spread * random.standard_normal((count, dimension)) / dimension**0.5
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def ids(rows: Iterable[int]) -> RowIds:
    return np.fromiter(rows, np.int64)


NONE = ids(())


def slices(truth: Truth, size: int = 1000) -> list[Slice]:
    rows = [*truth]
    return [(ids(some), np.array([truth[row] for row in some])) for some in (rows[at : at + size] for at in range(0, len(rows), size))]


def nearest(truth: Truth, vector: Vector, k: int) -> list[Found]:
    """By comparing all."""
    scores = {row: round(float(np.dot(vector.astype(np.float64), other.astype(np.float64))), 6) for row, other in truth.items()}
    return [Found(row, scores[row]) for row in sorted(scores, key=lambda row: (-scores[row], row))[:k]]


def recall(found: list[list[Found]], expected: list[list[Found]]) -> float:
    shares = [len({hit.row for hit in some} & {hit.row for hit in true}) / len(true) for some, true in zip(found, expected, strict=True)]
    return float(np.mean(shares))
