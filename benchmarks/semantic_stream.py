"""Whether the error budget holds, and what it leaves of the hits, on a stream of questions with known equivalence.

    python -m benchmarks.semantic_stream

The stream is `question_stream.py`'s, or with `--pairs FILE` labelled pairs, in random order (of the file that the verifier was trained
on, those of its held-out part). Each pair then is a partition of its own, because only of the two questions of one pair is it known
whether they are equivalent. A question with the very text of a kept one is an exact hit: it is counted apart, and is no part of the
rates. `ours` is the cache as it is served (`cache.semantic`) in mode `verified`, from an empty start; `best_static` the cosine threshold
with the most hits among those whose error is within the budget, `same_error` among those whose error is no larger than that of `ours`; both
are chosen afterwards with all labels at hand.
"""

import argparse
import hashlib
import random
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.held_out import held_out
from benchmarks.question_stream import Query as Asked
from benchmarks.question_stream import stream
from benchmarks.report import Row, parser, say, show
from cache.cascade import Query
from cache.config import SemanticConfig
from cache.decision.account import Budget
from cache.decision.intervals import interval
from cache.embedders.base import Embedder
from cache.embedders.factory import load_embedder
from cache.embedders.sources import PACKAGED
from cache.entry import Entry
from cache.policy import Policy
from cache.semantic import Parts, SemanticCache
from cache.stores.sql import open_database
from cache.vectors.faiss_index import FaissIndex
from cache.verifiers.base import Pair, Verifier
from cache.verifiers.factory import load_verifier
from cache.verifiers.pairs import LabelledPair
from deployments.config import EmbeddingConfig

BUDGETS = (0.005, 0.01, 0.02, 0.05)
THRESHOLDS = tuple(round(0.6 + 0.01 * step, 3) for step in range(30)) + tuple(round(0.9 + 0.002 * step, 3) for step in range(51))
PARTS = 5
"""Points of the learning curve."""
NAMESPACE = "a0"
Vectors = dict[str, NDArray[np.float32]]


@dataclass
class Tally:
    """What became of the questions that were no exact hits."""

    outcomes: list[tuple[bool, bool]] = field(default_factory=list)
    """(hit, right) of each."""
    exact: int = 0

    def row(self, system: str, budget: float) -> Row:
        hits = sum(hit for hit, _ in self.outcomes)
        wrong = sum(hit and not right for hit, right in self.outcomes)
        low, high = interval(wrong, hits)
        return {
            "system": system,
            "delta": budget,
            "requests": len(self.outcomes),
            "exact_hits": self.exact,
            "hit_rate": hits / max(1, len(self.outcomes)),
            "request_error": wrong / max(1, len(self.outcomes)),
            "false_hit_share": wrong / max(1, hits),
            "false_hit_share_low": low,
            "false_hit_share_high": high,
            **{f"hit_rate_{number + 1}": share for number, share in enumerate(self._curve())},
        }

    def _curve(self) -> list[float]:
        parts = np.array_split(np.array([hit for hit, _ in self.outcomes], float), PARTS)
        return [float(part.mean()) if len(part) else 0.0 for part in parts]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    verifier = _Remembering(load_verifier(options.verifier, 1, _encoder().name, EmbeddingConfig().precision))
    asked = list(stream(options.queries, options.seed) if options.pairs is None else _of_pairs(held_out(options.pairs, verifier), options))
    say(f"{len(asked)} questions, {len({each.text for each in asked})} texts, {len({each.intent for each in asked})} intents")
    vectors = _encode(asked)
    static = [(threshold, _static(asked, vectors, threshold)) for threshold in (THRESHOLDS[::8] if options.quick else THRESHOLDS)]
    rows: list[Row] = []
    for budget in BUDGETS[1:2] if options.quick else BUDGETS:
        rows.append(
            _ours(asked, vectors, verifier, replace(SemanticConfig().policy(), budget=Budget(budget)), options.seed).row("ours", budget)
        )
        ours = rows[-1]
        within, same = _best("best_static", static, budget), _best("same_error", static, float(ours["request_error"]))
        rows += [within, same]
        rates = f"static {within['hit_rate']:.3f}, with the same error {same['hit_rate']:.3f}"
        say(f"budget {budget}: hit rate {ours['hit_rate']:.3f}, error {ours['request_error']:.4f}; {rates}")
    show("semantic_stream", options, rows)


def _encoder() -> Embedder:
    """As the application has it by default."""
    return load_embedder(PACKAGED, 1, EmbeddingConfig().precision)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser("semantic_stream", "The error budget of the semantic cache on a stream of questions with known equivalence.")
    made.add_argument("--queries", type=int, default=20_000)
    made.add_argument("--pairs", type=Path, help='JSON lines {"a", "b", "same"} to take the questions from')
    made.add_argument("--verifier", default=SemanticConfig().verifier, help="as cache.semantic.verifier in the configuration")
    options = made.parse_args(arguments)
    options.queries = min(options.queries, 1500) if options.quick else options.queries
    return options


def _of_pairs(pairs: Sequence[LabelledPair], options: argparse.Namespace) -> list[Asked]:
    """Both questions of each pair, the first of them before the second."""
    rng = random.Random(options.seed)
    chosen = rng.sample(pairs, min(len(pairs), options.queries // 2))
    order = rng.sample(list(range(len(chosen))) * 2, 2 * len(chosen))
    asked, begun = [], set[int]()
    for number in order:
        pair, place = chosen[number], f"{number:x}"
        intent = 2 * number + (number in begun and not pair.same)
        asked.append(Asked(pair.b if number in begun else pair.a, intent, place))
        begun.add(number)
    return asked


def _encode(asked: Sequence[Asked]) -> Vectors:
    texts = sorted({each.text for each in asked})
    encoder = _encoder()
    return dict(zip(texts, encoder.embed(texts), strict=True))


class _Remembering:
    """A verifier that judges each pair once: the budgets' runs share most of them."""

    def __init__(self, verifier: Verifier) -> None:
        self.name, self.settles = verifier.name, verifier.settles
        self._verifier = verifier
        self._known: dict[Pair, float | None] = {}

    def probabilities(self, pairs: Sequence[Pair]) -> list[float | None]:
        new = [pair for pair in pairs if pair not in self._known]
        self._known |= dict(zip(new, self._verifier.probabilities(new) if new else [], strict=True))
        return [self._known[pair] for pair in pairs]


class _Clock:
    """A second for each request."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


def _ours(asked: Sequence[Asked], vectors: Vectors, verifier: Verifier, policy: Policy, seed: int) -> Tally:
    tally, clock = Tally(), _Clock()
    with tempfile.TemporaryDirectory() as directory:
        cache = _open(Path(directory), verifier, len(next(iter(vectors.values()))), clock)
        cache._cascade._chance = random.Random(seed).random  # the same draws in every run
        intent_of: dict[str, int] = {}
        for number, each in enumerate(asked):
            clock.now += 1
            entry = _entry(number, each, vectors, clock.now)
            known = cache.find(NAMESPACE, entry.exact_key, each.place, each.text)
            if known.exact:
                tally.exact += 1
                continue
            if known.reworded:
                tally.outcomes.append((True, intent_of[known.reworded.id] == each.intent))
                continue
            found = cache.search(Query(NAMESPACE, each.place, each.text, vectors[each.text]), policy)
            if found.entry:
                tally.outcomes.append((True, intent_of[found.entry.id] == each.intent))
                continue
            tally.outcomes.append((False, True))
            if found.decision.candidate:
                cache.learn(NAMESPACE, found.decision, intent_of[found.decision.candidate.id] == each.intent)
            cache.insert(entry)
            cache.apply()
            intent_of[entry.id] = each.intent
        cache.close()
    return tally


def _open(directory: Path, verifier: Verifier, dimension: int, clock: _Clock) -> SemanticCache:
    database = open_database(f"sqlite:///{directory}/cache.db")
    return SemanticCache(Parts.on(database, FaissIndex(dimension), verifier, "benchmark"), clock)


def _entry(number: int, asked: Asked, vectors: Vectors, now: float) -> Entry:
    key = hashlib.sha256(f"{asked.place}/{asked.text}".encode()).hexdigest()
    return Entry(
        id=f"{number:08}",
        namespace=NAMESPACE,
        exact_key=key,
        fingerprint=asked.place,
        model="m",
        text=asked.text,
        answer=b"{}",
        created_at=now,
        expires_at=now + 1e9,
        vector=vectors[asked.text],
    )


@dataclass
class _Kept:
    """The questions of one partition that were kept, one by one."""

    vectors: NDArray[np.float32]
    intents: list[int] = field(default_factory=list)
    texts: set[str] = field(default_factory=set)

    def add(self, asked: Asked, vector: NDArray[np.float32]) -> None:
        if len(self.intents) == len(self.vectors):
            self.vectors = np.concatenate([self.vectors, np.empty_like(self.vectors)])
        self.vectors[len(self.intents)] = vector
        self.intents.append(asked.intent)
        self.texts.add(asked.text)


def _static(asked: Sequence[Asked], vectors: Vectors, threshold: float) -> Tally:
    """The nearest kept question of the partition serves if its cosine reaches the threshold."""
    tally, width = Tally(), len(next(iter(vectors.values())))
    places: defaultdict[str, _Kept] = defaultdict(lambda: _Kept(np.empty((1, width), np.float32)))
    for each in asked:
        kept, vector = places[each.place], vectors[each.text]
        if each.text in kept.texts:
            tally.exact += 1
            continue
        similarities = kept.vectors[: len(kept.intents)] @ vector
        nearest = int(similarities.argmax()) if len(similarities) else 0
        if len(similarities) and similarities[nearest] >= threshold:
            tally.outcomes.append((True, kept.intents[nearest] == each.intent))
            continue
        tally.outcomes.append((False, True))
        kept.add(each, vector)
    return tally


def _best(system: str, static: Sequence[tuple[float, Tally]], error: float) -> Row:
    """Of the thresholds with at most this error, the one with the most hits. `delta` is that error."""
    rows = [tally.row(system, error) | {"threshold": threshold} for threshold, tally in static]
    within = [row for row in rows if row["request_error"] <= error] or rows[-1:]
    return max(within, key=lambda row: float(row["hit_rate"]))


if __name__ == "__main__":
    main()
