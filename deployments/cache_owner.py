"""The owner of the embedded stores: SQLite and FAISS live in one process, and every ingress asks it."""

import asyncio
import dataclasses
import logging
import time
from pathlib import Path
from typing import Any

from ray import serve

from cache.config import CacheConfig
from cache.entry import Entry, Vector
from cache.keys import fingerprint
from cache.semantic import Match, SemanticCache
from cache.stores.sql import open_store
from cache.vectors.faiss_index import FaissIndex

NAME = "CacheOwner"

log = logging.getLogger("ray.serve")


class CacheOwner:
    """Calls of `SemanticCache`, off the event loop. Times are this machine's."""

    def __init__(self, config: CacheConfig, data_dir: Path, embedding: Any) -> None:
        self._config = config
        self._url = config.database_url.get_secret_value() if config.database_url else f"sqlite:///{data_dir}/cache.db"
        self._embedding = embedding
        self._cache: SemanticCache | None = None
        self._encoder = ""
        self._lock = asyncio.Lock()

    async def _opened(self) -> SemanticCache:
        """Opened at the first call, because only the encoder knows the dimension and it starts beside this process."""
        async with self._lock:
            if self._cache is None:
                described = await self._embedding.describe.remote()
                self._encoder = described.name
                self._cache = await asyncio.to_thread(self._open, described.dimension)
        return self._cache

    def _open(self, dimension: int) -> SemanticCache:
        store, index = open_store(self._url), FaissIndex(dimension)
        cache = SemanticCache(store, index, time.time, self._config.semantic, self._config.max_entries)
        cache.evict()  # a process that ends before its writes make eviction due would leave what has expired for ever
        log.info("semantic cache opened", extra={"entries": store.count(), "vectors": cache.rebuild()})
        return cache

    async def open(self) -> None:
        """Returns when the cache can be used."""
        await self._opened()

    async def find_exact(self, namespace: str, key: str) -> Entry | None:
        return await asyncio.to_thread((await self._opened()).find_exact, namespace, key)

    async def search(self, namespace: str, partition: str, vector: Vector) -> tuple[Entry, float] | str:
        """The entry and its similarity, or the reason of the miss."""
        cache = await self._opened()
        found = await asyncio.to_thread(cache.search, namespace, self._of_encoder(partition), vector)
        return (found.entry, found.similarity) if isinstance(found, Match) else str(found.reason)

    async def keep(self, entry: Entry) -> None:
        cache = await self._opened()
        await asyncio.to_thread(cache.insert, dataclasses.replace(entry, fingerprint=self._of_encoder(entry.fingerprint)))

    def _of_encoder(self, partition: str) -> str:
        """Vectors of two encoders, or of two revisions of one, must never be compared: each has partitions of its own."""
        return fingerprint([self._encoder, partition])


def cache_deployment(config: CacheConfig, data_dir: Path, embedding: serve.Application) -> serve.Application:
    return serve.deployment(
        CacheOwner,
        name=NAME,
        num_replicas=1,  # SQLite and FAISS have one writer
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=1000,
    ).bind(config, data_dir, embedding)
