"""The decision on a question: candidates, guards, verifier, error budget. Every doubt is a miss with a reason."""

import math
import random
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from enum import StrEnum

from cache.decision.account import HIGHEST_PRICE, Accounts
from cache.decision.belief import MAX_Z, log_odds
from cache.decision.beliefs import Beliefs
from cache.entry import Vector
from cache.guards.cascade import refusals
from cache.guards.normal import normal_key
from cache.guards.text import Question, parse
from cache.overlay import Overlay
from cache.policy import Policy
from cache.stores.base import Candidate, EntryStore
from cache.vectors.base import Neighbour, VectorIndex
from cache.verifiers.base import Pair, Verifier

LEARN_SHARE = 0.02
"""Of the answers that could be served: computed anew, lest what is always served is never checked."""
SURE = 2.0
"""Log-odds from which on a candidate is not compared with those behind it: 88 %."""
SHORT, DOUBTED, LONG = "short", "doubted", "long"
"""Kinds of scores, each learnt for itself. `DOUBTED`: the verifier settled what a guard objected to, and is right less often."""


class Reason(StrEnum):
    """How a look-up ended. All but `HIT` are misses."""

    HIT = "hit"
    OFF = "off"
    EMPTY = "empty"
    """Nothing was found in this namespace and fingerprint."""
    FAR = "far"
    """The closest question is not close enough to be looked at."""
    STALE = "stale"
    """What was close is gone, expired or invalidated."""
    DENIED = "denied"
    """Feedback forbids this answer to this question."""
    GUARD = "guard"
    """A guard found a difference; `Decision.guard` names it."""
    UNVERIFIED = "unverified"
    """The verifier could not judge the pair."""
    DOUBTFUL = "doubtful"
    """The verifier is not sure enough."""
    EXPLORE = "explore"
    """Good enough to learn from, not to be served this time."""
    SHADOW = "shadow"
    """It would have been a hit."""


@dataclass(frozen=True, slots=True)
class Query:
    """A question, and where an answer to it may be looked for."""

    namespace: str
    fingerprint: str
    text: str
    vector: Vector


@dataclass(slots=True)
class Decision:
    """What was decided, and all that led to it."""

    reason: Reason
    candidate: Candidate | None = None
    """The kept question that came closest to being served."""
    similarity: float | None = None
    """Of the candidate, or else of the closest one that was found: there may be closer ones that are not close enough."""
    guard: str | None = None
    kind: str = SHORT
    score: float | None = None
    """Log-odds of the verifier's probability."""
    error: float | None = None
    """What the probability that it is wrong is below, almost surely."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time of each stage."""

    @property
    def rank(self) -> tuple[bool, float]:
        """To compare candidates by: what may be served is before what may not, then the least error counts, or else the score."""
        if self.error is not None:
            return True, -self.error
        return self.reason is Reason.HIT, -math.inf if self.score is None else self.score

    @property
    def is_sure(self) -> bool:
        """What is behind it need not be looked at."""
        affordable = self.error is None or self.error <= HIGHEST_PRICE
        return self.reason is Reason.HIT and self.score is not None and self.score >= SURE and affordable

    @property
    def teaches(self) -> bool:
        """Whether there is something to learn from a fresh answer: not of what is below the floor, which is never served."""
        return self.candidate is not None and self.score is not None and self.reason is not Reason.DOUBTFUL


class Cascade:
    """One for a process. Thread-safe if its parts are. May raise `StoreError`, `VectorIndexError` and `VerifierError`: a miss too."""

    def __init__(
        self,
        store: EntryStore,
        index: VectorIndex,
        overlay: Overlay,
        verifier: Verifier,
        beliefs: Beliefs,
        clock: Callable[[], float],
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`clock` gives seconds since the epoch; `chance` a uniform random number in [0, 1)."""
        self._store = store
        self._index = index
        self._overlay = overlay
        self._verifier = verifier
        self._beliefs = beliefs
        self._clock = clock
        self._chance = chance
        self._accounts = Accounts()

    def decide(self, query: Query, policy: Policy) -> Decision:
        if policy.mode == "off":
            return Decision(Reason.OFF)
        if policy.mode != "static":
            self._accounts.earn(query.namespace, policy.budget)
        watch = _Watch()
        decision = self._decide(query, policy, watch)
        decision.seconds = watch.seconds
        return decision

    def _decide(self, query: Query, policy: Policy, watch: "_Watch") -> Decision:
        near = self._neighbours(query, policy)
        watch.lap("search")
        close = [each for each in near if each.similarity >= policy.min_similarity]
        if not close:
            return Decision(Reason.FAR if near else Reason.EMPTY, similarity=near[0].similarity if near else None)
        similarity = {each.id: each.similarity for each in close}
        found = self._store.candidates(
            query.namespace, query.fingerprint, list(similarity), normal_key(query.text, query.namespace), self._clock()
        )
        watch.lap("confirm")
        allowed = [each for each in found if not each.is_denied]
        if not allowed:
            return Decision(Reason.DENIED if found else Reason.STALE, similarity=close[0].similarity)
        decision = self._judged(query, allowed, similarity, policy, watch)
        if decision.reason is Reason.HIT:
            self._weigh(query.namespace, decision, policy)
        return decision

    def _neighbours(self, query: Query, policy: Policy) -> list[Neighbour]:
        """Of the index, and of what it does not show yet. One id may be in both; the store's answer counts either way."""
        place = (query.namespace, query.fingerprint, query.vector, policy.top_k)
        found = {each.id: each for each in (*self._index.search(*place, policy.min_similarity), *self._overlay.search(*place))}
        return sorted(found.values(), key=lambda each: -each.similarity)[: policy.top_k]

    def _judged(
        self, query: Query, candidates: Sequence[Candidate], similarity: dict[str, float], policy: Policy, watch: "_Watch"
    ) -> Decision:
        """The closest candidate that no guard refuses and that is sure; else, of those that the verifier judged, the best.

        One after the other, since most hits end at the first: what is behind it is neither parsed nor read.
        """
        question = parse(query.text, query.namespace)
        best: Decision | None = None
        refused: str | None = None
        verified = 0
        for each in candidates:
            is_long = max(len(query.text), len(each.text)) > policy.long_chars  # then the verifier is not asked
            refusal, doubted = _guarded(question, parse(each.text, query.namespace), frozenset() if is_long else self._verifier.settles)
            watch.lap("guards")
            if refusal is not None:
                refused = refused or refusal
                continue
            judged = self._judge(query, each, similarity[each.id], LONG if is_long else DOUBTED if doubted else SHORT, policy)
            watch.lap("verify")
            if judged.reason is Reason.HIT and policy.mode != "static":
                judged.error = self._error(query.namespace, judged)
                watch.lap("weigh")
            verified += 1
            if best is None or judged.rank > best.rank:
                best = judged
            if best.is_sure or verified == policy.max_verified:
                break
        return best or Decision(Reason.GUARD, candidates[0], similarity[candidates[0].id], refused)

    def _judge(self, query: Query, candidate: Candidate, similarity: float, kind: str, policy: Policy) -> Decision:
        """Whether the candidate is good enough to go on."""
        if kind == LONG:
            return _judge_long(candidate, similarity, policy)
        (probability,) = self._verifier.probabilities([Pair(query.text, candidate.text, similarity, query.namespace)])
        if probability is None:
            return Decision(Reason.UNVERIFIED, candidate, similarity, kind=kind)
        enough = policy.min_probability if policy.mode == "static" else policy.floor
        reason = Reason.HIT if probability >= enough else Reason.DOUBTFUL
        return Decision(reason, candidate, similarity, kind=kind, score=log_odds(probability))

    def _error(self, namespace: str, decision: Decision) -> float | None:
        """What the probability that the candidate is wrong is below, by all that was learnt of the tenant and of the entry."""
        if decision.candidate is None or decision.score is None:
            return None
        belief = self._beliefs.tenant(namespace, decision.kind)
        return belief.error(decision.score, self._beliefs.entry(namespace, decision.kind, decision.candidate.id))

    def _weigh(self, namespace: str, decision: Decision, policy: Policy) -> None:
        """What the error budget says to an answer that is good enough otherwise."""
        if decision.error is None:
            return
        if self._chance() < LEARN_SHARE or not self._accounts.pay(namespace, decision.error, policy.budget):
            decision.reason = Reason.EXPLORE
        elif policy.mode == "shadow":
            decision.reason = Reason.SHADOW


def _guarded(a: Question, b: Question, settled: Set[str]) -> tuple[str | None, bool]:
    """The guard that refuses, and whether one that the verifier settles does."""
    doubted = False
    for refusal in refusals(a, b):
        if refusal.guard not in settled:
            return refusal.guard, doubted
        doubted = True
    return None, doubted


def _judge_long(candidate: Candidate, similarity: float, policy: Policy) -> Decision:
    """Long texts: the cosine alone, stretched from `SURE` at the threshold to twice that at 1."""
    reason = Reason.HIT if similarity >= policy.long_similarity else Reason.DOUBTFUL
    above = (similarity - policy.long_similarity) / (1 - policy.long_similarity)
    return Decision(reason, candidate, similarity, kind=LONG, score=max(-MAX_Z, min(MAX_Z, SURE * (1 + above))))


class _Watch:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now
