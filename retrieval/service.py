"""The retrieval tier as one object: what a deployment holds, and calls from several threads."""

import secrets
from collections.abc import Callable, Mapping, Sequence

from cache.embedders.base import Embedder
from retrieval.chunking import split
from retrieval.config import RetrievalConfig
from retrieval.documents import (
    Chunk,
    Document,
    DocumentInfo,
    SearchHit,
    SearchResult,
    VectorStoreInfo,
    check_attributes,
    check_document,
    chunk_id,
)
from retrieval.errors import ChunkSizeError, DocumentError, QueryError
from retrieval.search import VectorSearch
from retrieval.store import DocumentStore

MAX_NAME_CHARS = 255
PAGE = 100


def random_store_id() -> str:
    return f"vs_{secrets.token_hex(12)}"


class RetrievalService:
    """Collections, documents and search in namespaces that do not see each other. Thread-safe; every call may block on I/O.

    Every call may raise `StorageError`; one that names a collection, `UnknownStoreError`, be it of another namespace or of
    none; one that encodes, `cache.errors.EmbedderError`.
    """

    def __init__(
        self,
        store: DocumentStore,
        embedder: Embedder,
        config: RetrievalConfig,
        clock: Callable[[], float],
        new_store_id: Callable[[], str] = random_store_id,
    ) -> None:
        """`clock` gives seconds since the epoch. Raises `ChunkSizeError` for chunks that the encoder would cut."""
        if config.chunk_tokens > embedder.max_tokens:
            raise ChunkSizeError(
                f"retrieval.chunk_tokens is {config.chunk_tokens}; allowed: at most {embedder.max_tokens}, for this encoder"
            )
        self._store = store
        self._embedder = embedder
        self._config = config
        self._clock = clock
        self._new_store_id = new_store_id
        self._search = VectorSearch(store, config.max_loaded_stores)

    def create_store(self, namespace: str, name: str, metadata: Mapping[str, str] | None = None) -> VectorStoreInfo:
        """Raises `DocumentError` for a name or metadata that cannot be kept."""
        if len(name) > MAX_NAME_CHARS or not name.isprintable():
            raise DocumentError(f"a collection's name is printable and has at most {MAX_NAME_CHARS} characters", "name")
        check_attributes(metadata or {}, "metadata")
        return self._store.create_store(namespace, self._new_store_id(), name, metadata or {}, self._clock())

    def list_stores(self, namespace: str, limit: int = PAGE, after: str = "") -> list[VectorStoreInfo]:
        """Ordered by id, from the first one behind `after`."""
        return self._store.list_stores(namespace, limit, after)

    def get_store(self, namespace: str, store_id: str) -> VectorStoreInfo:
        return self._store.get_store(namespace, store_id)

    def delete_store(self, namespace: str, store_id: str) -> None:
        self._store.delete_store(namespace, store_id)

    def add_documents(self, namespace: str, store_id: str, documents: Sequence[Document]) -> list[str]:
        """All of the documents or, on an error, none; a reader sees all of them or none. Returns their ids, in their order.

        Replaces documents of the same ids; of documents with one id the last counts. Raises `DocumentError`.
        """
        self._store.version(namespace, store_id)  # an unknown collection is refused before the work
        for document in documents:
            check_document(document, self._config.max_document_bytes)
        distinct = list({document.id: document for document in documents}.values())
        chunks = [chunk for document in distinct for chunk in self._chunks(document)]
        vectors = self._embedder.embed([chunk.text for chunk in chunks])
        if distinct:
            self._store.put_documents(namespace, store_id, distinct, chunks, vectors, self._clock())
        return [document.id for document in documents]

    def delete_document(self, namespace: str, store_id: str, document_id: str) -> bool:
        """False: there was no such document."""
        return self._store.delete_document(namespace, store_id, document_id)

    def list_documents(self, namespace: str, store_id: str, limit: int = PAGE, after: str = "") -> list[DocumentInfo]:
        """Ordered by id, from the first one behind `after`."""
        return self._store.list_documents(namespace, store_id, limit, after)

    def get_document(self, namespace: str, store_id: str, document_id: str) -> Document | None:
        return self._store.get_document(namespace, store_id, document_id)

    def search(self, namespace: str, store_ids: Sequence[str], query: str, top_k: int) -> SearchResult:
        """The `top_k` chunks of all these collections that are nearest to the query: best first, ties by chunk id.

        A chunk that several collections hold is one hit. Raises `QueryError` for a blank query or a `top_k` out of range.
        """
        if not 1 <= top_k <= self._config.max_top_k:
            raise QueryError(f"top_k is {top_k}; allowed: 1 to {self._config.max_top_k}", "top_k")
        if not query.strip():
            raise QueryError("the query has no text", "query")
        vector = self._embedder.embed([query])[0]
        found = {store_id: self._search.search(namespace, store_id, vector, top_k) for store_id in dict.fromkeys(store_ids)}
        hits = _merged([hit for store_hits, _ in found.values() for hit in store_hits])
        return SearchResult(hits[:top_k], {store_id: version for store_id, (_, version) in found.items()})

    def close(self) -> None:
        self._store.close()

    def _chunks(self, document: Document) -> list[Chunk]:
        config = self._config
        texts = split(document.text, self._embedder.count_tokens, config.chunk_tokens, config.chunk_overlap_tokens)
        return [Chunk(chunk_id(document.id, i), document.id, i, text, document.attributes) for i, text in enumerate(texts)]


def _merged(hits: Sequence[SearchHit]) -> list[SearchHit]:
    """Best first. Collections may hold other texts under one chunk id, so an equal id alone does not make two hits one."""
    distinct: dict[tuple[str, str], SearchHit] = {}
    for hit in sorted(hits, key=lambda hit: (-hit.score, hit.chunk.id)):
        distinct.setdefault((hit.chunk.id, hit.chunk.text), hit)
    return list(distinct.values())
