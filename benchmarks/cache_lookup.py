"""How long a look-up in a full cache takes: all of it but the encoder and the verifier, on one core.

    python -m benchmarks.cache_lookup [--database URL --vectors URL]

One tenant's partition holds all entries, which is the hardest case for the index; vectors lie in clusters, as questions do. A look-up is
what a request that is no hit of its own process does: `SemanticCache.find` (the epoch, the exact key, the normal form), then `search`
(neighbours, one SQL statement, guards, decision in mode `static`). `exact` ends at the first step; `semantic` asks a kept question in
other words, and gets its answer; `miss` has neighbours that are looked at and refused; `far` has none that are close.

The defaults are SQLite and FAISS in a directory of their own. In a database or a Milvus that is named, the entries stay until the next run.
"""

import argparse
import os
import random
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks.caches import add_stores, opened, settle, stores
from benchmarks.report import Row, parser, say, show
from cache.cascade import Query
from cache.entry import Entry, Vector
from cache.policy import Policy
from cache.semantic import SemanticCache

DIMENSION = 384
NAMESPACE, PARTITION = "a0", "f0"
CLUSTERS = 2_000
SPREAD, NEAR, CLOSE = 0.5, 0.15, 0.4
"""Noise, relative to a unit vector: of a cluster's members, of a question in other words, and of another question nearby."""
WRITERS = 8
SUBJECTS = ("replica", "cache", "router", "prompt", "token", "batch", "tenant", "queue", "vector", "epoch")
VERBS = ("restart", "measure", "resize", "inspect", "share", "drain", "clear", "warm", "split", "move")
KINDS = ("exact", "semantic", "miss", "far")


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before any library starts threads
    rng = np.random.default_rng(options.seed)
    texts, vectors = _texts(options.entries), _vectors(rng, options.entries)
    with opened(options, "mygo_lookup", DIMENSION, [NAMESPACE]) as (cache, index):
        _fill(cache, texts, vectors)
        settle(index)
        rows = [_row(options, kind, _measured(cache, kind, texts, vectors, options, rng)) for kind in KINDS]
    show("cache_lookup", options, rows)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser("cache_lookup", "The time of look-ups in a full cache, encoder and verifier excluded.")
    made.add_argument("--entries", type=int, default=100_000)
    made.add_argument("--lookups", type=int, default=2_000, help="of each kind")
    add_stores(made)
    options = made.parse_args(arguments)
    if options.quick:
        options.entries, options.lookups = min(options.entries, 2_000), min(options.lookups, 100)
    return options


def _texts(number: int) -> list[str]:
    """Questions of which no two are in other words the same."""
    return [f"How do I {VERBS[i % 10]} the {SUBJECTS[i // 10 % 10]} of machine {i // 100}?" for i in range(number)]


def _vectors(rng: np.random.Generator, number: int) -> Vector:
    """Shape (number, DIMENSION), unit rows in clusters."""
    centres = rng.standard_normal((CLUSTERS, DIMENSION), np.float32) / DIMENSION**0.5
    noise = rng.standard_normal((number, DIMENSION), np.float32) * (SPREAD / DIMENSION**0.5)
    return _unit(centres[rng.integers(CLUSTERS, size=number)] + noise)


def _unit(vectors: Vector) -> Vector:
    unit: Vector = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return unit


def _fill(cache: SemanticCache, texts: Sequence[str], vectors: Vector) -> None:
    began, now, epoch = time.monotonic(), time.time(), cache.epoch(NAMESPACE)

    def keep(number: int) -> None:
        cache.insert(_entry(number, texts[number], vectors[number], now, epoch))
        if (number + 1) % 10_000 == 0:
            say(f"{number + 1} entries written after {time.monotonic() - began:.0f} s")

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(keep, range(len(texts))))
    cache.apply()
    say(f"indexed after {time.monotonic() - began:.0f} s")


def _entry(number: int, text: str, vector: Vector, now: float, epoch: int) -> Entry:
    return Entry(
        id=uuid.uuid4().hex,
        namespace=NAMESPACE,
        exact_key=f"{number:064x}",
        fingerprint=PARTITION,
        model="m",
        text=text,
        answer=b'{"choices": [{"index": 0, "message": {"role": "assistant", "content": "Run it."}}]}',
        created_at=now,
        expires_at=now + 1e6,
        epoch=epoch,
        tokens=3,
        vector=vector,
    )


def _measured(
    cache: SemanticCache, kind: str, texts: Sequence[str], vectors: Vector, options: argparse.Namespace, rng: np.random.Generator
) -> list[float]:
    """Seconds of each look-up of a kind, in random order. Raises `RuntimeError` if one ends otherwise than it is to."""
    seconds = []
    warm_up = options.lookups // 10
    for place in range(options.lookups + warm_up):
        asked = _asked(kind, int(rng.integers(len(texts))), texts, vectors, rng)
        began = time.perf_counter()
        hit = asked(cache)
        took = time.perf_counter() - began
        if hit != (kind in ("exact", "semantic")):
            raise RuntimeError(f"a look-up of the kind {kind} ended {'with' if hit else 'without'} a hit")
        if place >= warm_up:
            seconds.append(took)
    return seconds


def _asked(kind: str, number: int, texts: Sequence[str], vectors: Vector, rng: np.random.Generator) -> Callable[[SemanticCache], bool]:
    """The look-up of one question: whether it is a hit."""
    key = f"{number:064x}" if kind == "exact" else f"{random.getrandbits(255):064x}"
    noise = rng.standard_normal(DIMENSION, np.float32) / DIMENSION**0.5
    text, vector = texts[number], vectors[number]
    if kind == "semantic":
        text, vector = text.replace("How do I", "What is the best way to"), _unit(vector + NEAR * noise)
    elif kind == "miss":
        text, vector = text.replace("?", " without a restart?"), _unit(vector + CLOSE * noise)
    elif kind == "far":
        text, vector = "Why is the sky blue?", _unit(noise)

    def look_up(cache: SemanticCache) -> bool:
        known = cache.find(NAMESPACE, key, PARTITION, text)
        if known.exact or known.reworded:
            return True
        return cache.search(Query(NAMESPACE, PARTITION, text, vector), _STATIC).entry is not None

    return look_up


_STATIC = Policy(mode="static")


def _row(options: argparse.Namespace, kind: str, seconds: Sequence[float]) -> Row:
    p50, p99 = np.quantile(seconds, (0.5, 0.99)) * 1e3
    return {
        "system": "ours",
        "stores": stores(options),
        "kind": kind,
        "entries": options.entries,
        "lookups": len(seconds),
        "lookup_p50_ms": float(p50),
        "lookup_p99_ms": float(p99),
    }


if __name__ == "__main__":
    main()
