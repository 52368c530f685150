"""The embedding deployment: a sentence encoder whose calls are gathered into batches."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from ray import serve

from cache.embedders.factory import load_embedder
from cache.entry import Vector, Vectors
from cache.errors import EmbedderError, VerifierError
from cache.verifiers.base import Pair
from cache.verifiers.factory import load_verifier
from deployments.config import EmbeddingConfig

NAME = "Embedding"
CALL_TIMEOUT_S = 60.0
VERIFY_TIMEOUT_S = 2.0
BATCH_TEXTS = 8
"""Texts in one call: more would make others wait for seconds."""


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


class Embedding:
    """Answers single texts; Serve's batching runs those that wait together through the encoder at once.

    The verifier of the semantic cache lives here too: it shares PyTorch, and on a GPU the device, with the encoder.
    """

    def __init__(self, config: EmbeddingConfig, verifier: str) -> None:
        self._embedder = load_embedder(config.source, config.threads)
        self._verifier = load_verifier(verifier, config.threads, self._embedder.name)
        self.embed_one.set_max_batch_size(config.max_batch_size)
        self.embed_one.set_batch_wait_timeout_s(config.batch_wait_s)

    @serve.batch  # type: ignore[untyped-decorator]  # Ray is not typed here
    async def embed_one(self, texts: list[str]) -> list[Embedded | EmbedderError]:
        """Texts of several callers at once. One that cannot be embedded is an error for its own caller only."""
        try:
            return list(await self.embed(texts))
        except EmbedderError as error:
            if len(texts) == 1:
                return [error]
        return [result for text in texts for result in await self._embed_alone(text)]

    async def _embed_alone(self, text: str) -> list[Embedded | EmbedderError]:
        try:
            return list(await self.embed([text]))
        except EmbedderError as error:
            return [error]

    async def embed(self, texts: Sequence[str]) -> list[Embedded]:
        """Texts of one caller; off the event loop, which others wait on."""
        return await asyncio.to_thread(self._embed, texts)

    def _embed(self, texts: Sequence[str]) -> list[Embedded]:
        vectors = self._embedder.embed(texts)
        described = zip(vectors, self._embedder.count_tokens(texts), self._embedder.covers(texts), strict=True)
        return [Embedded(vector, tokens, covered) for vector, tokens, covered in described]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self._embedder.count_tokens(texts)

    def covers(self, texts: Sequence[str]) -> list[bool]:
        return self._embedder.covers(texts)

    async def verify(self, pairs: Sequence[Pair]) -> list[float | None]:
        """See `cache.verifiers.base.Verifier.probabilities`."""
        return await asyncio.to_thread(self._verifier.probabilities, pairs)

    def describe(self) -> Described:
        return Described(
            self._embedder.name, self._embedder.dimension, self._embedder.max_tokens, self._verifier.name, self._verifier.settles
        )


class RemoteEmbedder:
    """An `Embedder` over the deployment's handle, for library code in worker threads: calls block."""

    def __init__(self, handle: Any, described: Described) -> None:
        self._handle = handle
        self.name, self.dimension, self.max_tokens = described.name, described.dimension, described.max_tokens

    def embed(self, texts: Sequence[str]) -> Vectors:
        parts = [texts[start : start + BATCH_TEXTS] for start in range(0, len(texts), BATCH_TEXTS)]
        embedded = [each.vector for part in parts for each in self._result("embed", part)]
        return np.stack(embedded) if embedded else np.empty((0, self.dimension), np.float32)

    def covers(self, texts: Sequence[str]) -> list[bool]:
        covered: list[bool] = self._result("covers", texts)
        return covered

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        counts: list[int] = self._result("count_tokens", texts)
        return counts

    def _result(self, method: str, texts: Sequence[str]) -> Any:
        try:
            return getattr(self._handle, method).remote(list(texts)).result(timeout_s=CALL_TIMEOUT_S)
        except Exception as error:  # Ray raises errors of many types here
            raise EmbedderError("the embedding deployment did not answer") from error


class RemoteVerifier:
    """A `Verifier` over the deployment's handle, for library code in worker threads: calls block."""

    def __init__(self, handle: Any, described: Described) -> None:
        self._handle = handle
        self.name = described.verifier
        self.settles = described.settles

    def probabilities(self, pairs: Sequence[Pair]) -> list[float | None]:
        try:
            judged: list[float | None] = self._handle.verify.remote(list(pairs)).result(timeout_s=VERIFY_TIMEOUT_S)
        except Exception as error:  # Ray raises errors of many types here
            raise VerifierError("the verifier did not answer") from error
        return judged


def embedding_deployment(config: EmbeddingConfig, verifier: str) -> serve.Application:
    """`verifier`: as `cache.verifiers.factory.load_verifier` takes it."""
    return serve.deployment(
        Embedding,
        name=NAME,
        num_replicas=config.replicas,
        ray_actor_options={"num_cpus": config.num_cpus, "num_gpus": config.num_gpus},
        max_ongoing_requests=1000,
    ).bind(config, verifier)
