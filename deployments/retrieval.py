"""The retrieval deployment: collections of documents and files in SQLite and on disk, searched with FAISS, read in the background."""

import asyncio
import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import serve

from cache.embedders.base import Embedder
from deployments.embedding import RemoteEmbedder, calls_of_embedding
from retrieval.config import RetrievalConfig
from retrieval.errors import BusyError, InputError, OversizeError, RetrievalError, UnknownError
from retrieval.scopes import Group
from retrieval.store import DocumentStore
from retrieval.tier import RetrievalTier

NAME = "Retrieval"
THREADS = 32
"""Of calls: those that add documents wait for the encoder for minutes."""

log = logging.getLogger("ray.serve")


@dataclass(frozen=True, slots=True)
class Refused:
    """What a call returns instead of raising an error that is the caller's to mend: Ray would log it as this deployment's failure."""

    error: RetrievalError


_REFUSALS = (BusyError, InputError, OversizeError, UnknownError)


class Retrieval:
    """Methods of `RetrievalTier`, off the event loop."""

    def __init__(self, config: RetrievalConfig, data_dir: Path, embedding: Any, secret: str, groups: Mapping[str, Group]) -> None:
        """`secret`: of the embedding deployment's private channel."""
        self._config = config
        self._data_dir = data_dir
        self._embedding = embedding
        self._secret = secret
        self._groups = groups
        self._tier: RetrievalTier | None = None
        self._lock = asyncio.Lock()
        self._threads = ThreadPoolExecutor(THREADS, "retrieval")
        self._opening: asyncio.Task[None] | None = None

    async def check_health(self) -> None:
        """Serve awaits this before it sends the first request. Files that an earlier process has not finished wait for no request."""
        if self._tier is None and (self._opening is None or self._opening.done()):
            self._opening = asyncio.ensure_future(self._open_early())

    async def _open_early(self) -> None:
        try:
            await self._opened()
        except Exception:  # the first call tries again, and says what is wrong
            log.warning("the documents were not opened at the start", exc_info=True)

    async def _opened(self) -> RetrievalTier:
        """Not by the constructor, because only the encoder knows its name and dimension and it starts beside this process."""
        async with self._lock:
            if self._tier is None:
                described = await self._embedding.describe.remote()
                calls = calls_of_embedding(self._embedding, self._secret)
                embedder = RemoteEmbedder(calls, asyncio.get_running_loop(), described)
                self._tier = await asyncio.to_thread(self._open, embedder)
        return self._tier

    def _open(self, embedder: Embedder) -> RetrievalTier:
        store = DocumentStore(f"sqlite:///{self._data_dir}/documents.db", embedder.name)
        try:
            tier = RetrievalTier(store, embedder, self._config, self._data_dir / "files", time.time, self._groups)
        except BaseException:
            store.close()
            raise
        tier.start()
        return tier

    async def open(self) -> None:
        """Returns when documents can be searched."""
        await self._opened()

    async def call(self, method: str, *args: Any) -> Any:
        """Any call of the tier, by name: its result, or `Refused`."""
        tier = await self._opened()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, tier.call, method, *args)
        except _REFUSALS as error:
            return Refused(error)

    async def close(self) -> None:
        """Files that are being read go on in the next process."""
        if self._opening is not None:
            await self._opening
        if self._tier is not None:
            await asyncio.to_thread(self._tier.close)
        self._threads.shutdown()

    async def __del__(self) -> None:
        """Serve awaits this when the replica is to stop."""
        await self.close()


def retrieval_deployment(
    config: RetrievalConfig, data_dir: Path, embedding: serve.Application, secret: str, groups: Mapping[str, Group]
) -> serve.Application:
    """`groups`: by name."""
    return serve.deployment(
        Retrieval,
        name=NAME,
        num_replicas=1,  # SQLite has one writer
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=100,
    ).bind(config, data_dir, embedding, secret, groups)
