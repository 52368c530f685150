"""Requests with retrieved documents, generated: which documents, in which order, how long, when.

Few documents serve most requests: their popularity is Zipf's law with the exponent that gives the hottest 3 % of them 60 % of all accesses.
Documents belong to subjects. A request is about one document, its topic, and also retrieves some of its `NEIGHBOURS`, of the same
subject; the more popular subjects change if the hot set drifts.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

HOT_SHARE, HOT_ACCESSES = 0.03, 0.6
NEIGHBOURS = 8
_SUBJECT = 50
"""Documents of a subject, about."""
_DRIFT_SHARE = 0.3
"""Of the hot subjects, that give place to others when the hot set drifts."""
_LONGEST = 4000
_TOKEN_BITS = 12
_QUESTIONS = 1 << 30
"""Questions' tokens are from here on; documents' are below, and differ between documents."""


@dataclass(frozen=True, slots=True)
class RagRequest:
    """A question and what was retrieved for it, best first."""

    number: int
    at_s: float
    topic: int
    documents: tuple[int, ...]
    scores: tuple[float, ...]
    """Cosine similarities, falling."""
    question_tokens: int
    answer_tokens: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """How requests come."""

    count: int
    k: int
    """Documents of a request, at most `NEIGHBOURS` + 1."""
    requests_per_s: float = 1.0
    """Of a Poisson process."""
    order_noise: float = 0.5
    """Chance that the question's wording shuffles the ranks."""
    drift_every: int = 0
    """Requests until the hot set drifts; 0: never."""
    question_median: int = 60
    answer_median: int = 150
    """Lengths are log-normal, in tokens."""


@dataclass(slots=True)
class Workload:
    """Documents of one collection. The same seed gives the same documents and the same requests."""

    count: int = 20_000
    """At least 1000."""
    median_tokens: int = 700
    seed: int = 0
    documents: NDArray[np.int64] = field(init=False)
    """Their lengths in tokens."""
    _neighbours: NDArray[np.int64] = field(init=False)
    _weights: NDArray[np.float64] = field(init=False)
    _by_rank: NDArray[np.int64] = field(init=False)
    """Documents from the hottest to the coldest."""

    def __post_init__(self) -> None:
        if self.count < 1000:
            raise ValueError("count must be at least 1000: there are no 3 % of fewer documents")
        chance = np.random.default_rng((self.seed, 0))
        self.documents = _lengths(chance, self.median_tokens, self.count, _LONGEST)
        self._weights = zipf(self.count)
        self._by_rank = chance.permutation(self.count)
        self._neighbours = np.empty((self.count, NEIGHBOURS), np.int64)
        for members in self._subjects():
            for document in members:
                self._neighbours[document] = chance.choice(members[members != document], NEIGHBOURS, replace=False)

    def requests(self, traffic: Traffic) -> Iterator[RagRequest]:
        """Raises `ValueError` for more documents than a topic and its neighbours are."""
        if not 1 <= traffic.k <= NEIGHBOURS + 1:
            raise ValueError(f"k must be 1 to {NEIGHBOURS + 1}")
        chance = np.random.default_rng((self.seed, 1))
        ranks = chance.choice(self.count, traffic.count, p=self._weights)
        times = np.cumsum(chance.exponential(1 / traffic.requests_per_s, traffic.count))
        questions = _lengths(chance, traffic.question_median, traffic.count, 1024)
        answers = _lengths(chance, traffic.answer_median, traffic.count, 1024)
        by_rank = self._by_rank.copy()
        for number in range(traffic.count):
            if traffic.drift_every and number and number % traffic.drift_every == 0:
                self._drift(chance, by_rank)
            topic = int(by_rank[ranks[number]])
            documents, scores = self._retrieve(chance, topic, traffic)
            yield RagRequest(number, float(times[number]), topic, documents, scores, int(questions[number]), int(answers[number]))

    def tokens(self, document: int) -> array[int]:
        """A document's text; no two documents have a token in common."""
        start = document << _TOKEN_BITS
        return array("I", range(start, start + int(self.documents[document])))

    def prompt(self, request: RagRequest, order: Sequence[int] | None = None) -> array[int]:
        """The documents, in this order instead of the retrieved one if it is given, and the question."""
        tokens = array("I")
        for document in request.documents if order is None else order:
            tokens.extend(self.tokens(document))
        question = np.random.default_rng((self.seed, 2, request.number)).integers(0, _QUESTIONS, request.question_tokens, np.uint32)
        tokens.frombytes((question + np.uint32(_QUESTIONS)).tobytes())
        return tokens

    def _retrieve(self, chance: np.random.Generator, topic: int, traffic: Traffic) -> tuple[tuple[int, ...], tuple[float, ...]]:
        nearest = np.sort(chance.choice(NEIGHBOURS, traffic.k - 1, replace=False))
        found = np.concatenate(([topic], self._neighbours[topic][nearest]))
        if chance.random() < traffic.order_noise:
            found = chance.permutation(found)
        scores = chance.uniform(0.6, 0.8) - np.cumsum(chance.exponential(0.02, traffic.k))
        return tuple(found.tolist()), tuple(scores.tolist())

    def _subjects(self) -> list[NDArray[np.int64]]:
        """Subjects of documents that are about as popular, from the hottest on: each band of ranks is dealt out to some."""
        hot = round(HOT_SHARE * self.count)
        bands = np.split(self._by_rank, range(hot, self.count - hot + 1, hot))
        each = max(1, hot // _SUBJECT)
        return [band[place::each] for band in bands for place in range(each)]

    def _drift(self, chance: np.random.Generator, by_rank: NDArray[np.int64]) -> None:
        """Hot subjects exchange their popularity with cold ones, document by document."""
        hot = round(HOT_SHARE * self.count)
        each = max(1, hot // _SUBJECT)
        for place in chance.choice(each, max(1, round(_DRIFT_SHARE * each)), replace=False):
            warm = np.arange(place, hot, each)
            cold = hot * chance.integers(1, self.count // hot) + warm
            by_rank[warm], by_rank[cold] = by_rank[cold], by_rank[warm]


def zipf(count: int) -> NDArray[np.float64]:
    """Shares of accesses by rank, for the exponent that gives the hottest 3 % their 60 %."""
    low, high = 0.0, 2.0
    for _ in range(40):
        exponent = (low + high) / 2
        powers = np.arange(1.0, count + 1) ** -exponent
        weights: NDArray[np.float64] = np.asarray(powers / powers.sum(), np.float64)
        if weights[: round(HOT_SHARE * count)].sum() < HOT_ACCESSES:
            low = exponent
        else:
            high = exponent
    return weights


def _lengths(chance: np.random.Generator, median: int, count: int, most: int) -> NDArray[np.int64]:
    drawn = chance.lognormal(np.log(median), 0.62, count)
    return np.clip(drawn, 1, most).astype(np.int64)
