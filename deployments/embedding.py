"""The embedding deployment: a sentence encoder whose calls are gathered into batches."""

from collections.abc import Sequence
from dataclasses import dataclass

from ray import serve

from cache.embedders import load_embedder
from cache.entry import Vector
from deployments.config import EmbeddingConfig

NAME = "Embedding"


@dataclass(frozen=True, slots=True)
class Embedded:
    """One text's unit vector, shape (dimension,), and its length in the encoder's tokens."""

    vector: Vector
    tokens: int


class Embedding:
    """Answers single texts; Serve's batching runs those that wait together through the encoder at once."""

    def __init__(self, config: EmbeddingConfig) -> None:
        self._embedder = load_embedder(config.source)
        self.embed_one.set_max_batch_size(config.max_batch_size)
        self.embed_one.set_batch_wait_timeout_s(config.batch_wait_s)

    @serve.batch
    async def embed_one(self, texts: list[str]) -> list[Embedded]:
        return self._embed(texts)

    async def embed(self, texts: Sequence[str]) -> list[Embedded]:
        """Many texts of one caller: a batch already."""
        return self._embed(texts)

    def _embed(self, texts: Sequence[str]) -> list[Embedded]:
        vectors = self._embedder.embed(texts)
        tokens = self._embedder.count_tokens(texts)
        return [Embedded(vector, count) for vector, count in zip(vectors, tokens, strict=True)]

    def dimension(self) -> int:
        return self._embedder.dimension

    def check_health(self) -> None:
        """The encoder lives in this process: if it answers, it is well."""


def embedding_deployment(config: EmbeddingConfig) -> serve.Application:
    return serve.deployment(
        Embedding,
        name=NAME,
        num_replicas=config.replicas,
        ray_actor_options={"num_cpus": config.num_cpus, "num_gpus": config.num_gpus},
        max_ongoing_requests=1000,
    ).bind(config)
