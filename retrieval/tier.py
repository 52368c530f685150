"""The whole tier in one process: what a deployment opens, calls by name, and closes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cache.embedders.base import Embedder
from retrieval.attachments import Attachments
from retrieval.config import RetrievalConfig
from retrieval.documents import Attachment, VectorStoreInfo
from retrieval.errors import RetrievalError
from retrieval.files import FileStore
from retrieval.ingest import Ingest
from retrieval.ingest_queue import IngestQueue
from retrieval.scopes import Caller, Scopes, namespace_of
from retrieval.service import RetrievalService
from retrieval.sources import IndexSource
from retrieval.store import DocumentStore

_WAKING = frozenset(("attach_file", "create_batch", "detach_file", "cancel_batch", "delete_file", "delete_store"))
"""Calls that leave something to be read, or to be deleted."""


class RetrievalTier:
    """Thread-safe. Calls block, and raise what the methods that they name raise."""

    def __init__(
        self,
        store: DocumentStore,
        embedder: Embedder,
        config: RetrievalConfig,
        directory: Path,
        source: IndexSource,
        clock: Callable[[], float],
        pause: Callable[[float], object] | None = None,
    ) -> None:
        """`directory`: where files are kept; `source`: where indexes are. Nothing is read into collections until `start`. Raises
        `ChunkSizeError`, `StorageError`."""
        scopes = Scopes(store)
        queue = IngestQueue(store.database, config.files.max_waiting)
        self.service = RetrievalService(store, embedder, config, scopes, source, clock)
        self.files = FileStore(store.database, directory, config.files, clock)
        self.attachments = Attachments(store, self.files, queue, scopes, config, embedder.max_tokens, clock)
        self.ingest = Ingest(store, self.files, queue, embedder, config.files, clock, pause)
        service, files, attachments = self.service, self.files, self.attachments
        methods: tuple[Callable[..., Any], ...] = (
            self.create_store,
            service.update_store,
            service.list_stores,
            service.get_store,
            service.delete_store,
            service.add_documents,
            service.delete_document,
            service.list_documents,
            service.get_document,
            attachments.attach_file,
            attachments.create_batch,
            attachments.list_attached,
            attachments.get_attached,
            attachments.update_attached,
            attachments.attached_text,
            attachments.get_batch,
            attachments.detach_file,
            attachments.cancel_batch,
        )
        of_namespaces: tuple[Callable[..., Any], ...] = (
            files.begin_upload,
            files.append_upload,
            files.drop_upload,
            files.finish_upload,
            files.list_files,
            files.get_file,
            files.read_file,
            attachments.delete_file,
        )
        self._calls = {method.__name__: method for method in methods}
        self._calls_of_namespaces = {method.__name__: method for method in of_namespaces}

    def call(self, method: str, caller: Caller, *args: Any) -> Any:
        """One of the tier's methods, by name; uploaded files are a namespace's own. Raises `LookupError` for another."""
        own = self._calls_of_namespaces.get(method)
        result = self._calls[method](caller, *args) if own is None else own(namespace_of(caller), *args)
        if method in _WAKING:
            self.ingest.wake()
        return result

    def create_store(
        self,
        caller: Caller,
        name: str,
        metadata: Mapping[str, str] | None = None,
        group: str | None = None,
        attachments: Sequence[Attachment] = (),
    ) -> VectorStoreInfo:
        """See `RetrievalService.create_store`; with files, which are read into it. On an error there is no collection."""
        if attachments:
            self.attachments.check(namespace_of(caller), attachments)
        info = self.service.create_store(caller, name, metadata, group)
        if not attachments:
            return info
        try:
            self.call("create_batch", caller, info.id, attachments)
        except RetrievalError:
            self.service.delete_store(caller, info.id)
            raise
        return self.service.get_store(caller, info.id)

    def start(self) -> None:
        self.service.start()
        self.ingest.start()

    def close(self) -> None:
        self.ingest.stop()
        self.service.close()
