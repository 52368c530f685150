"""Changes of revisions, inside a transaction: how a document comes to be seen by a search, and how it ends.

A revision is made beside the one that is searched, and takes its place in one step, which also raises the collection's version. What has
ended is deleted later, bit by bit (`sweep`), so that no change takes longer the more there is.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, false, insert, or_, select, true, update

from cache.database import Database
from retrieval.errors import UnknownStoreError
from retrieval.rows import MAX_IDS, is_document, is_store, parts_of
from retrieval.schema import batches, chunks, documents, revisions, stores

READERS_S = 60.0
"""How long the chunks of a revision that has ended are kept, for who has found one and still wants its text."""
KNOWN_S = 3600.0
"""How long it is known that a revision has ended."""


class StoreRow(NamedTuple):
    """What a change or a read needs to know of a collection."""

    seq: int
    version: int
    embedder: str
    horizon: int


_STORE = select(stores.c.seq, stores.c.version, stores.c.embedder, stores.c.horizon).where(
    stores.c.namespace == bindparam("namespace"), stores.c.id == bindparam("id")
)
"""Each search asks it: made anew each time, it would take longer than SQLite does."""


def store_row(connection: Connection, namespace: str, store_id: str) -> StoreRow:
    """Raises `UnknownStoreError`."""
    row = connection.execute(_STORE, {"namespace": namespace, "id": store_id}).first()
    if row is None:
        raise UnknownStoreError("no collection of this id")
    return StoreRow(*row)


def raised(connection: Connection, namespace: str, store_id: str) -> StoreRow:
    """First statement of a change: it takes the collection's lock, so the version that is read back is this change's own."""
    connection.execute(update(stores).where(is_store(namespace, store_id)).values(version=stores.c.version + 1))
    return store_row(connection, namespace, store_id)


def new_revision(connection: Connection, store: int, document_id: str, **values: Any) -> int:
    row = {"store": store, "document_id": document_id, "swept": False, "embedded": 0, **values}
    key: Any = connection.execute(insert(revisions).values(row)).inserted_primary_key
    seq: int = key[0]
    return seq


def end_documents(connection: Connection, store: StoreRow, ids: Sequence[str], now: float) -> int:
    """Deletes documents, with what is visible of them and what is in the making. Returns how many a search could see."""
    seen = 0
    for part in parts_of(ids):
        these = and_(documents.c.store == store.seq, documents.c.id.in_(part))
        rows = connection.execute(select(documents.c.revision, documents.c.pending).where(these)).all()
        end_revisions(connection, [seq for row in rows for seq in row if seq is not None], store.version, now)
        connection.execute(delete(documents).where(these))
        seen += sum(1 for row in rows if row.revision is not None)
    return seen


def end_revisions(connection: Connection, numbers: Sequence[int], version: int, now: float) -> None:
    for part in parts_of(numbers):
        these = revisions.c.seq.in_(part)
        connection.execute(update(revisions).where(these).values(ended=version, ended_at=now))


def end_store(connection: Connection, store: StoreRow) -> None:
    """Nobody is to learn later what has ended: it was long ago."""
    connection.execute(update(revisions).where(revisions.c.store == store.seq).values(ended=store.version, ended_at=0.0))
    for table in (documents, batches):
        connection.execute(delete(table).where(table.c.store == store.seq))
    connection.execute(delete(stores).where(stores.c.seq == store.seq))


def publish(connection: Connection, store: StoreRow, document_id: str, revision: int, values: dict[str, Any], now: float) -> None:
    """A search sees this revision from now on, and no longer the one before. `values`: of the document's row."""
    old = connection.scalar(select(documents.c.revision).where(is_document(store.seq, document_id)))
    end_revisions(connection, [] if old is None else [old], store.version, now)
    connection.execute(update(revisions).where(revisions.c.seq == revision).values(version=store.version))
    new = {"revision": revision, "pending": None, "version": store.version, **values}
    connection.execute(update(documents).where(is_document(store.seq, document_id)).values(new))


def sweep(database: Database, now: float) -> bool:
    """Deletes some of what has ended. False: nothing is left to be deleted yet."""
    is_due = or_(revisions.c.version.is_(None), revisions.c.ended_at < now - READERS_S)
    query = select(revisions.c.seq).where(revisions.c.swept == false(), revisions.c.ended_at >= 0, is_due).limit(1)
    with database.read() as connection:
        ended = connection.scalar(query)
    if ended is None:
        return _forget(database, now)
    with database.write() as connection:
        rows = connection.scalars(select(chunks.c.seq).where(chunks.c.revision == ended).limit(MAX_IDS)).all()
        connection.execute(delete(chunks).where(chunks.c.seq.in_(rows)))
        if len(rows) < MAX_IDS:
            connection.execute(update(revisions).where(revisions.c.seq == ended).values(swept=True, text=None))
    return True


def _forget(database: Database, now: float) -> bool:
    """Deletes rows of revisions that ended long ago, and notes up to which version that is."""
    is_old: ColumnElement[bool] = and_(revisions.c.swept == true(), revisions.c.ended_at < now - KNOWN_S)
    query = select(revisions.c.seq, revisions.c.store, revisions.c.version, revisions.c.ended).where(is_old)
    with database.read() as connection:
        if connection.execute(query.limit(1)).first() is None:
            return False
    with database.write() as connection:
        rows = connection.execute(query.order_by(revisions.c.ended_at).limit(MAX_IDS)).all()
        for row in rows:
            if row.version is not None:
                is_behind = and_(stores.c.seq == row.store, stores.c.horizon < row.ended)
                connection.execute(update(stores).where(is_behind).values(horizon=row.ended))
        connection.execute(delete(revisions).where(revisions.c.seq.in_([row.seq for row in rows])))
    return True
