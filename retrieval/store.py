"""Collections, their documents and chunks in a SQL database: SQLite by default. SQL is the truth; an index is built from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from cache.database import Database
from cache.entry import Vectors
from retrieval import rows
from retrieval.documents import Chunk, Document, DocumentInfo, VectorStoreInfo
from retrieval.errors import StorageError, UnknownStoreError
from retrieval.schema import chunks, documents, metadata, stores

DELETE_BATCH = 500


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All chunks of a collection at one version, ordered by document id and ordinal.

    `vectors` has shape (len(chunks), dimension), and (0, 0) without chunks.
    """

    version: int
    chunks: list[Chunk]
    vectors: Vectors


class DocumentStore:
    """Thread-safe; every call may block on I/O and may raise `StorageError`.

    Every call names a namespace and sees nothing outside of it: a collection of another namespace raises `UnknownStoreError`,
    like one that does not exist. A change is one transaction, which also raises the collection's version.
    """

    def __init__(self, url: str, embedder: str) -> None:
        """`embedder` names the encoder of all vectors: those of a collection made with another are neither read nor added to."""
        self._embedder = embedder
        # Full synchronous, SQLite's default, stays on: an accepted document must not be lost.
        self._database = Database(url, StorageError)
        with self._database.write() as connection:
            metadata.create_all(connection)

    def create_store(self, namespace: str, store_id: str, name: str, details: Mapping[str, str], now: float) -> VectorStoreInfo:
        row = {"namespace": namespace, "id": store_id, "name": name, "embedder": self._embedder}
        with self._database.write() as connection:
            connection.execute(insert(stores), {**row, "created_at": now, "version": 0, "details": dict(details)})
        return VectorStoreInfo(store_id, name, now, documents=0, chunks=0, version=0, metadata=dict(details))

    def list_stores(self, namespace: str, limit: int, after: str) -> list[VectorStoreInfo]:
        """Ordered by id, from the first one behind `after`."""
        query = rows.store_infos().where(stores.c.namespace == namespace, stores.c.id > after)
        with self._database.read() as connection:
            return [rows.store_info(row) for row in connection.execute(query.order_by(stores.c.id).limit(limit))]

    def get_store(self, namespace: str, store_id: str) -> VectorStoreInfo:
        query = rows.store_infos().where(rows.is_store(namespace, store_id))
        with self._database.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise UnknownStoreError("no collection of this id")
        return rows.store_info(row)

    def delete_store(self, namespace: str, store_id: str) -> None:
        with self._database.write() as connection:
            if not connection.execute(delete(stores).where(rows.is_store(namespace, store_id))).rowcount:
                raise UnknownStoreError("no collection of this id")
            connection.execute(delete(chunks).where(rows.chunks_of(namespace, store_id)))
            connection.execute(delete(documents).where(rows.documents_of(namespace, store_id)))

    def put_documents(
        self, namespace: str, store_id: str, new: Sequence[Document], parts: Sequence[Chunk], vectors: Vectors, now: float
    ) -> int:
        """Adds the documents (distinct ids) with their chunks (at least one each) and the vector of each chunk.

        Documents of the same ids are replaced. Returns the new version.
        """
        key = {"namespace": namespace, "store_id": store_id}
        counts = dict.fromkeys((document.id for document in new), 0)
        for part in parts:
            counts[part.document_id] += 1
        with self._database.write() as connection:
            version = self._raise_version(connection, namespace, store_id)
            self._check_embedder(connection, namespace, store_id)
            _delete_documents(connection, namespace, store_id, list(counts))
            connection.execute(insert(documents), [{**key, **rows.document_row(it, counts[it.id], now)} for it in new])
            connection.execute(insert(chunks), [{**key, **rows.chunk_row(*pair)} for pair in zip(parts, vectors, strict=True)])
        return version

    def delete_document(self, namespace: str, store_id: str, document_id: str) -> bool:
        """False: there was no such document, and nothing changed."""
        with self._database.write() as connection:
            self._raise_version(connection, namespace, store_id)
            found = _delete_documents(connection, namespace, store_id, [document_id]) > 0
            if not found:
                connection.rollback()
        return found

    def list_documents(self, namespace: str, store_id: str, limit: int, after: str) -> list[DocumentInfo]:
        """Ordered by id, from the first one behind `after`."""
        columns = [documents.c[name] for name in ("id", "created_at", "bytes", "chunks", "attributes")]
        query = select(*columns).where(rows.documents_of(namespace, store_id), documents.c.id > after)
        with self._database.read() as connection:
            _version(connection, namespace, store_id)
            return [DocumentInfo(*row) for row in connection.execute(query.order_by(documents.c.id).limit(limit))]

    def get_document(self, namespace: str, store_id: str, document_id: str) -> Document | None:
        query = select(documents.c.id, documents.c.text, documents.c.attributes)
        with self._database.read() as connection:
            _version(connection, namespace, store_id)
            row = connection.execute(query.where(rows.documents_of(namespace, store_id), documents.c.id == document_id)).first()
        return Document(*row) if row else None

    def version(self, namespace: str, store_id: str) -> int:
        with self._database.read() as connection:
            return _version(connection, namespace, store_id)

    def load(self, namespace: str, store_id: str) -> Snapshot:
        with self._database.read() as connection:
            found = connection.execute(rows.whole_store(namespace, store_id)).all()
        if not found:
            raise UnknownStoreError("no collection of this id")
        self._require_embedder(found[0].embedder)
        parts = [row for row in found if row.ordinal is not None]
        return Snapshot(found[0].version, [rows.chunk(row) for row in parts], rows.vectors(parts))

    def close(self) -> None:
        """Releases connections. Calling it twice is harmless."""
        self._database.close()

    def _raise_version(self, connection: Connection, namespace: str, store_id: str) -> int:
        """First statement of a change: it takes the collection's lock, so the version that is read back is this change's own."""
        connection.execute(update(stores).where(rows.is_store(namespace, store_id)).values(version=stores.c.version + 1))
        return _version(connection, namespace, store_id)

    def _check_embedder(self, connection: Connection, namespace: str, store_id: str) -> None:
        self._require_embedder(connection.scalar(select(stores.c.embedder).where(rows.is_store(namespace, store_id))))

    def _require_embedder(self, name: str | None) -> None:
        if name != self._embedder:
            raise StorageError(f"the collection was made with the encoder {name}, not {self._embedder}: add its documents to a new one")


def _version(connection: Connection, namespace: str, store_id: str) -> int:
    version = connection.scalar(select(stores.c.version).where(rows.is_store(namespace, store_id)))
    if version is None:
        raise UnknownStoreError("no collection of this id")
    return version


def _delete_documents(connection: Connection, namespace: str, store_id: str, ids: Sequence[str]) -> int:
    """How many there were."""
    deleted = 0
    for start in range(0, len(ids), DELETE_BATCH):
        batch = ids[start : start + DELETE_BATCH]
        connection.execute(delete(chunks).where(rows.chunks_of(namespace, store_id), chunks.c.document_id.in_(batch)))
        of_batch = delete(documents).where(rows.documents_of(namespace, store_id), documents.c.id.in_(batch))
        deleted += connection.execute(of_batch).rowcount
    return deleted
