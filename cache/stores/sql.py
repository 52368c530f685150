"""Entries in a SQL database: SQLite by default."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from cache.database import Database
from cache.entry import Entry, Vector
from cache.errors import StoreError
from cache.stores.base import EntryStore
from cache.stores.schema import entries, metadata

SCAN_PAGE = 500
DELETE_BATCH = 500
ENTRY_COLUMNS = [entries.c[field.name] for field in dataclasses.fields(Entry)]


def open_store(url: str) -> EntryStore:
    """The store behind an SQLAlchemy URL, its tables created if need be. Raises `StoreError` if it cannot be opened."""
    # With synchronous=NORMAL a power cut may cost the last entries, never the file.
    return SqlEntryStore(Database(url, StoreError, ("synchronous=NORMAL",)))


class SqlEntryStore:
    """An `EntryStore` on SQLAlchemy Core. `open_store` makes one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        with database.write() as connection:
            metadata.create_all(connection)

    def put(self, entry: Entry) -> str | None:
        same_key = (entries.c.namespace == entry.namespace, entries.c.exact_key == entry.exact_key)
        with self._database.write() as connection:
            replaced = connection.scalar(select(entries.c.id).where(*same_key).with_for_update())
            if replaced is not None:
                connection.execute(delete(entries).where(entries.c.id == replaced))
            connection.execute(insert(entries), _row(entry))
        return replaced

    def find_exact(self, namespace: str, exact_key: str, now: float) -> Entry | None:
        wanted = (entries.c.namespace == namespace, entries.c.exact_key == exact_key, entries.c.expires_at > now)
        with self._database.read() as connection:
            row = connection.execute(select(*ENTRY_COLUMNS).where(*wanted)).first()
            return None if row is None else _entry(row)

    def get_live(self, namespace: str, fingerprint: str, ids: Sequence[str], now: float) -> list[Entry]:
        partition = (entries.c.namespace == namespace, entries.c.fingerprint == fingerprint)
        query = select(*ENTRY_COLUMNS).where(*partition, entries.c.id.in_(ids), entries.c.expires_at > now)
        with self._database.read() as connection:
            found = {row.id: _entry(row) for row in connection.execute(query)}
        return [found[entry_id] for entry_id in ids if entry_id in found]

    def touch(self, entry_id: str, now: float) -> None:
        used = {"hits": entries.c.hits + 1, "last_used_at": now}
        with self._database.write() as connection:
            connection.execute(update(entries).where(entries.c.id == entry_id).values(used))

    def scan(self, now: float) -> Iterator[Entry]:
        # Page by page, so that no read transaction stays open while the caller works.
        wanted = (entries.c.expires_at > now, entries.c.vector.is_not(None))
        query = select(*ENTRY_COLUMNS).where(*wanted).order_by(entries.c.id).limit(SCAN_PAGE)
        last = ""
        while True:
            with self._database.read() as connection:
                page = [_entry(row) for row in connection.execute(query.where(entries.c.id > last))]
            yield from page
            if len(page) < SCAN_PAGE:
                return
            last = page[-1].id

    def evict(self, max_entries: int, now: float) -> list[str]:
        with self._database.write() as connection:
            expired = connection.scalars(select(entries.c.id).where(entries.c.expires_at <= now)).all()
            _delete(connection, expired)
            excess = max(0, _count(connection) - max_entries)
            oldest_first = select(entries.c.id).order_by(entries.c.last_used_at, entries.c.id)
            unused = connection.scalars(oldest_first.limit(excess)).all()
            _delete(connection, unused)
        return [*expired, *unused]

    def count(self) -> int:
        with self._database.read() as connection:
            return _count(connection)

    def close(self) -> None:
        self._database.close()


def _count(connection: Connection) -> int:
    return connection.scalar(select(func.count()).select_from(entries)) or 0


def _delete(connection: Connection, ids: Sequence[str]) -> None:
    for start in range(0, len(ids), DELETE_BATCH):
        connection.execute(delete(entries).where(entries.c.id.in_(ids[start : start + DELETE_BATCH])))


def _row(entry: Entry) -> dict[str, Any]:
    row = {column.name: getattr(entry, column.name) for column in ENTRY_COLUMNS}
    vector = None if entry.vector is None else entry.vector.astype("<f4").tobytes()
    return {**row, "vector": vector, "last_used_at": entry.created_at, "hits": 0}


def _entry(row: Row[*tuple[Any, ...]]) -> Entry:
    vector: Vector | None = None if row.vector is None else np.frombuffer(row.vector, "<f4").astype(np.float32)
    return Entry(**{**row._mapping, "vector": vector})
