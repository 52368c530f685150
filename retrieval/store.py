"""Collections, their documents and chunks in a SQL database: SQLite by default. SQL is the truth; an index is built from it."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from cache.database import Database
from cache.entry import Vectors
from retrieval import reads, rows
from retrieval.documents import Chunk, Document, DocumentInfo, Page, VectorStoreInfo
from retrieval.errors import DocumentError, UnknownStoreError
from retrieval.migrate import open_database
from retrieval.reads import Changes, ChunkVectors, Inventory, State
from retrieval.revisions import StoreRow, end_documents, end_store, new_revision, publish, raised, store_row, sweep
from retrieval.schema import chunks, documents, revisions, stores


class DocumentStore:
    """Thread-safe; every call may block on I/O and may raise `StorageError`.

    Every call names a namespace and sees nothing outside of it: a collection of another namespace raises `UnknownStoreError`,
    like one that does not exist. What needs vectors raises `DocumentError` for a collection of another encoder. A change of what a
    search may find is one transaction, which also raises the collection's version.

    A reader that keeps an index of its own takes the `inventory` of a version and its `vectors_of`, and from then on the `changes` since
    the version that it has, with `revisions_of` or `slice_of` what it lacks.
    """

    def __init__(self, url: str, embedder: str) -> None:
        """`embedder` names the encoder of all vectors: those of a collection made with another are neither read nor added to."""
        self.embedder = embedder
        self.database: Database = open_database(url)

    def create_store(self, namespace: str, store_id: str, name: str, details: Mapping[str, str], now: float) -> VectorStoreInfo:
        row = {"namespace": namespace, "id": store_id, "name": name, "embedder": self.embedder, "horizon": 0}
        with self.database.write() as connection:
            connection.execute(insert(stores), {**row, "created_at": now, "version": 0, "details": dict(details)})
        return VectorStoreInfo(store_id, name, now, documents=0, chunks=0, version=0, metadata=dict(details))

    def update_store(self, namespace: str, store_id: str, name: str | None, details: Mapping[str, str] | None) -> VectorStoreInfo:
        """None: that stays as it is."""
        changes: dict[str, Any] = {} if name is None else {"name": name}
        changes |= {} if details is None else {"details": dict(details)}
        with self.database.write() as connection:
            store_row(connection, namespace, store_id)
            if changes:
                connection.execute(update(stores).where(rows.is_store(namespace, store_id)).values(changes))
        return self.get_store(namespace, store_id)

    def list_stores(self, namespaces: Sequence[str], page: Page) -> list[tuple[str, VectorStoreInfo]]:
        """Collections of these namespaces, each with its own."""
        query = rows.page_of(select(stores).where(stores.c.namespace.in_(namespaces)), stores.c.id, page)
        with self.database.read() as connection:
            found = connection.execute(query).all()
            sums = connection.execute(rows.document_sums([row.seq for row in found])).all()
        return [(row.namespace, rows.store_info(row, [each for each in sums if each.store == row.seq])) for row in found]

    def get_store(self, namespace: str, store_id: str) -> VectorStoreInfo:
        with self.database.read() as connection:
            row = connection.execute(select(stores).where(rows.is_store(namespace, store_id))).first()
            if row is None:
                raise UnknownStoreError("no collection of this id")
            return rows.store_info(row, connection.execute(rows.document_sums([row.seq])).all())

    def scope_of(self, namespaces: Sequence[str], store_id: str) -> str:
        """The first of these namespaces that has the collection. Raises `UnknownStoreError`."""
        with self.database.read() as connection:
            having = connection.scalars(select(stores.c.namespace).where(stores.c.namespace.in_(namespaces), stores.c.id == store_id)).all()
        for namespace in namespaces:
            if namespace in having:
                return namespace
        raise UnknownStoreError("no collection of this id")

    def delete_store(self, namespace: str, store_id: str) -> None:
        with self.database.write() as connection:
            end_store(connection, raised(connection, namespace, store_id))

    def put_documents(
        self, namespace: str, store_id: str, new: Sequence[Document], parts: Sequence[Chunk], vectors: Vectors, now: float
    ) -> int:
        """Adds the documents (distinct ids) with their chunks (at least one each) and the vector of each chunk.

        Documents of the same ids are replaced. Returns the new version.
        """
        places: dict[str, list[int]] = {document.id: [] for document in new}
        for place, part in enumerate(parts):
            places[part.document_id].append(place)
        with self.database.write() as connection:
            store = raised(connection, namespace, store_id)
            self.require_embedder(store.embedder)
            end_documents(connection, store, list(places), now)
            for document in new:
                own = [parts[place] for place in places[document.id]]
                own_vectors = vectors[places[document.id]]
                cutting = {"chunk_tokens": 0, "chunk_overlap_tokens": 0}
                row = {"store": store.seq, "created_at": now, "version": store.version, **cutting}
                connection.execute(insert(documents), {**row, **rows.document_row(document, own, own_vectors)})
                made = {"chunks": len(own), "embedded": len(own), "text": document.text}
                revision = new_revision(connection, store.seq, document.id, **made)
                new_rows = [rows.chunk_row(store.seq, revision, it.ordinal, it.text, v) for it, v in zip(own, own_vectors, strict=True)]
                connection.execute(insert(chunks), new_rows)
                publish(connection, store, document.id, revision, {}, now)
        return store.version

    def delete_document(self, namespace: str, store_id: str, document_id: str, now: float) -> bool:
        """Also a file that is being read. False: there was no such document, and nothing changed."""
        with self.database.write() as connection:
            store = store_row(connection, namespace, store_id)
            row = connection.execute(select(documents.c.revision).where(rows.is_document(store.seq, document_id))).first()
            if row is None:
                return False
            if row.revision is not None:  # else a search sees no difference
                store = raised(connection, namespace, store_id)
            end_documents(connection, store, [document_id], now)
        return True

    def list_documents(self, namespace: str, store_id: str, page: Page) -> list[DocumentInfo]:
        """Those that a search may find."""
        columns = [documents.c[name] for name in ("id", "created_at", "bytes", "chunks", "attributes")]
        with self.database.read() as connection:
            store = store_row(connection, namespace, store_id)
            query = select(*columns).where(documents.c.store == store.seq, documents.c.revision.is_not(None))
            return [DocumentInfo(*row) for row in connection.execute(rows.page_of(query, documents.c.id, page))]

    def get_document(self, namespace: str, store_id: str, document_id: str) -> Document | None:
        """None: there is none that a search may find."""
        query = select(documents.c.id, revisions.c.text, documents.c.attributes)
        query = query.join_from(documents, revisions, revisions.c.seq == documents.c.revision)
        with self.database.read() as connection:
            store = store_row(connection, namespace, store_id)
            row: rows.AnyRow | None = connection.execute(query.where(rows.is_document(store.seq, document_id))).first()
        return Document(*row) if row else None

    def version(self, namespace: str, store_id: str) -> int:
        with self.database.read() as connection:
            return self._readable(connection, namespace, store_id).version

    def state(self, namespace: str, store_id: str) -> State:
        with self.database.read() as connection:
            row = store_row(connection, namespace, store_id)
            return State(row.seq, row.version)

    def all_ids(self) -> list[tuple[str, str]]:
        """Of every collection: its namespace and its id."""
        with self.database.read() as connection:
            return [(row.namespace, row.id) for row in connection.execute(select(stores.c.namespace, stores.c.id))]

    def changes(self, namespace: str, store_id: str, since: int) -> Changes:
        """What a search sees otherwise than at the version `since`."""
        with reads.one_moment(self.database) as connection:
            return reads.changes(connection, self._readable(connection, namespace, store_id), since)

    def slice_of(self, namespace: str, store_id: str, revision: int, first: int, limit: int) -> ChunkVectors:
        """At most `limit` chunks of one revision, from the one of the ordinal `first` on."""
        with self.database.read() as connection:
            return reads.read_revision(connection, self._readable(connection, namespace, store_id).seq, revision, first, limit)

    def inventory(self, namespace: str, store_id: str) -> Inventory:
        with reads.one_moment(self.database) as connection:
            return reads.inventory(connection, self._readable(connection, namespace, store_id))

    def vectors_of(self, namespace: str, store_id: str, numbers: Sequence[int]) -> ChunkVectors:
        """Chunks by their numbers. Those that were deleted are missing; they are kept for a while after they have ended."""
        with self.database.read() as connection:
            return reads.vectors_of(connection, self._readable(connection, namespace, store_id).seq, numbers)

    def revisions_of(self, namespace: str, store_id: str, revisions: Sequence[int]) -> ChunkVectors:
        """All chunks of these revisions, in no order. Those that were deleted are missing."""
        with self.database.read() as connection:
            return reads.revisions_of(connection, self._readable(connection, namespace, store_id).seq, revisions)

    def chunks_of(self, namespace: str, store_id: str, numbers: Sequence[int]) -> dict[int, Chunk]:
        """Chunks by their numbers. Those that were deleted are missing; they are kept for a while after they have ended."""
        with self.database.read() as connection:
            return reads.chunks_of(connection, store_row(connection, namespace, store_id).seq, numbers)

    def sweep(self, now: float) -> bool:
        """Deletes some of what no search sees any more. False: there is nothing left that may be deleted yet."""
        return sweep(self.database, now)

    def close(self) -> None:
        """Releases connections. Calling it twice is harmless."""
        self.database.close()

    def _readable(self, connection: Connection, namespace: str, store_id: str) -> StoreRow:
        store = store_row(connection, namespace, store_id)
        self.require_embedder(store.embedder)
        return store

    def others(self) -> dict[str, int]:
        """Collections that were made with other encoders, by the encoders' names."""
        query = (
            select(stores.c.embedder, func.count().label("collections"))
            .where(stores.c.embedder != self.embedder)
            .group_by(stores.c.embedder)
        )
        with self.database.read() as connection:
            return {row.embedder: row.collections for row in connection.execute(query)}

    def require_embedder(self, name: str) -> None:
        """Raises `DocumentError` for the name of another encoder. It does not say the names, which may be paths of this host."""
        if name != self.embedder:
            message = "the collection was made with another encoder than the one that is configured: add its documents to a new one"
            raise DocumentError(message, "vector_store_id")
