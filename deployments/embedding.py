"""The embedding deployment: a sentence encoder, and what judges pairs of texts."""

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from cachetools import LRUCache
from ray import serve
from ray.serve.config import RequestRouterConfig

from cache.embedders.factory import load_embedder
from cache.entry import Vector, Vectors
from cache.errors import EmbedderError, VerifierError
from cache.verifiers.base import Pair
from cache.verifiers.factory import load_verifier
from deployments.batcher import Batcher
from deployments.channel.server import ChannelServer
from deployments.config import EmbeddingConfig
from deployments.direct import DirectApp, DirectCalls
from deployments.replicas import directory_of
from deployments.router import DirectoryRouter

NAME = "Embedding"
CALL_TIMEOUT_S = 60.0
VERIFY_TIMEOUT_S = 2.0
REMEMBERED = 4_096
"""Texts and pairs that are not computed anew: what people ask they ask often, also in words that no answer is kept under. About 10 MB."""
REMEMBERED_CHARS = 256
"""Longer texts are seldom asked again, and by default not judged (`cache.semantic.long_chars`)."""
MAX_WAITING = 1_000
DRAIN_LIMIT_S = 10.0
BATCH_TEXTS = 8
"""Texts in one call: more would make others wait for seconds."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Embedded:
    """One text's unit vector, shape (dimension,), and its length in the encoder's tokens."""

    vector: Vector
    tokens: int
    covered: bool = True
    """Whether the vector stands for the whole text (`Embedder.covers`)."""


class Described(NamedTuple):
    """What does not change of the encoder (`cache.embedders.base.Embedder`), and the verifier's name."""

    name: str
    dimension: int
    max_tokens: int
    verifier: str
    settles: frozenset[str] = frozenset()
    """See `cache.verifiers.base.Verifier.settles`."""


class EmbeddingCalls(Protocol):
    """The contract of `Embedding`. Raises `EmbedderError` and `VerifierError`."""

    async def embed_one(self, text: str, whose: str) -> Embedded:
        """Texts of callers that wait at the same time are embedded together. What was computed for the namespace `whose` is remembered, for
        that one alone: else the time would tell what others have asked. Empty: it is not remembered.
        """

    async def embed(self, texts: list[str]) -> list[Embedded]:
        """Texts of one caller."""

    async def count_tokens(self, texts: list[str]) -> list[int]: ...

    async def covers(self, texts: list[str]) -> list[bool]: ...

    async def verify(self, pairs: list[Pair]) -> list[float | None]:
        """See `cache.verifiers.base.Verifier.probabilities`. Pairs of callers that wait at the same time are judged together."""


class _Remembering(Generic[T, R]):
    """What a batcher has computed lately for items that are short enough to be asked for again, each for whom it was computed for."""

    def __init__(self, batcher: Batcher[T, R], length: Callable[[T], int]) -> None:
        """`length`: of an item, in characters."""
        self._batcher = batcher
        self._length = length
        self.known: LRUCache[tuple[str, T], R] = LRUCache(REMEMBERED)

    async def get(self, item: T, whose: str) -> R:
        """Raises what the work raises, and `asyncio.QueueFull`."""
        if (whose, item) in self.known:
            known: R = self.known[whose, item]
            return known
        if len(self._batcher) >= MAX_WAITING:
            raise asyncio.QueueFull
        found = await self._batcher.do(item)
        if whose and self._length(item) <= REMEMBERED_CHARS:
            self.known[whose, item] = found
        return found


def _longest(pair: Pair) -> int:
    return max(len(pair.question), len(pair.kept))


class Embedding(EmbeddingCalls):
    """The encoder, and the verifier of the semantic cache."""

    def __init__(self, config: EmbeddingConfig, verifier: str, host: str, secret: str) -> None:
        """`host`, `secret`: of its private channel."""
        self._embedder = load_embedder(config.source, config.threads, config.precision, gpu=config.num_gpus > 0)
        self._verifier = load_verifier(verifier, config.threads, self._embedder.name, config.precision)
        # One half of the cores for texts, the other for pairs.
        at_once = max(1, len(os.sched_getaffinity(0)) // (2 * config.threads))
        self._texts: _Remembering[str, Embedded] = _Remembering(Batcher(self._embed, config.max_batch_size, at_once), len)
        self._pairs: _Remembering[Pair, float | None] = _Remembering(Batcher(self._judge, config.max_batch_size, at_once), _longest)
        self._server = ChannelServer(DirectApp(EmbeddingCalls, self), host, secret.encode(), grace_s=0)

    def record_replica_metadata(self) -> dict[str, Any]:
        return {"url": self._server.url}

    async def check_health(self) -> None:
        """Serve awaits this before it sends the first request."""
        await self._server.start()

    async def embed_one(self, text: str, whose: str) -> Embedded:
        try:
            return await self._texts.get(text, whose)
        except asyncio.QueueFull:
            raise EmbedderError("too many texts wait") from None

    async def embed(self, texts: list[str]) -> list[Embedded]:
        return await asyncio.to_thread(self._embed, texts)

    def _embed(self, texts: Sequence[str]) -> list[Embedded]:
        vectors = self._embedder.embed(texts)
        described = zip(vectors, self._embedder.count_tokens(texts), self._embedder.covers(texts), strict=True)
        return [Embedded(vector, tokens, covered) for vector, tokens, covered in described]

    async def count_tokens(self, texts: list[str]) -> list[int]:
        return await asyncio.to_thread(self._embedder.count_tokens, texts)

    async def covers(self, texts: list[str]) -> list[bool]:
        return await asyncio.to_thread(self._embedder.covers, texts)

    async def verify(self, pairs: list[Pair]) -> list[float | None]:
        try:
            return await asyncio.gather(*(self._pairs.get(pair, pair.whose) for pair in pairs))
        except asyncio.QueueFull:
            raise VerifierError("too many pairs wait") from None

    def _judge(self, pairs: Sequence[Pair]) -> list[float | None]:
        return self._verifier.probabilities(pairs)

    def describe(self) -> Described:
        return Described(
            self._embedder.name, self._embedder.dimension, self._embedder.max_tokens, self._verifier.name, self._verifier.settles
        )

    async def __del__(self) -> None:
        """Serve awaits this when the replica is to stop. It does not see what came over the channel."""
        await self._server.drain(DRAIN_LIMIT_S)
        await self._server.stop()


class _FromThreads:
    """Calls of the deployment from worker threads, which they block."""

    def __init__(self, calls: DirectCalls, loop: asyncio.AbstractEventLoop) -> None:
        """`loop`: the one that `calls` belongs to."""
        self._calls = calls
        self._loop = loop

    def result(self, limit_s: float, name: str, *args: Any) -> Any:
        """Raises errors of many types: Ray does where a call goes through its handle."""
        calling = asyncio.run_coroutine_threadsafe(self._calls.call(name, *args), self._loop)
        try:
            return calling.result(limit_s)
        finally:
            calling.cancel()


class RemoteEmbedder:
    """An `Embedder` over the deployment, for library code in worker threads: calls block."""

    def __init__(self, calls: DirectCalls, loop: asyncio.AbstractEventLoop, described: Described) -> None:
        self._calls = _FromThreads(calls, loop)
        self.name, self.dimension, self.max_tokens = described.name, described.dimension, described.max_tokens

    def embed(self, texts: Sequence[str]) -> Vectors:
        parts = [texts[start : start + BATCH_TEXTS] for start in range(0, len(texts), BATCH_TEXTS)]
        embedded = [each.vector for part in parts for each in self._embedded(part)]
        return np.stack(embedded) if embedded else np.empty((0, self.dimension), np.float32)

    def _embedded(self, texts: Sequence[str]) -> list[Embedded]:
        """One text is most likely a question, and others may wait with theirs."""
        return [self._result("embed_one", texts[0], "")] if len(texts) == 1 else self._result("embed", list(texts))

    def covers(self, texts: Sequence[str]) -> list[bool]:
        covered: list[bool] = self._result("covers", list(texts))
        return covered

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        counts: list[int] = self._result("count_tokens", list(texts))
        return counts

    def _result(self, method: str, *args: str | list[str]) -> Any:
        try:
            return self._calls.result(CALL_TIMEOUT_S, method, *args)
        except Exception as error:
            raise EmbedderError("the embedding deployment did not answer") from error


class RemoteVerifier:
    """A `Verifier` over the deployment, for library code in worker threads: calls block."""

    def __init__(self, calls: DirectCalls, loop: asyncio.AbstractEventLoop, described: Described) -> None:
        self._calls = _FromThreads(calls, loop)
        self.name = described.verifier
        self.settles = described.settles

    def probabilities(self, pairs: Sequence[Pair]) -> list[float | None]:
        try:
            judged: list[float | None] = self._calls.result(VERIFY_TIMEOUT_S, "verify", list(pairs))
        except Exception as error:
            raise VerifierError("the verifier did not answer") from error
        return judged


def calls_of_embedding(handle: Any, secret: str) -> DirectCalls:
    """For the running event loop."""
    return DirectCalls(EmbeddingCalls, directory_of(NAME), handle, secret, CALL_TIMEOUT_S)


def embedding_deployment(config: EmbeddingConfig, verifier: str, host: str, secret: str) -> serve.Application:
    """`verifier`: as `cache.verifiers.factory.load_verifier` takes it; `host`, `secret`: of its private channel."""
    return serve.deployment(
        Embedding,
        name=NAME,
        num_replicas=config.replicas,
        ray_actor_options={"num_cpus": config.num_cpus, "num_gpus": config.num_gpus},
        request_router_config=RequestRouterConfig(request_router_class=DirectoryRouter),
        max_ongoing_requests=1000,
    ).bind(config, verifier, host, secret)
