"""The retrieval deployment: collections of documents in SQLite, searched with FAISS."""

import asyncio
import time
from pathlib import Path
from typing import Any

from ray import serve

from deployments.embedding import RemoteEmbedder, calls_of_embedding
from retrieval.config import RetrievalConfig
from retrieval.service import RetrievalService
from retrieval.store import DocumentStore

NAME = "Retrieval"


class Retrieval:
    """Methods of `RetrievalService`, off the event loop."""

    def __init__(self, config: RetrievalConfig, data_dir: Path, embedding: Any, secret: str) -> None:
        """`secret`: of the embedding deployment's private channel."""
        self._config = config
        self._url = f"sqlite:///{data_dir}/documents.db"
        self._embedding = embedding
        self._secret = secret
        self._service: RetrievalService | None = None
        self._lock = asyncio.Lock()

    async def _opened(self) -> RetrievalService:
        """Opened at the first call, because only the encoder knows its name and dimension and it starts beside this process."""
        async with self._lock:
            if self._service is None:
                described = await self._embedding.describe.remote()
                calls = calls_of_embedding(self._embedding, self._secret)
                embedder = RemoteEmbedder(calls, asyncio.get_running_loop(), described)
                self._service = await asyncio.to_thread(self._open, embedder)
        return self._service

    def _open(self, embedder: RemoteEmbedder) -> RetrievalService:
        return RetrievalService(DocumentStore(self._url, embedder.name), embedder, self._config, time.time)

    async def open(self) -> None:
        """Returns when documents can be searched."""
        await self._opened()

    async def call(self, method: str, *args: Any) -> Any:
        """Any public method of the service, by name."""
        return await asyncio.to_thread(getattr(await self._opened(), method), *args)


def retrieval_deployment(config: RetrievalConfig, data_dir: Path, embedding: serve.Application, secret: str) -> serve.Application:
    return serve.deployment(
        Retrieval,
        name=NAME,
        num_replicas=1,  # SQLite has one writer
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=100,
    ).bind(config, data_dir, embedding, secret)
