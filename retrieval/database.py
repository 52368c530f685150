"""Opens the database of the document store, and names its errors."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from retrieval.errors import StorageError

BUSY_TIMEOUT_S = 5.0
"""How long a statement waits for another process's SQLite lock."""


def open_engine(url: str) -> Engine:
    """The engine behind an SQLAlchemy URL. An SQLite file is created, for its owner only. Raises `StorageError`."""
    with storage_errors():
        parsed = make_url(url)
        if parsed.get_backend_name() != "sqlite":
            return create_engine(parsed, hide_parameters=True, pool_pre_ping=True)
        _prepare_file(parsed)
        engine = create_engine(parsed, hide_parameters=True, connect_args={"timeout": BUSY_TIMEOUT_S})
        event.listen(engine, "connect", _configure_sqlite)
        return engine


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turns what the database, its driver and the file system raise into `StorageError`, without the values that were sent."""
    try:
        yield
    except DBAPIError as error:
        raise StorageError(f"the document database failed: {error.orig}") from error
    except (SQLAlchemyError, ImportError, OSError) as error:
        raise StorageError(f"the document database failed: {type(error).__name__}: {error}") from error


def _configure_sqlite(connection: Any, record: object) -> None:
    """WAL lets readers and a writer work at once. Full synchronous, SQLite's default, stays on: an accepted document must not be lost."""
    connection.execute("PRAGMA journal_mode=WAL").close()


def _prepare_file(url: URL) -> None:
    if not url.database or url.database == ":memory:":
        raise StorageError("an SQLite store needs a file (sqlite:////absolute/path): one in memory would not be shared between threads")
    path = Path(url.database)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
