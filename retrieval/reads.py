"""What a reader gets of a collection: what a search sees of it, vectors and texts by their numbers, and what has changed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, select

from cache.database import Database
from cache.entry import Vectors
from retrieval import rows
from retrieval.documents import Attributes, Chunk
from retrieval.revisions import StoreRow
from retrieval.schema import chunks, documents, revisions

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ChunkVectors:
    """Chunks without their texts: their numbers, rising, the revision that each belongs to, and their vectors, shape (n, dimension)."""

    numbers: Numbers
    revisions: Numbers
    vectors: Vectors


@dataclass(frozen=True, slots=True)
class SeenDocument:
    """A document as a search sees it. Its revision's chunks never change: another text is another revision."""

    id: str
    revision: int
    chunks: int
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Changes:
    """What leads from one version of a collection to `version`: documents that are new or otherwise, and revisions that have ended.

    `gone` is None if that has been forgotten: the collection is to be read anew. It may name revisions that were never seen.
    """

    store: int
    """The collection's number, as in `State`."""
    version: int
    documents: list[SeenDocument]
    gone: list[int] | None


class State(NamedTuple):
    """Which collection this is, and its version: a number is never given to a second one, an id may be."""

    store: int
    version: int


@dataclass(frozen=True, slots=True)
class Inventory:
    """All that a search sees at one moment, without vectors and texts: the chunks' numbers, rising, and the revision of each."""

    state: State
    numbers: Numbers
    revisions: Numbers
    documents: list[SeenDocument]


_TEXTS = (
    select(chunks.c.seq, revisions.c.document_id, documents.c.name, documents.c.attributes, chunks.c.ordinal, chunks.c.text)
    .select_from(
        chunks.join(revisions, revisions.c.seq == chunks.c.revision).outerjoin(
            documents, and_(documents.c.store == chunks.c.store, documents.c.id == revisions.c.document_id)
        )
    )
    .where(chunks.c.store == bindparam("store"), chunks.c.seq.in_(bindparam("numbers", expanding=True)))
)
_VECTORS = select(chunks.c.seq, chunks.c.revision, chunks.c.embedding)


@contextmanager
def one_moment(database: Database) -> Iterator[Connection]:
    """Statements that all see the database as it is at the first of them."""
    with database.read() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")  # the driver would not for reading
        else:
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection


def read_revision(connection: Connection, store: int, revision: int, first: int, limit: int) -> ChunkVectors:
    query = _VECTORS.where(chunks.c.store == store, chunks.c.revision == revision, chunks.c.ordinal >= first)
    return _slice(connection.execute(query.order_by(chunks.c.ordinal).limit(limit)).all())


def inventory(connection: Connection, store: StoreRow) -> Inventory:
    query = select(chunks.c.seq, chunks.c.revision).join_from(chunks, revisions, revisions.c.seq == chunks.c.revision)
    found = connection.execute(query.where(rows.VISIBLE, chunks.c.store == store.seq).order_by(chunks.c.seq))
    pairs = np.fromiter((number for row in found for number in row), np.int64).reshape(-1, 2)
    seen = _seen(connection, documents.c.store == store.seq)
    return Inventory(State(store.seq, store.version), pairs[:, 0].copy(), pairs[:, 1].copy(), seen)


def vectors_of(connection: Connection, store: int, numbers: Sequence[int]) -> ChunkVectors:
    query = _VECTORS.where(chunks.c.store == store).order_by(chunks.c.seq)
    return _slice(_among(connection, query, chunks.c.seq, numbers))


def revisions_of(connection: Connection, store: int, numbers: Sequence[int]) -> ChunkVectors:
    return _slice(_among(connection, _VECTORS.where(chunks.c.store == store), chunks.c.revision, numbers))


def _among(connection: Connection, query: Select[*tuple[Any, ...]], column: Any, numbers: Sequence[int]) -> list[rows.AnyRow]:
    """What the query selects where the column is one of the numbers, which are too many for one statement."""
    return [row for part in rows.parts_of(numbers) for row in connection.execute(query.where(column.in_([int(each) for each in part])))]


def _seen(connection: Connection, condition: ColumnElement[bool]) -> list[SeenDocument]:
    columns = (documents.c.id, documents.c.revision, documents.c.chunks, documents.c.attributes)
    found: Sequence[rows.AnyRow] = connection.execute(select(*columns).where(condition, documents.c.revision.is_not(None))).all()
    return [SeenDocument(*row) for row in found]


def _slice(found: Sequence[rows.AnyRow]) -> ChunkVectors:
    numbers, owners = (np.array([row[column] for row in found], np.int64) for column in (0, 1))
    return ChunkVectors(numbers, owners, rows.vectors(found))


def changes(connection: Connection, store: StoreRow, since: int) -> Changes:
    seen = _seen(connection, and_(documents.c.store == store.seq, documents.c.version > since))
    if since < store.horizon:
        return Changes(store.seq, store.version, seen, None)
    ended = select(revisions.c.seq).where(revisions.c.store == store.seq, revisions.c.ended > since)
    return Changes(store.seq, store.version, seen, list(connection.scalars(ended)))


def chunks_of(connection: Connection, store: int, numbers: Sequence[int]) -> dict[int, Chunk]:
    parts = ([int(each) for each in part] for part in rows.parts_of(numbers))
    found = [row for part in parts for row in connection.execute(_TEXTS, {"store": store, "numbers": part})]
    return {row.seq: rows.chunk(row) for row in found}
