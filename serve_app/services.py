"""What the pipeline calls: contracts, and their implementations over Ray's handles."""

from dataclasses import dataclass
from typing import Any, Protocol

from ray.exceptions import RayTaskError

from cache.entry import Entry, Vector
from deployments.embedding import Embedded
from retrieval.documents import SearchHit, SearchResult


@dataclass(frozen=True, slots=True)
class SemanticHit:
    """A kept answer to an equivalent question; `similarity` is their cosine."""

    entry: Entry
    similarity: float


@dataclass(frozen=True, slots=True)
class SemanticMiss:
    """Why there is no hit (`cache.semantic` lists the reasons)."""

    reason: str


class CacheService(Protocol):
    """The shared cache. Any call may raise, or never return: the caller bounds it and takes failure for a miss."""

    async def find_exact(self, namespace: str, key: str) -> Entry | None: ...

    async def search(self, namespace: str, fingerprint: str, vector: Vector) -> SemanticHit | SemanticMiss: ...

    async def keep(self, entry: Entry) -> None: ...


class EmbeddingService(Protocol):
    """The sentence encoder. May raise."""

    async def embed_one(self, text: str) -> Embedded: ...

    async def embed(self, texts: list[str]) -> list[Embedded]: ...


class RetrievalService(Protocol):
    """Documents of a namespace. Raises the errors of `retrieval.errors`."""

    async def search(self, namespace: str, store_ids: list[str], query: str, top_k: int) -> list[SearchHit]: ...

    async def call(self, method: str, *args: Any) -> Any:
        """Any other method of `retrieval.service.RetrievalService`, by name."""


class RemoteCache:
    """The cache owner, through its handle."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def find_exact(self, namespace: str, key: str) -> Entry | None:
        found: Entry | None = await self._handle.find_exact.remote(namespace, key)
        return found

    async def search(self, namespace: str, fingerprint: str, vector: Vector) -> SemanticHit | SemanticMiss:
        found = await self._handle.search.remote(namespace, fingerprint, vector)
        return SemanticHit(*found) if isinstance(found, tuple) else SemanticMiss(found)

    async def keep(self, entry: Entry) -> None:
        await self._handle.keep.remote(entry)


class RemoteEmbedding:
    """The embedding deployment, through its handle."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def embed_one(self, text: str) -> Embedded:
        embedded: Embedded = await self._handle.embed_one.remote(text)
        return embedded

    async def embed(self, texts: list[str]) -> list[Embedded]:
        embedded: list[Embedded] = await self._handle.embed.remote(texts)
        return embedded


class RemoteRetrieval:
    """The retrieval deployment, through its handle."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def search(self, namespace: str, store_ids: list[str], query: str, top_k: int) -> list[SearchHit]:
        result: SearchResult = await self.call("search", namespace, store_ids, query, top_k)
        return result.hits

    async def call(self, method: str, *args: Any) -> Any:
        try:
            return await self._handle.call.remote(method, *args)
        except RayTaskError as error:  # its text has the stack of the other process
            raise error.cause from None
