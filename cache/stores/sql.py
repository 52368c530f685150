"""Entries in a SQL database: SQLite by default."""

import dataclasses
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import URL, Connection, Engine, Row, create_engine, delete, event, func, insert, make_url, select, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from cache.entry import Entry, Vector
from cache.errors import StoreError
from cache.stores.base import EntryStore
from cache.stores.schema import entries, metadata

BUSY_TIMEOUT_S = 5.0
"""How long a statement waits for another process's SQLite lock."""
SCAN_PAGE = 500
DELETE_BATCH = 500
ENTRY_COLUMNS = [entries.c[field.name] for field in dataclasses.fields(Entry)]


def open_store(url: str) -> EntryStore:
    """The store behind an SQLAlchemy URL, its tables created if need be.

    `sqlite:////var/lib/mygo/cache.sqlite` creates the file, for its owner only, and its directory.
    Raises `StoreError` if it cannot be opened.
    """
    with _store_errors():
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            _prepare_file(parsed)
        return SqlEntryStore(_engine(parsed))


class SqlEntryStore:
    """An `EntryStore` on SQLAlchemy Core. `open_store` makes one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._is_sqlite = engine.dialect.name == "sqlite"
        # SQLite has one writer at a time. Threads that wait here are served in turn; those that wait inside SQLite sleep and poll.
        self._one_writer: AbstractContextManager[Any] = threading.Lock() if self._is_sqlite else nullcontext()
        with self._write() as connection:
            metadata.create_all(connection)

    def put(self, entry: Entry) -> str | None:
        same_key = (entries.c.namespace == entry.namespace, entries.c.exact_key == entry.exact_key)
        with self._write() as connection:
            replaced = connection.scalar(select(entries.c.id).where(*same_key).with_for_update())
            if replaced is not None:
                connection.execute(delete(entries).where(entries.c.id == replaced))
            connection.execute(insert(entries), _row(entry))
        return replaced

    def find_exact(self, namespace: str, exact_key: str, now: float) -> Entry | None:
        wanted = (entries.c.namespace == namespace, entries.c.exact_key == exact_key, entries.c.expires_at > now)
        with self._read() as connection:
            row = connection.execute(select(*ENTRY_COLUMNS).where(*wanted)).first()
            return None if row is None else _entry(row)

    def get_live(self, namespace: str, fingerprint: str, ids: Sequence[str], now: float) -> list[Entry]:
        partition = (entries.c.namespace == namespace, entries.c.fingerprint == fingerprint)
        query = select(*ENTRY_COLUMNS).where(*partition, entries.c.id.in_(ids), entries.c.expires_at > now)
        with self._read() as connection:
            found = {row.id: _entry(row) for row in connection.execute(query)}
        return [found[entry_id] for entry_id in ids if entry_id in found]

    def touch(self, entry_id: str, now: float) -> None:
        used = {"hits": entries.c.hits + 1, "last_used_at": now}
        with self._write() as connection:
            connection.execute(update(entries).where(entries.c.id == entry_id).values(used))

    def scan(self, now: float) -> Iterator[Entry]:
        # Page by page, so that no read transaction stays open while the caller works.
        wanted = (entries.c.expires_at > now, entries.c.vector.is_not(None))
        query = select(*ENTRY_COLUMNS).where(*wanted).order_by(entries.c.id).limit(SCAN_PAGE)
        last = ""
        while True:
            with self._read() as connection:
                page = [_entry(row) for row in connection.execute(query.where(entries.c.id > last))]
            yield from page
            if len(page) < SCAN_PAGE:
                return
            last = page[-1].id

    def evict(self, max_entries: int, now: float) -> list[str]:
        with self._write() as connection:
            expired = connection.scalars(select(entries.c.id).where(entries.c.expires_at <= now)).all()
            _delete(connection, expired)
            excess = max(0, _count(connection) - max_entries)
            oldest_first = select(entries.c.id).order_by(entries.c.last_used_at, entries.c.id)
            unused = connection.scalars(oldest_first.limit(excess)).all()
            _delete(connection, unused)
        return [*expired, *unused]

    def count(self) -> int:
        with self._read() as connection:
            return _count(connection)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with _store_errors(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        """A transaction that nobody else's comes between, committed at the end, rolled back on an error."""
        with _store_errors(), self._one_writer, self._engine.begin() as connection:
            if self._is_sqlite:
                # The driver would begin at the first change only, after what the transaction has already read.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection


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


@contextmanager
def _store_errors() -> Iterator[None]:
    """Turns what the database, its driver and the file system raise into `StoreError`, without the values that were sent."""
    try:
        yield
    except DBAPIError as error:
        raise StoreError(f"the database failed: {error.orig}") from error
    except (SQLAlchemyError, ImportError, ValueError, OverflowError, OSError) as error:
        raise StoreError(f"the database failed: {type(error).__name__}: {error}") from error


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, hide_parameters=True, pool_pre_ping=True)
    engine = create_engine(url, hide_parameters=True, connect_args={"timeout": BUSY_TIMEOUT_S})
    event.listen(engine, "connect", _configure_sqlite)
    return engine


def _configure_sqlite(connection: Any, record: object) -> None:
    """WAL lets readers and a writer work at once; with synchronous=NORMAL a power cut may cost the last entries, never the file."""
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _prepare_file(url: URL) -> None:
    if not url.database or url.database == ":memory:":
        raise StoreError("an SQLite store needs a file (sqlite:////absolute/path): one in memory would not be shared between threads")
    path = Path(url.database)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        advice = "give cache.database_url another path, or make this one writable"
        raise StoreError(f"cannot write the store's file {path}: {error.strerror}: {advice}") from error
