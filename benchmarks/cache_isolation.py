"""Whether any look-up ever sees what is another tenant's, or of another fingerprint.

    python -m benchmarks.cache_isolation [--database URL --vectors URL]

Tenants ask a few questions with the same words and the same vectors, so that nothing but the partition keeps them apart. Threads keep
answers, delete them, invalidate, bring the index up to date and look up, all at once. Each answer names its tenant, fingerprint and
question: a hit is `foreign` if it names others than those that were asked, and `dead` if it had been ended before the look-up began.
"""

import argparse
import random
import threading
import uuid
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from benchmarks.caches import add_stores, opened, stores
from benchmarks.report import Row, parser, say, show
from cache.cascade import Query
from cache.entry import Entry, Vectors
from cache.policy import Policy
from cache.semantic import SemanticCache
from cache.stores.base import ALL, tag_scope

DIMENSION = 16
THREADS = 8
QUESTIONS = 12
TENANTS = [f"{number:064x}" for number in range(1, 9)]
FINGERPRINTS = [f"{number:064x}" for number in range(101, 104)]
NOW = 1e6
STATIC = Policy(mode="static", min_similarity=0.5)
LOOKUPS_FOR_A_CHANGE = 6


@dataclass
class _World:
    """What is known of the cache from the outside. Ids are noted as ended once the cache has said so."""

    cache: SemanticCache
    vectors: Vectors
    """Shape (QUESTIONS, DIMENSION), close to one another, so that each question finds the others' answers too."""
    kept: dict[str, list[str]] = field(default_factory=lambda: {tenant: [] for tenant in TENANTS})
    ended: dict[str, int] = field(default_factory=dict)
    """By id: how many had been ended before."""
    counts: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def end(self, ids: Sequence[str]) -> None:
        with self.lock:
            self.ended.update((entry_id, len(self.ended)) for entry_id in ids)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    with opened(options, "mygo_isolation", DIMENSION, TENANTS, lambda: NOW) as (cache, _):
        world = _World(cache, _vectors(options.seed))
        with ThreadPoolExecutor(THREADS) as pool:
            for done in pool.map(lambda worker: _work(world, options, worker), range(THREADS)):
                done  # noqa: B018  # raises what a thread raised
    show("cache_isolation", options, [_row(options, world.counts)])


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser("cache_isolation", "Look-ups of many tenants with equal questions, while their answers change.")
    made.add_argument("--lookups", type=int, default=100_000)
    add_stores(made)
    options = made.parse_args(arguments)
    options.lookups = min(options.lookups, 3_000) if options.quick else options.lookups
    return options


def _vectors(seed: int) -> Vectors:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal(DIMENSION) + 0.5 * rng.standard_normal((QUESTIONS, DIMENSION))
    unit: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _work(world: _World, options: argparse.Namespace, worker: int) -> None:
    rng = random.Random(f"{options.seed}/{worker}")
    for number in range(options.lookups // THREADS):
        if number % LOOKUPS_FOR_A_CHANGE == 0:
            _change(world, rng)
        _look_up(world, rng)
        if worker == 0 and number % 1000 == 999:
            say(f"{sum(world.counts[each] for each in ('hit', 'miss'))} look-ups, {world.counts['hit']} hits")


def _change(world: _World, rng: random.Random) -> None:
    tenant, kind = rng.choice(TENANTS), rng.random()
    if kind < 0.7:
        _keep(world, tenant, rng)
    elif kind < 0.85:
        _end(world, tenant, 1, rng)
    elif kind < 0.9:
        with world.lock:
            ids, world.kept[tenant] = world.kept[tenant], []
        world.cache.invalidate(tenant, ALL if rng.random() < 0.5 else tag_scope("t"))
        world.end(ids)
    else:  # upkeep: else what has been invalidated would soon be all that a search finds
        world.cache.collect()
        world.cache.apply()
    world.counts["changes"] += 1


def _keep(world: _World, tenant: str, rng: random.Random) -> None:
    fingerprint, question, entry_id = rng.choice(FINGERPRINTS), rng.randrange(QUESTIONS), uuid.uuid4().hex
    world.cache.insert(
        Entry(
            id=entry_id,
            namespace=tenant,
            exact_key=f"{fingerprint[-3:]}-{entry_id}",
            fingerprint=fingerprint,
            model="m",
            text=_text(question),
            answer=f"{tenant}/{fingerprint}/{entry_id}".encode(),
            created_at=NOW,
            expires_at=NOW + 100,
            epoch=world.cache.epoch(tenant),
            tags=("t",),
            vector=world.vectors[question],
        )
    )
    with world.lock:
        world.kept[tenant].append(entry_id)


def _end(world: _World, tenant: str, number: int, rng: random.Random) -> None:
    with world.lock:
        ids = [world.kept[tenant].pop(rng.randrange(len(world.kept[tenant]))) for _ in range(min(number, len(world.kept[tenant])))]
    world.cache.delete(rng.choice([each for each in TENANTS if each != tenant]), ids)  # another's are not one's own to end
    world.cache.delete(tenant, ids)
    world.end(ids)


def _look_up(world: _World, rng: random.Random) -> None:
    tenant, fingerprint, question = rng.choice(TENANTS), rng.choice(FINGERPRINTS), rng.randrange(QUESTIONS)
    ended = len(world.ended)
    found = world.cache.search(Query(tenant, fingerprint, _text(question, other_words=True), world.vectors[question]), STATIC)
    with world.lock:
        world.counts["hit" if found.entry else "miss"] += 1
        if found.entry:
            world.counts["foreign"] += found.entry.answer != f"{tenant}/{fingerprint}/{found.entry.id}".encode()
            world.counts["dead"] += world.ended.get(found.entry.id, ended) < ended


def _text(question: int, *, other_words: bool = False) -> str:
    return f"{'What is the best way to' if other_words else 'How do I'} restart the router of machine {question}?"


def _row(options: argparse.Namespace, counts: Counter[str]) -> Row:
    lookups = counts["hit"] + counts["miss"]
    return {"system": "ours", "stores": stores(options), "lookups": lookups, "hits": counts["hit"], "changes": counts["changes"]} | {
        name: counts[name] for name in ("foreign", "dead")
    }


if __name__ == "__main__":
    main()
