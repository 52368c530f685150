"""What the retrieval-result cache spares, and what it costs in truth, by tolerance.

    python -m benchmarks.result_cache

Questions are `question_stream.py`'s, written in many ways, their intents popular by Zipf's law, and embedded by the packaged encoder; the
chunks are one wording of each intent, so that near neighbours differ in one word that matters. `overlap` is the share of the true ten rows
among those that an approximate hit returned, `first_right_share` how often its first row is the true first one, `same_intent_share` how
often the two queries ask the same. Row `ours` with the tolerance 0 is the exact part alone.
"""

import argparse
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.question_stream import Query, intents, stream
from benchmarks.report import Row, parser, say, show
from cache.embedders.factory import load_embedder
from cache.embedders.sources import PACKAGED
from cache.entry import Vector
from retrieval.indexes.base import Found
from retrieval.indexes.building import build
from retrieval.indexes.faiss_index import FaissChunkIndex
from retrieval.result_cache import ResultCache, ResultCacheConfig, SearchKey

TOP = 10
TOLERANCES = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
KEY = SearchKey(access="a", stores=("s",), versions=(1,), top_k=TOP)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    asked = list(stream(options.requests, options.seed, options.skew))
    index, vectors = _world(asked, options)
    true = {text: index.search(vector, TOP) for text, vector in vectors.items()}
    show("result_cache", options, [_replayed(asked, vectors, true, tolerance, options) for tolerance in TOLERANCES])


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser("result_cache", "Hits of the retrieval-result cache, and how right they are.")
    made.add_argument("--requests", type=int, default=20_000)
    made.add_argument("--entries", type=int, default=10_000, help="that the cache holds at most")
    made.add_argument("--skew", type=float, default=0.9, help="Zipf's exponent of the intents' popularity")
    options = made.parse_args(arguments)
    if options.quick:
        options.requests = min(options.requests, 500)
    return options


def _world(asked: Sequence[Query], options: argparse.Namespace) -> tuple[FaissChunkIndex, dict[str, Vector]]:
    embedder = load_embedder(PACKAGED, threads=1)
    texts = list(dict.fromkeys(query.text for query in asked))
    chunks = list({query.intent: query.text for query in stream(6 * len(intents()), options.seed + 1, skew=0)}.values())
    if options.quick:
        chunks = chunks[:500]
    say(f"embedding {len(texts)} questions and {len(chunks)} chunks")
    of_chunks = embedder.embed(chunks)
    index = build([(np.arange(len(chunks)), of_chunks)], version=1, dimension=embedder.dimension, embedder=embedder.name)
    return index, dict(zip(texts, embedder.embed(texts), strict=True))


def _replayed(
    asked: Sequence[Query], vectors: dict[str, Vector], true: dict[str, list[Found]], tolerance: float, options: argparse.Namespace
) -> Row:
    cache = ResultCache(ResultCacheConfig(tolerance=tolerance, max_entries=options.entries), time.monotonic)
    texts, intents_of = list(true), {query.text: query.intent for query in asked}
    # Kept are the numbers of queries in the place of rows: so a hit says whose result it is.
    kept = {text: [Found(number, hit.score) for hit in true[text]] for number, text in enumerate(texts)}
    exact_s, near_s, overlaps, firsts, same = [], [], [], [], []
    for query in asked:
        began = time.perf_counter()
        is_known = cache.exact(KEY, query.text) is not None
        exact_s.append(time.perf_counter() - began)
        if is_known:
            continue
        began = time.perf_counter()
        hit = cache.near(KEY, query.text, vectors[query.text])
        near_s.append(time.perf_counter() - began)
        if hit is None:
            cache.put(KEY, query.text, vectors[query.text], kept[query.text])
            continue
        asked_before = texts[hit[0].row]
        found, expected = true[asked_before], true[query.text]
        overlaps.append(len({each.row for each in found} & {each.row for each in expected}) / len(expected))
        firsts.append(found[0].row == expected[0].row)
        same.append(intents_of[asked_before] == query.intent)
    counts = cache.counts
    return {
        "system": "ours",
        "tolerance": tolerance,
        "requests": len(asked),
        "hit_rate": (counts.exact + counts.near) / len(asked),
        "near_hit_rate": counts.near / len(asked),
        "overlap": float(np.mean(overlaps)) if overlaps else None,
        "overlap_p10": float(np.quantile(overlaps, 0.1)) if overlaps else None,
        "first_right_share": float(np.mean(firsts)) if firsts else None,
        "same_intent_share": float(np.mean(same)) if same else None,
        "exact_lookup_p50_us": float(np.median(exact_s) * 1e6),
        "near_lookup_p50_us": float(np.median(near_s) * 1e6),
        "near_lookup_p99_us": float(np.quantile(near_s, 0.99) * 1e6),
        "entries": len(cache),
        "cache_mb": cache.bytes / 1e6,
    }


if __name__ == "__main__":
    main()
