"""Documents and search as one object: what a deployment holds, and calls from several threads."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from cache.embedders.base import Embedder
from retrieval.chunking import split
from retrieval.config import RetrievalConfig
from retrieval.documents import (
    MAX_QUERIES,
    Begun,
    Chunk,
    Document,
    DocumentInfo,
    Page,
    SearchRequest,
    SearchResult,
    VectorStoreInfo,
    check_attributes,
    check_document,
    check_name,
    new_id,
)
from retrieval.errors import ChunkSizeError, QueryError, StorageError
from retrieval.filters import parse_filter
from retrieval.result_cache import Counts
from retrieval.scopes import Caller, Scopes, namespace_of
from retrieval.search import CollectionCache
from retrieval.searcher import Searcher
from retrieval.sources import IndexSource
from retrieval.store import DocumentStore
from retrieval.texts import Texts
from retrieval.view import Asked

T = TypeVar("T")

BATCH_CHUNKS = 16
"""Encoded together, in about 2 s: then it is asked whether they are still wanted."""
MAX_QUERY_CHARS_PER_TOKEN = 16
"""Of a query, for each token that the encoder reads. What is behind them says nothing, but an encoder would take its tokens apart."""


class RetrievalService:
    """Collections, documents and search in namespaces that do not see each other. Thread-safe; every call may block on I/O.

    A call says who calls, and reaches the collections of that namespace and of those groups. Every call may raise
    `StorageError`; one that names a collection, `UnknownStoreError`, be it of another namespace or of none; one that encodes,
    `cache.errors.EmbedderError`; one that needs a collection's vectors, `DocumentError` if they are another encoder's.
    """

    def __init__(
        self,
        store: DocumentStore,
        embedder: Embedder,
        config: RetrievalConfig,
        scopes: Scopes,
        source: IndexSource,
        clock: Callable[[], float],
        new_store_id: Callable[[], str] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` gives seconds since the epoch, `monotonic` any that never go back. Raises `ChunkSizeError` for chunks that the encoder
        would cut.
        """
        if config.chunk_tokens > embedder.max_tokens:
            raise ChunkSizeError(
                f"retrieval.chunk_tokens is {config.chunk_tokens}; allowed: at most {embedder.max_tokens}, for this encoder"
            )
        self._store = store
        self._embedder = embedder
        self._config = config
        self._clock = clock
        self._new_store_id = new_store_id or (lambda: new_id("vs_", clock()))
        self._scopes = scopes
        self._indexes = CollectionCache(store, source, config.max_loaded_stores)
        texts = Texts(store, config.max_text_bytes)
        self._searcher = Searcher(self._indexes, texts, self._scopes, embedder, config, monotonic)

    def create_store(
        self, caller: Caller, name: str, metadata: Mapping[str, str] | None = None, group: str | None = None
    ) -> VectorStoreInfo:
        """In the caller's namespace, or in a group's. Raises `DocumentError`, also for a group that the caller is not in."""
        check_name(name, "name")
        check_attributes(metadata or {}, "metadata")
        scope = namespace_of(caller) if group is None else self._scopes.of_group(caller, group)
        info = self._store.create_store(scope, self._new_store_id(), name, metadata or {}, self._clock())
        return self._named(info, caller, scope)

    def update_store(
        self, caller: Caller, store_id: str, name: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> VectorStoreInfo:
        """None: that stays as it is. Raises `DocumentError`."""
        check_name(name or "", "name")
        check_attributes(metadata or {}, "metadata")
        scope = self._scopes.of(caller, store_id)
        return self._named(self._store.update_store(scope, store_id, name, metadata), caller, scope)

    def list_stores(self, caller: Caller, page: Page | None = None) -> list[VectorStoreInfo]:
        """The caller's own, and those of its groups."""
        found = self._store.list_stores(self._scopes.all_of(caller), page or Page())
        return [self._named(info, caller, scope) for scope, info in found]

    def get_store(self, caller: Caller, store_id: str) -> VectorStoreInfo:
        scope = self._scopes.of(caller, store_id)
        return self._named(self._store.get_store(scope, store_id), caller, scope)

    def delete_store(self, caller: Caller, store_id: str) -> None:
        scope = self._scopes.of(caller, store_id)
        self._store.delete_store(scope, store_id)
        self._indexes.forget(scope, store_id)

    def add_documents(
        self, caller: Caller, store_id: str, documents: Sequence[Document], is_wanted: Callable[[], bool] = lambda: True
    ) -> list[str]:
        """All of the documents or, on an error, none; a reader sees all of them or none. Returns their ids, in their order.

        Replaces documents of the same ids; of documents with one id the last counts. `is_wanted` is asked now and then; what is not is
        given up. Raises `DocumentError`, and `StorageError` then.
        """
        scope = self._scopes.of(caller, store_id)
        self._store.version(scope, store_id)  # an unknown collection, or another encoder's, is refused before the work
        for at, document in enumerate(documents):
            check_document(document, self._config.max_document_bytes, f"documents[{at}]")
        distinct = list({document.id: document for document in documents}.values())
        chunks = [chunk for document in _while(is_wanted, distinct) for chunk in self._chunks(document)]
        texts = [chunk.text for chunk in chunks]
        firsts = _while(is_wanted, range(0, len(texts), BATCH_CHUNKS))
        encoded = [self._embedder.embed(texts[first : first + BATCH_CHUNKS]) for first in firsts]
        if distinct:
            vectors = np.concatenate(encoded)
            self._store.put_documents(scope, store_id, distinct, chunks, vectors, self._clock())
        return [document.id for document in documents]

    def delete_document(self, caller: Caller, store_id: str, document_id: str) -> bool:
        """False: there was no such document."""
        return self._store.delete_document(self._scopes.of(caller, store_id), store_id, document_id, self._clock())

    def list_documents(self, caller: Caller, store_id: str, page: Page | None = None) -> list[DocumentInfo]:
        return self._store.list_documents(self._scopes.of(caller, store_id), store_id, page or Page())

    def get_document(self, caller: Caller, store_id: str, document_id: str) -> Document | None:
        return self._store.get_document(self._scopes.of(caller, store_id), store_id, document_id)

    def search(self, caller: Caller, request: SearchRequest) -> SearchResult:
        """Best first, ties by chunk id. Of several queries the one that a chunk is nearest to counts.

        A chunk that several collections hold is one hit. Raises `QueryError` for a blank query, a `top_k` out of range, or filters that say
        nothing.
        """
        return self._searcher.search(caller, request.store_ids, self._asked(request))

    def begin_search(self, caller: Caller, request: SearchRequest) -> Begun:
        """As `search`, which takes no longer than this and `end_search` together; but this returns as soon as there is a first result."""
        return self._searcher.begin(caller, request.store_ids, self._asked(request))

    def end_search(self, namespace: str, ticket: str) -> SearchResult:
        """The final result of a search that this namespace has begun less than `retrieval.tickets.TICKET_S` ago, once.

        Raises `UnknownTicketError`.
        """
        return self._searcher.end(namespace, ticket)

    @property
    def result_counts(self) -> Counts:
        """What has become of searches in the result cache."""
        return self._searcher.counts

    def _asked(self, request: SearchRequest) -> Asked:
        if not 1 <= request.top_k <= self._config.max_top_k:
            raise QueryError(f"top_k is {request.top_k}; allowed: 1 to {self._config.max_top_k}", "top_k")
        if not 1 <= len(request.queries) <= MAX_QUERIES or not all(each.strip() for each in request.queries):
            raise QueryError(f"a search has 1 to {MAX_QUERIES} queries, each with text", "query")
        filters = None if request.filters is None else parse_filter(request.filters, "filters")
        longest = MAX_QUERY_CHARS_PER_TOKEN * self._embedder.max_tokens
        queries = [each if len(each) <= longest else each.strip()[:longest] for each in request.queries]
        return Asked(queries, request.top_k, filters, request.score_threshold)

    def start(self) -> None:
        """What makes searches faster begins in the background."""
        self._indexes.start()

    def close(self) -> None:
        self._searcher.close()
        self._indexes.close()
        self._store.close()

    def _named(self, info: VectorStoreInfo, caller: Caller, scope: str) -> VectorStoreInfo:
        group = self._scopes.group_name(caller, scope)
        return replace(info, group=group) if group else info

    def _chunks(self, document: Document) -> list[Chunk]:
        config = self._config
        texts = split(document.text, self._embedder.count_tokens, config.chunk_tokens, config.chunk_overlap_tokens)
        return [Chunk(document.id, i, text, document.attributes) for i, text in enumerate(texts)]


def _while(is_wanted: Callable[[], bool], items: Iterable[T]) -> Iterator[T]:
    for each in items:
        if not is_wanted():
            raise StorageError("the documents were not added: nobody waits for them, or the process is to end")
        yield each
