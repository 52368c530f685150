"""Between the document store's rows and what they mean."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Row, Select, and_, func, select

from cache.entry import Vector, Vectors
from retrieval.documents import Chunk, Document, VectorStoreInfo, chunk_id
from retrieval.schema import chunks, documents, stores

AnyRow = Row[*tuple[Any, ...]]


def is_store(namespace: str, store_id: str) -> ColumnElement[bool]:
    return and_(stores.c.namespace == namespace, stores.c.id == store_id)


def documents_of(namespace: str, store_id: str) -> ColumnElement[bool]:
    return and_(documents.c.namespace == namespace, documents.c.store_id == store_id)


def chunks_of(namespace: str, store_id: str) -> ColumnElement[bool]:
    return and_(chunks.c.namespace == namespace, chunks.c.store_id == store_id)


def store_infos() -> Select[*tuple[Any, ...]]:
    same_store = and_(documents.c.namespace == stores.c.namespace, documents.c.store_id == stores.c.id)
    count = select(func.count()).where(same_store).scalar_subquery()
    parts = select(func.coalesce(func.sum(documents.c.chunks), 0)).where(same_store).scalar_subquery()
    return select(stores, count.label("documents"), parts.label("parts"))


def store_info(row: AnyRow) -> VectorStoreInfo:
    return VectorStoreInfo(row.id, row.name, row.created_at, row.documents, int(row.parts), row.version, row.details)


def whole_store(namespace: str, store_id: str) -> Select[*tuple[Any, ...]]:
    """The collection with all its chunks, as one statement: on every database and isolation level, that sees one version.

    A collection without chunks is one row with `ordinal` NULL.
    """
    has_chunk = and_(chunks.c.namespace == stores.c.namespace, chunks.c.store_id == stores.c.id)
    has_document = and_(
        documents.c.namespace == chunks.c.namespace,
        documents.c.store_id == chunks.c.store_id,
        documents.c.id == chunks.c.document_id,
    )
    tables = stores.outerjoin(chunks, has_chunk).outerjoin(documents, has_document)
    parts = (chunks.c.document_id, chunks.c.ordinal, chunks.c.text, chunks.c.embedding, documents.c.attributes)
    query = select(stores.c.version, stores.c.embedder, *parts).select_from(tables).where(is_store(namespace, store_id))
    return query.order_by(chunks.c.document_id, chunks.c.ordinal)


def chunk(row: AnyRow) -> Chunk:
    return Chunk(chunk_id(row.document_id, row.ordinal), row.document_id, row.ordinal, row.text, row.attributes)


def vectors(rows: Sequence[AnyRow]) -> Vectors:
    dimension = len(rows[0].embedding) // 4 if rows else 0
    return np.frombuffer(b"".join(row.embedding for row in rows), "<f4").astype(np.float32).reshape(len(rows), dimension)


def document_row(document: Document, parts: int, now: float) -> dict[str, Any]:
    size = len(document.text.encode())
    values = {"id": document.id, "text": document.text, "attributes": dict(document.attributes)}
    return {**values, "created_at": now, "bytes": size, "chunks": parts}


def chunk_row(part: Chunk, vector: Vector) -> dict[str, Any]:
    values = {"document_id": part.document_id, "ordinal": part.ordinal, "text": part.text}
    return {**values, "embedding": vector.astype("<f4").tobytes()}
