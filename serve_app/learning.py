"""Learns from answers that were computed anew, off the reply's path, which kept ones would have been right."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

from cache.cascade import Decision
from serve_app.background import Background
from serve_app.metrics import Metrics

LEARN_TIMEOUT_S = 30.0
AUDIT_TIMEOUT_S = 120.0

Compute = Callable[[], Awaitable[bytes | None]]
"""Computes an answer anew, and gives it as the cache would keep it; None: it could not be kept."""


class LearningService(Protocol):
    async def learn(self, namespace: str, decision: Decision, answer: bytes, served: bool) -> bool | None:
        """Compares a fresh answer with the one of the decision's candidate; see `cache.judge.AnswerJudge.same`."""


class Learner:
    """One for each ingress replica; belongs to its event loop. `chance`: a uniform random number in [0, 1)."""

    def __init__(self, cache: LearningService, metrics: Metrics, chance: Callable[[], float] = random.random) -> None:
        self._cache = cache
        self._metrics = metrics
        self._chance = chance
        self._background = Background("learn", metrics)

    def missed(self, namespace: str, decision: Decision | None, answer: bytes) -> None:
        """An answer was computed although there was a candidate: would that one have been right?"""
        if decision is not None and decision.teaches:
            self._background.start(lambda: self._learn(namespace, decision, answer, served=False))

    def hit(self, namespace: str, decision: Decision, share: float, compute: Compute) -> None:
        """A kept answer was served: such a share of them is computed anew, to measure how many were wrong."""
        if decision.score is not None and self._chance() < share:
            self._background.start(lambda: self._audit(namespace, decision, compute))

    async def _audit(self, namespace: str, decision: Decision, compute: Compute) -> None:
        async with asyncio.timeout(AUDIT_TIMEOUT_S):
            answer = await compute()
        if answer is not None:
            await self._learn(namespace, decision, answer, served=True)

    async def _learn(self, namespace: str, decision: Decision, answer: bytes, *, served: bool) -> None:
        async with asyncio.timeout(LEARN_TIMEOUT_S):
            correct = await self._cache.learn(namespace, decision, answer, served)
        label = "unclear" if correct is None else "right" if correct else "wrong"
        self._metrics.operation("audit" if served else "learn", label)

    async def drain(self) -> None:
        """Returns when everything that was begun has ended."""
        await self._background.drain()

    async def stop(self) -> None:
        await self._background.stop()
