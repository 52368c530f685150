"""An SQL database behind a store: SQLite by default, with one writer at a time there."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

BUSY_TIMEOUT_S = 5.0
"""How long a statement waits for another process's SQLite lock."""


class Database:
    """Connections to the database behind an SQLAlchemy URL. Thread-safe.

    `sqlite:////absolute/path` creates the file, for its owner only, and its directory. Whatever the database, its
    driver or the file system raises becomes `error`, without the values that were sent. `pragmas` are SQLite's, besides
    WAL, which lets readers and a writer work at once.
    """

    def __init__(self, url: str, error: type[Exception], pragmas: Sequence[str] = ()) -> None:
        self._error = error
        self._pragmas = ("journal_mode=WAL", *pragmas)
        with self._errors():
            self._engine = self._open(make_url(url))
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        # SQLite has one writer at a time. Threads that wait here are served in turn; those that wait inside SQLite sleep and poll.
        self._one_writer: AbstractContextManager[Any] = threading.Lock() if self._is_sqlite else nullcontext()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self._errors(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that nobody else's comes between, committed at the end, rolled back on an error."""
        with self._errors(), self._one_writer, self._engine.begin() as connection:
            if self._is_sqlite:
                # The driver would begin at the first change only, after what the transaction has already read.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    def close(self) -> None:
        self._engine.dispose()

    def _open(self, url: URL) -> Engine:
        if url.get_backend_name() != "sqlite":
            return create_engine(url, hide_parameters=True, pool_pre_ping=True)
        self._prepare_file(url)
        engine = create_engine(url, hide_parameters=True, connect_args={"timeout": BUSY_TIMEOUT_S})
        event.listen(engine, "connect", self._configure_sqlite)
        return engine

    def _configure_sqlite(self, connection: Any, record: object) -> None:
        for pragma in self._pragmas:
            connection.execute(f"PRAGMA {pragma}").close()

    def _prepare_file(self, url: URL) -> None:
        if not url.database or url.database == ":memory:":
            raise self._error("an SQLite store needs a file (sqlite:////absolute/path): one in memory would not be shared between threads")
        path = Path(url.database)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            advice = "configure another path, or make this one writable"
            raise self._error(f"cannot write the database file {path}: {error.strerror}: {advice}") from error

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise self._error(f"the database failed: {error.orig}") from error
        except (SQLAlchemyError, ImportError, ValueError, OverflowError, OSError) as error:
            raise self._error(f"the database failed: {type(error).__name__}: {error}") from error
