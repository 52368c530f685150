"""How well a semantic cache tells questions that ask the same from those that do not, on labelled pairs.

    python -m benchmarks.semantic_decision --pairs FILE

Each pair stands for a kept question and a new one whose nearest neighbour it is. `precision` is the share of the accepted pairs that
are the same, `recall` the share of the same pairs that are accepted. Of the file that the packaged verifier was trained on only the
held-out part is used (`cache.verifiers.pairs`).
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.held_out import held_out
from benchmarks.report import Row, parser, say, show
from cache.config import SemanticConfig
from cache.decision.intervals import interval
from cache.embedders.base import Embedder
from cache.embedders.factory import load_embedder
from cache.embedders.sources import PACKAGED
from cache.guards.cascade import first_refusal
from cache.guards.text import normal_form, parse
from cache.verifiers.base import Pair, Verifier
from cache.verifiers.factory import load_verifier
from cache.verifiers.pairs import LabelledPair
from cache.verifiers.similarity import SimilarityVerifier

Accepts = NDArray[np.bool_]
GPTCACHE_THRESHOLD = 0.8
"""GPTCache's default, on its own scale: a rank from 0 to 1 that falls with the squared distance."""
COSINE_THRESHOLD = 0.97
BLOCK = 256


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    config = SemanticConfig()
    encoder = load_embedder(PACKAGED, 1, options.precision)
    verifier = load_verifier(config.verifier, 1, encoder.name, options.precision)
    pairs = held_out(options.pairs, verifier)[: 600 if options.quick else None]
    say(f"{len(pairs)} pairs")
    similarities, encoding = _similarities(encoder, pairs)
    same = np.array([pair.same for pair in pairs])
    guard, guarding = _timed(lambda pair: _guard(pair, frozenset()), pairs)
    left, _ = _timed(lambda pair: _guard(pair, verifier.settles), pairs)
    systems = {"cosine": similarities >= COSINE_THRESHOLD, "gptcache": _gptcache(similarities)}
    stages = {"encode": encoding, "guards": guarding}
    plain, _ = _judged(SimilarityVerifier(), pairs, similarities, guard == "", config)
    systems["ours_no_verifier"] = plain
    systems["ours"], stages["verify"] = _judged(verifier, pairs, similarities, left == "", config)
    rows = [_row(name, accepted, same) | _times(stages if name == "ours" else {}) for name, accepted in systems.items()]
    rows += [_row("ours", systems["ours"], same, cls, guard == cls) for cls in sorted(set(guard) - {""})] if options.classes else []
    show("semantic_decision", options, rows)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser("semantic_decision", "Precision and recall of semantic cache hits on labelled pairs of questions.")
    made.add_argument("--precision", choices=["float32", "int8"], default="int8", help="of encoder and verifier")
    made.add_argument("--pairs", type=Path, required=True, help='JSON lines {"a", "b", "same"}, gzipped or not')
    made.add_argument("--classes", action="store_true", help="also a row for each guard's pairs")
    return made.parse_args(arguments)


def _similarities(encoder: Embedder, pairs: list[LabelledPair]) -> tuple[NDArray[np.float32], list[float]]:
    """The pairs' cosines, and the seconds that encoding one text took."""
    seconds = []
    found = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), BLOCK):
        block = pairs[start : start + BLOCK]
        began = time.perf_counter()
        a, b = encoder.embed([pair.a for pair in block]), encoder.embed([pair.b for pair in block])
        seconds.append((time.perf_counter() - began) / (2 * len(block)))
        found[start : start + len(block)] = np.sum(a * b, axis=1)
    return found, seconds


def _gptcache(similarities: NDArray[np.float32]) -> Accepts:
    """GPTCache 0.1.44's search-distance rule: rank = 1 - distance² / 4 on unit vectors, against its default threshold."""
    return 1 - (2 - 2 * similarities) / 4 >= GPTCACHE_THRESHOLD


def _guard(pair: LabelledPair, settled: frozenset[str]) -> str:
    if normal_form(pair.a) == normal_form(pair.b):
        return ""
    refusal = first_refusal(parse(pair.a), parse(pair.b), settled)
    return refusal.guard if refusal else ""


def _timed(work: Callable[[LabelledPair], str], pairs: list[LabelledPair]) -> tuple[NDArray[np.str_], list[float]]:
    found, seconds = [], []
    for pair in pairs:
        began = time.perf_counter()
        found.append(work(pair))
        seconds.append(time.perf_counter() - began)
    return np.array(found), seconds


def _judged(
    verifier: Verifier, pairs: list[LabelledPair], similarities: NDArray[np.float32], allowed: Accepts, config: SemanticConfig
) -> tuple[Accepts, list[float]]:
    """Which of the allowed pairs the verifier accepts from the default `min_probability` on, one at a time, and the seconds for each."""
    accepted, seconds = np.zeros(len(pairs), bool), []
    for place in np.flatnonzero(allowed & (similarities >= config.min_similarity)):
        pair = pairs[place]
        if normal_form(pair.a) == normal_form(pair.b):
            accepted[place] = True
            continue
        began = time.perf_counter()
        (probability,) = verifier.probabilities([Pair(pair.a, pair.b, float(similarities[place]))])
        seconds.append(time.perf_counter() - began)
        accepted[place] = probability is not None and probability >= config.min_probability
    return accepted, seconds


def _row(system: str, accepted: Accepts, same: NDArray[np.bool_], cls: str = "all", chosen: Accepts | None = None) -> Row:
    if chosen is not None:
        accepted, same = accepted[chosen], same[chosen]
    hits, right = int(accepted.sum()), int((accepted & same).sum())
    low, high = interval(hits - right, hits)
    return {
        "system": system,
        "class": cls,
        "pairs": len(same),
        "hits": hits,
        "precision": right / hits if hits else 1.0,
        "recall": right / max(1, int(same.sum())),
        "false_hit_share": (hits - right) / hits if hits else 0.0,
        "false_hit_share_low": low,
        "false_hit_share_high": high,
    }


def _times(stages: dict[str, list[float]]) -> Row:
    quantiles = {"p50": 0.5, "p99": 0.99}
    return {
        f"{stage}_{name}_us": float(np.quantile(seconds, share)) * 1e6
        for stage, seconds in stages.items()
        if seconds
        for name, share in quantiles.items()
    }


if __name__ == "__main__":
    main()
