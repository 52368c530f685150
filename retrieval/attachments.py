"""Files in collections: what is asked of them, and what has become of them."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, Select, and_, func, insert, select, update

from retrieval import rows
from retrieval.config import RetrievalConfig
from retrieval.documents import (
    MAX_BATCH,
    AttachedFile,
    Attachment,
    Attributes,
    BatchInfo,
    ChunkingStrategy,
    FileInfo,
    Page,
    Status,
    check_attributes,
    new_id,
)
from retrieval.errors import DocumentError, UnknownBatchError, UnknownFileError, UnknownStoreError
from retrieval.files import FileStore
from retrieval.ingest_queue import IngestQueue, give_up
from retrieval.revisions import StoreRow, raised, store_row
from retrieval.schema import batches, documents, revisions, stores
from retrieval.scopes import Caller, Scopes, namespace_of
from retrieval.store import DocumentStore

MIN_CHUNK_TOKENS = 16


class Attachments:
    """Thread-safe; every call may block on I/O and may raise `StorageError`, and `UnknownStoreError` for a collection that the caller
    may not use. What names a file or batch raises `UnknownFileError` or `UnknownBatchError`.
    """

    def __init__(
        self,
        store: DocumentStore,
        files: FileStore,
        queue: IngestQueue,
        scopes: Scopes,
        config: RetrievalConfig,
        max_tokens: int,
        clock: Callable[[], float],
    ) -> None:
        """`max_tokens`: what the encoder reads."""
        self._store = store
        self._database = store.database
        self._files = files
        self._queue = queue
        self._scopes = scopes
        self._cutting = ChunkingStrategy(config.chunk_tokens, config.chunk_overlap_tokens)
        self._max_tokens = max_tokens
        self._clock = clock

    def check(self, namespace: str, attachments: Sequence[Attachment]) -> dict[str, FileInfo]:
        """The files that are to be attached. Raises `DocumentError`, `UnknownFileError`."""
        if not 1 <= len(attachments) <= MAX_BATCH:
            raise DocumentError(f"{len(attachments)} files; allowed: 1 to {MAX_BATCH}", "file_ids")
        if len({each.file_id for each in attachments}) < len(attachments):
            raise DocumentError("a file is named twice", "file_ids")
        for each in attachments:
            check_attributes(each.attributes, "attributes")
            self._check_cutting(each.cutting)
        return self._files.get_all(namespace, [each.file_id for each in attachments])

    def _check_cutting(self, cutting: ChunkingStrategy | None) -> None:
        if cutting is None:
            return
        field = "chunking_strategy.static"
        if not MIN_CHUNK_TOKENS <= cutting.max_tokens <= self._max_tokens:
            allowed = f"{MIN_CHUNK_TOKENS} to {self._max_tokens}, what the encoder reads"
            name = f"{field}.max_chunk_size_tokens"
            raise DocumentError(f"{name} is {cutting.max_tokens}; allowed: {allowed}", name)
        if not 0 <= 2 * cutting.overlap_tokens <= cutting.max_tokens:
            allowed = f"0 to {cutting.max_tokens // 2}, half of max_chunk_size_tokens"
            name = f"{field}.chunk_overlap_tokens"
            raise DocumentError(f"{name} is {cutting.overlap_tokens}; allowed: {allowed}", name)

    def attach_file(self, caller: Caller, store_id: str, attachment: Attachment) -> AttachedFile:
        """A file that is there already is read anew, and takes its own place when that is done. Raises `DocumentError`, `BusyError`."""
        namespace = namespace_of(caller)
        infos = self.check(namespace, [attachment])
        scope = self._scopes.of(caller, store_id)
        with self._database.write() as connection:
            store = self._open(connection, scope, store_id)
            self._add(connection, store, namespace, infos, [attachment], None)
            return self._get(connection, store, attachment.file_id)

    def create_batch(self, caller: Caller, store_id: str, attachments: Sequence[Attachment]) -> BatchInfo:
        """All of the files, or on an error none. Raises `DocumentError`, `BusyError`."""
        namespace = namespace_of(caller)
        infos = self.check(namespace, attachments)
        scope, batch = self._scopes.of(caller, store_id), new_id("vsfb_", self._clock())
        with self._database.write() as connection:
            store = self._open(connection, scope, store_id)
            row = {"store": store.seq, "id": batch, "created_at": self._clock(), "cancelled": False}
            connection.execute(insert(batches), row)
            self._add(connection, store, namespace, infos, attachments, batch)
            return self._batch(connection, store, batch)

    def _open(self, connection: Connection, scope: str, store_id: str) -> StoreRow:
        store = store_row(connection, scope, store_id)
        self._store.require_embedder(store.embedder)
        return store

    def _add(
        self,
        connection: Connection,
        store: StoreRow,
        namespace: str,
        infos: dict[str, FileInfo],
        attachments: Sequence[Attachment],
        batch: str | None,
    ) -> None:
        self._queue.require_room(connection, namespace, len(attachments))
        for each in attachments:
            cutting = each.cutting or self._cutting
            self._queue.add(connection, store, namespace, infos[each.file_id], each, cutting, batch, self._clock())

    def list_attached(
        self, caller: Caller, store_id: str, page: Page, status: Status | None = None, batch: str | None = None
    ) -> list[AttachedFile]:
        """Of one status or batch only, or of all."""
        scope = self._scopes.of(caller, store_id)
        with self._database.read() as connection:
            store = store_row(connection, scope, store_id)
            query = _attached(store)
            if status is not None:
                query = query.where(documents.c.status == status)
            if batch is not None:
                self._batch(connection, store, batch)
                query = query.where(documents.c.batch == batch)
            return [_file(row) for row in connection.execute(rows.page_of(query, documents.c.id, page))]

    def get_attached(self, caller: Caller, store_id: str, file_id: str) -> AttachedFile:
        scope = self._scopes.of(caller, store_id)
        with self._database.read() as connection:
            return self._get(connection, store_row(connection, scope, store_id), file_id)

    def update_attached(self, caller: Caller, store_id: str, file_id: str, attributes: Attributes) -> AttachedFile:
        """What a search sees of the file is otherwise from now on. Raises `DocumentError`."""
        check_attributes(attributes, "attributes")
        scope = self._scopes.of(caller, store_id)
        with self._database.write() as connection:
            store = raised(connection, scope, store_id)
            self._get(connection, store, file_id)
            changed = {"attributes": dict(attributes), "version": store.version}
            this = rows.is_document(store.seq, file_id)
            pending = select(documents.c.pending).where(this, documents.c.pending.is_not(None)).scalar_subquery()
            connection.execute(update(documents).where(this).values(changed))
            connection.execute(update(revisions).where(revisions.c.seq == pending).values(attributes=dict(attributes)))
            return self._get(connection, store, file_id)

    def detach_file(self, caller: Caller, store_id: str, file_id: str) -> None:
        """Also while it is read. The file itself stays."""
        if not self._store.delete_document(self._scopes.of(caller, store_id), store_id, file_id, self._clock()):
            raise UnknownFileError("no file of this id in the collection")

    def attached_text(self, caller: Caller, store_id: str, file_id: str) -> str:
        """The text that a search sees. Raises `DocumentError` for a file that has none yet."""
        scope = self._scopes.of(caller, store_id)
        document = self._store.get_document(scope, store_id, file_id)
        if document is not None:
            return document.text
        self.get_attached(caller, store_id, file_id)
        raise DocumentError("the file has not been read", "file_id")

    def get_batch(self, caller: Caller, store_id: str, batch: str) -> BatchInfo:
        scope = self._scopes.of(caller, store_id)
        with self._database.read() as connection:
            return self._batch(connection, store_row(connection, scope, store_id), batch)

    def cancel_batch(self, caller: Caller, store_id: str, batch: str) -> BatchInfo:
        """Those of its files that are not read yet never will be."""
        scope = self._scopes.of(caller, store_id)
        with self._database.write() as connection:
            store = store_row(connection, scope, store_id)
            self._batch(connection, store, batch)
            of_batch = and_(documents.c.store == store.seq, documents.c.batch == batch, documents.c.pending.is_not(None))
            waiting: Sequence[Any] = connection.scalars(select(documents.c.pending).where(of_batch)).all()
            for pending in waiting:
                give_up(connection, pending, {"status": "cancelled"}, self._clock())
            cancelled = update(batches).where(batches.c.store == store.seq, batches.c.id == batch).values(cancelled=True)
            connection.execute(cancelled)
            return self._batch(connection, store, batch)

    def delete_file(self, namespace: str, file_id: str) -> None:
        """The uploaded file, and what collections have of it."""
        self._files.get_file(namespace, file_id)
        self._detach(namespace, file_id)  # first: who is interrupted can delete it again
        self._files.delete(namespace, file_id)
        self._detach(namespace, file_id)  # where it was added, and perhaps read, meanwhile

    def _detach(self, namespace: str, file_id: str) -> None:
        for scope, store_id in self._having(namespace, file_id):
            with suppress(UnknownStoreError):  # deleted meanwhile
                self._store.delete_document(scope, store_id, file_id, self._clock())

    def _having(self, namespace: str, file_id: str) -> list[tuple[str, str]]:
        query = select(stores.c.namespace, stores.c.id).join_from(documents, stores, stores.c.seq == documents.c.store)
        with self._database.read() as connection:
            found = connection.execute(query.where(documents.c.file_namespace == namespace, documents.c.id == file_id))
            return [(row.namespace, row.id) for row in found]

    def _get(self, connection: Connection, store: StoreRow, file_id: str) -> AttachedFile:
        row = connection.execute(_attached(store).where(documents.c.id == file_id)).first()
        if row is None:
            raise UnknownFileError("no file of this id in the collection")
        return _file(row)

    def _batch(self, connection: Connection, store: StoreRow, batch: str) -> BatchInfo:
        row = connection.execute(select(batches).where(batches.c.store == store.seq, batches.c.id == batch)).first()
        if row is None:
            raise UnknownBatchError("no batch of this id in the collection")
        query = select(documents.c.status, func.count()).where(documents.c.store == store.seq, documents.c.batch == batch)
        found: Sequence[rows.AnyRow] = connection.execute(query.group_by(documents.c.status)).all()
        counts: dict[Status, int] = {row[0]: row[1] for row in found}
        return BatchInfo(row.id, row.created_at, row.cancelled, counts)


def _attached(store: StoreRow) -> Select[*tuple[Any, ...]]:
    pending = (revisions.c.attributes.label("new_attributes"), revisions.c.embedded, revisions.c.chunks.label("to_embed"))
    tables = documents.outerjoin(revisions, revisions.c.seq == documents.c.pending)
    return select(documents, *pending).select_from(tables).where(documents.c.store == store.seq)


def _file(row: rows.AnyRow) -> AttachedFile:
    is_waiting = row.pending is not None
    return AttachedFile(
        id=row.id,
        name=row.name,
        created_at=row.created_at,
        status=row.status,
        attributes=row.new_attributes if is_waiting and row.new_attributes is not None else row.attributes,
        cutting=ChunkingStrategy(row.chunk_tokens, row.chunk_overlap_tokens),
        usage_bytes=row.usage,
        chunks_done=row.embedded if is_waiting else row.chunks,
        chunks_total=row.to_embed if is_waiting else row.chunks,
        error_code=row.error_code,
        error_message=row.error_message,
    )
