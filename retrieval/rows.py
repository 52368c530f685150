"""Between the document store's rows and what they mean."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from sqlalchemy import ColumnElement, Row, Select, and_, func, select

from cache.entry import Vector, Vectors
from retrieval.documents import Chunk, Document, Page, Status, VectorStoreInfo
from retrieval.schema import documents, revisions, stores

T = TypeVar("T")
AnyRow = Row[*tuple[Any, ...]]

MAX_IDS = 500
"""In one statement."""
VISIBLE = and_(revisions.c.version.is_not(None), revisions.c.ended.is_(None))
"""Of a revision: a search sees it."""


def parts_of(ids: Sequence[T]) -> Iterator[Sequence[T]]:
    """At most `MAX_IDS` at a time."""
    return (ids[start : start + MAX_IDS] for start in range(0, len(ids), MAX_IDS))


def is_store(namespace: str, store_id: str) -> ColumnElement[bool]:
    return and_(stores.c.namespace == namespace, stores.c.id == store_id)


def is_document(store: int, document_id: str) -> ColumnElement[bool]:
    return and_(documents.c.store == store, documents.c.id == document_id)


def page_of(query: Select[*tuple[Any, ...]], ids: Any, page: Page) -> Select[*tuple[Any, ...]]:
    """That part of what the query selects; `ids` is the column that it is ordered by.

    With `before` alone it is the page that ends there: its `limit` items are the nearest to `before`.
    """
    behind, before = (ids < page.after, ids > page.before) if page.newest_first else (ids > page.after, ids < page.before)
    if page.after:
        query = query.where(behind)
    if page.before:
        query = query.where(before)
    if page.after or not page.before:
        return query.order_by(_ordered(ids, page.newest_first)).limit(page.limit)
    nearest = query.order_by(_ordered(ids, not page.newest_first)).limit(page.limit).subquery()
    return select(nearest).order_by(_ordered(nearest.c[ids.name], page.newest_first))


def _ordered(ids: Any, newest_first: bool) -> Any:
    return ids.desc() if newest_first else ids.asc()


def store_info(row: AnyRow, sums: Sequence[AnyRow]) -> VectorStoreInfo:
    """`sums`: of its documents, by status, as `document_sums` selects them."""
    found = sum(each.found for each in sums)
    parts = sum(int(each.parts) for each in sums)
    counts: dict[Status, int] = {each.status: each.documents for each in sums}
    usage = sum(int(each.usage) for each in sums)
    return VectorStoreInfo(row.id, row.name, row.created_at, int(found), parts, row.version, row.details, counts, usage)


def document_sums(numbers: Sequence[int]) -> Select[*tuple[Any, ...]]:
    """One row for each collection of these numbers and status."""
    columns = (
        func.count().label("documents"),
        func.count(documents.c.revision).label("found"),
        func.sum(documents.c.chunks).label("parts"),
        func.sum(documents.c.usage).label("usage"),
    )
    query = select(documents.c.store, documents.c.status, *columns).where(documents.c.store.in_(numbers))
    return query.group_by(documents.c.store, documents.c.status)


def chunk(row: AnyRow) -> Chunk:
    """Of a document that has been deleted since, only the text is known."""
    return Chunk(row.document_id, row.ordinal, row.text, row.attributes or {}, row.name or "")


def vectors(rows: Sequence[AnyRow]) -> Vectors:
    dimension = len(rows[0].embedding) // 4 if rows else 0
    return np.frombuffer(b"".join(row.embedding for row in rows), "<f4").astype(np.float32).reshape(len(rows), dimension)


def document_row(document: Document, parts: Sequence[Chunk], vectors: Vectors) -> dict[str, Any]:
    """What a document's row says of a text that is there at once."""
    size = len(document.text.encode())
    counts = {"bytes": size, "usage": usage_of(size, [part.text for part in parts], vectors.nbytes), "chunks": len(parts)}
    return {"id": document.id, "name": document.id, "status": "completed", "attributes": dict(document.attributes), **counts}


def usage_of(text_bytes: int, parts: Sequence[str], vector_bytes: int) -> int:
    return text_bytes + sum(len(part.encode()) for part in parts) + vector_bytes


def chunk_row(store: int, revision: int, ordinal: int, text: str, vector: Vector) -> dict[str, Any]:
    place = {"store": store, "revision": revision, "ordinal": ordinal}
    return {**place, "text": text, "embedding": vector.astype("<f4").tobytes()}
