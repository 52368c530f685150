"""Files on their way into collections, as rows: what is to be read, how far it is, and what has become of it.

The database is the queue, so what waits outlives the process, and work that is stored is not done again. Each step is a transaction that
first takes its revision: who was deleted, cancelled or given anew meanwhile finds it ended, and the slower of two processes finds it done.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, case, delete, func, insert, select, update

from cache.database import Database
from cache.entry import Vectors
from retrieval import rows
from retrieval.documents import Attachment, Attributes, ChunkingStrategy, FileInfo
from retrieval.errors import BusyError, SupersededError
from retrieval.revisions import StoreRow, end_revisions, new_revision, publish, raised, store_row
from retrieval.schema import chunks, documents, revisions, stores
from retrieval.sharing import has_room

WAITING = documents.c.pending > 0
"""Not "is not null": for that SQLite would read all documents."""


@dataclass(frozen=True, slots=True)
class Job:
    """A file that is to be read into a collection, and how far that is."""

    revision: int
    namespace: str
    store_id: str
    document_id: str
    file_namespace: str
    name: str
    embedder: str
    """Of the collection's vectors."""
    cutting: ChunkingStrategy
    text: str | None
    cut: str | None
    embedded: int


class IngestQueue:
    """Thread-safe; every call may block on I/O and may raise `StorageError`."""

    def __init__(self, database: Database, max_waiting: int) -> None:
        self._database = database
        self._max_waiting = max_waiting

    def add(
        self,
        connection: Connection,
        store: StoreRow,
        file_namespace: str,
        file: FileInfo,
        asked: Attachment,
        cutting: ChunkingStrategy,
        batch: str | None,
        now: float,
    ) -> None:
        """In a transaction. Once it is read the file takes the place of the document of its id; one that is being read begins anew."""
        attributes = dict(asked.attributes)
        pending = new_revision(connection, store.seq, file.id, attributes=attributes)
        values: dict[str, Any] = {
            "pending": pending,
            "status": "in_progress",
            "error_code": None,
            "error_message": None,
            "name": file.name,
            "chunk_tokens": cutting.max_tokens,
            "chunk_overlap_tokens": cutting.overlap_tokens,
            "file_namespace": file_namespace,
            "batch": batch,
        }
        old = connection.execute(select(documents.c.pending).where(rows.is_document(store.seq, file.id))).first()
        if old is None:
            empty = {"version": 0, "bytes": 0, "usage": 0, "chunks": 0}
            row = {"store": store.seq, "id": file.id, "created_at": now, "attributes": attributes, **empty, **values}
            connection.execute(insert(documents), row)
            return
        end_revisions(connection, [] if old.pending is None else [old.pending], store.version, now)
        connection.execute(update(documents).where(rows.is_document(store.seq, file.id)).values(values))

    def require_room(self, connection: Connection, namespace: str, more: int) -> None:
        """Raises `BusyError` if no more files of this namespace may wait."""
        own = func.count(case((documents.c.file_namespace == namespace, 1)))
        waiting = connection.execute(select(own, func.count()).where(WAITING)).one()
        if not has_room(*waiting, more, self._max_waiting):
            raise BusyError(f"yours of the {self._max_waiting} files that may wait to be read")

    def waiting(self) -> int:
        """Files that wait, or are being read."""
        with self._database.read() as connection:
            return int(connection.scalar(select(func.count()).select_from(documents).where(WAITING)) or 0)

    def next(self, running: Collection[int], served: Mapping[str, int]) -> Job | None:
        """The first that waits of the namespace that was `served` longest ago, so that nobody waits behind all of another's files.

        `running` are revisions that somebody is at, `served` when (a rising number) a namespace was last given its turn.
        """
        first = func.min(documents.c.pending).label("first")
        query = select(stores.c.namespace, first).join_from(documents, stores, stores.c.seq == documents.c.store)
        query = query.where(WAITING)
        if running:
            query = query.where(documents.c.pending.not_in(running))
        with self._database.read() as connection:
            waiting = connection.execute(query.group_by(stores.c.namespace)).all()
            if not waiting:
                return None
            chosen = min(waiting, key=lambda row: (served.get(row.namespace, -1), row.first))
            return _job(connection, chosen.first)

    def keep_text(self, job: Job, text: str) -> None:
        """Raises `SupersededError`, as everything below does."""
        with self._database.write() as connection:
            _take(connection, job, text=text)

    def begin_cut(self, job: Job, digest: str, count: int) -> int:
        """The text is cut into `count` chunks of that hash. Returns how many of them are stored already."""
        with self._database.write() as connection:
            if job.cut != digest:  # by another release, another way: what was stored of it is of no use
                connection.execute(delete(chunks).where(chunks.c.revision == job.revision))
                _take(connection, job, cut=digest, chunks=count, embedded=0)
                return 0
            _take(connection, job, cut=digest)
            return job.embedded

    def add_chunks(self, job: Job, first: int, texts: Sequence[str], vectors: Vectors) -> None:
        """Those of the ordinals from `first` on, of which as many were stored before."""
        with self._database.write() as connection:
            _take(connection, job, embedded=first + len(texts), was=first)
            store = store_row(connection, job.namespace, job.store_id).seq
            parts = enumerate(zip(texts, vectors, strict=True), first)
            connection.execute(insert(chunks), [rows.chunk_row(store, job.revision, at, text, vector) for at, (text, vector) in parts])

    def complete(self, job: Job, text: str, parts: Sequence[str], vector_bytes: int, now: float) -> None:
        """A search sees the file from now on, instead of what was there before."""
        with self._database.write() as connection:
            store = raised(connection, job.namespace, job.store_id)
            attributes = _take(connection, job)
            size = len(text.encode())
            usage = rows.usage_of(size, parts, vector_bytes)
            values = {"status": "completed", "attributes": attributes, "bytes": size, "usage": usage, "chunks": len(parts)}
            publish(connection, store, job.document_id, job.revision, values, now)

    def fail(self, job: Job, code: str, message: str, now: float) -> None:
        """What was there before stays."""
        with self._database.write() as connection:
            _take(connection, job)
            give_up(connection, job.revision, {"status": "failed", "error_code": code, "error_message": message[:255]}, now)


def give_up(connection: Connection, pending: int, values: Mapping[str, Any], now: float) -> None:
    """Ends a revision in the making. `values`: of its document's row."""
    end_revisions(connection, [pending], 0, now)
    connection.execute(update(documents).where(documents.c.pending == pending).values(pending=None, **values))


def _job(connection: Connection, revision: int) -> Job | None:
    columns = (documents.c.file_namespace, documents.c.name, documents.c.chunk_tokens, documents.c.chunk_overlap_tokens)
    tables = revisions.join(documents, documents.c.pending == revisions.c.seq).join(stores, stores.c.seq == revisions.c.store)
    query = select(revisions, stores.c.namespace, stores.c.id.label("store_id"), stores.c.embedder, *columns).select_from(tables)
    row = connection.execute(query.where(revisions.c.seq == revision)).first()
    if row is None:
        return None
    cutting = ChunkingStrategy(row.chunk_tokens, row.chunk_overlap_tokens)
    place = (row.namespace, row.store_id, row.document_id, row.file_namespace, row.name, row.embedder)
    return Job(row.seq, *place, cutting, row.text, row.cut, row.embedded)


def _take(connection: Connection, job: Job, was: int | None = None, **values: Any) -> Attributes:
    """Locks and changes a revision in the making that is still wanted; `was`: how many of its chunks must be stored."""
    wanted = update(revisions).where(revisions.c.seq == job.revision, revisions.c.version.is_(None), revisions.c.ended.is_(None))
    if was is not None:
        wanted = wanted.where(revisions.c.embedded == was)
    if not connection.execute(wanted.values({"swept": False, **values})).rowcount:
        raise SupersededError("it is no longer wanted")
    return connection.scalar(select(revisions.c.attributes).where(revisions.c.seq == job.revision)) or {}
