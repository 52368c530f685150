"""Vectors that are hard to search, as texts' are, and what is measured of whoever searches them.

They are mixtures: each has a theme, some of the theme's concepts with random weights, and noise, so that neighbours lie in several lists; a
query is another such mixture with more noise. (Plain clusters of Gaussian noise are no test: in 384 dimensions they hardly touch, and one
list in a hundred has all neighbours.) `uniform` vectors have no structure at all, and no neighbours worth finding.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from cache.entry import Vectors
from retrieval.indexes.base import Slice

DIMENSION, TOP = 384, 10
BLOCK = 20_000
THEMES, CONCEPTS, OF_THEME, MIXED, NOISE, DECAY = 50, 5_000, 300, 6, 1.0, 0.6
"""Concepts in all, of a theme, and of a vector; noise relative to the mixture; the fall of components' scale, as embeddings have it."""
QUERY_NOISE = 0.5


class World:
    """Blocks of vectors that are made anew, and equal, each time somebody asks."""

    def __init__(self, rows: int, seed: int, data: str) -> None:
        random = np.random.default_rng(seed)
        scale = np.arange(1, DIMENSION + 1) ** -(DECAY if data == "clustered" else 0.0)
        turned = np.linalg.qr(random.standard_normal((DIMENSION, DIMENSION)))[0]
        self._axes = np.asarray(turned * (scale / np.linalg.norm(scale))[:, np.newaxis], np.float32)
        self._concepts = _unit(self._noise(random, CONCEPTS))
        self._of_theme = random.integers(0, CONCEPTS, (THEMES, OF_THEME))
        self.rows, self._seed, self._mixed = rows, seed, data == "clustered"
        self.seconds = 0.0
        """Of a core, spent on making vectors."""

    def slices(self) -> Iterator[Slice]:
        for start in range(0, self.rows, BLOCK):
            began = time.thread_time()
            count = min(BLOCK, self.rows - start)
            made = np.arange(start, start + count), self._drawn(np.random.default_rng((self._seed, 1, start)), count, NOISE)
            self.seconds += time.thread_time() - began
            yield made

    def queries(self, count: int) -> Vectors:
        return self._drawn(np.random.default_rng((self._seed, 2)), count, (NOISE**2 + QUERY_NOISE**2) ** 0.5)

    def _drawn(self, random: np.random.Generator, count: int, noise: float) -> Vectors:
        if not self._mixed:
            return _unit(self._noise(random, count))
        themes = random.integers(0, THEMES, count)
        weights = np.asarray(random.dirichlet(np.ones(MIXED), count), np.float32)
        weights /= np.linalg.norm(weights, axis=1, keepdims=True)
        chosen = (random.random((count, MIXED)) ** 1.5 * OF_THEME).astype(np.int64)  # some concepts are frequent
        mixture = np.zeros((count, DIMENSION), np.float32)
        for place in range(MIXED):
            mixture += weights[:, place : place + 1] * self._concepts[self._of_theme[themes, chosen[:, place]]]
        return _unit(mixture + np.float32(noise) * self._noise(random, count))

    def _noise(self, random: np.random.Generator, count: int) -> Vectors:
        noise: Vectors = random.standard_normal((count, DIMENSION), np.float32) @ self._axes
        return noise


def _unit(vectors: Vectors) -> Vectors:
    unit: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


@contextmanager
def one_core() -> Iterator[None]:
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def anonymous() -> float:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0.0)
