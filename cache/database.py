"""An SQL database behind a store: SQLite by default, with one writer at a time there."""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

T = TypeVar("T")
TRIES = 8
BACKOFF_S = 0.01
CONFLICTS = {1205, 1213, 1020}
"""MySQL's lock wait timeout, deadlock, and MariaDB's "record has changed since last read"."""
LOCK_WAIT_S = 60
POOL_SIZE = 32
"""Connections, kept open: making one to a server takes 10 ms of a core, and those past the pool's size would be made for each use."""
POOL_TIMEOUT_S = 5.0
SQLITE_POOL_SIZE = 8
"""Connections to SQLite: each has a page cache, and in one process no more of them get anything done at the same time."""
_POOL: Any = {"max_overflow": 0, "pool_timeout": POOL_TIMEOUT_S, "pool_use_lifo": True, "hide_parameters": True}
BUSY_TIMEOUT_S = 5.0
"""How long a statement waits for another process's SQLite lock."""


class Database:
    """Connections to the database behind an SQLAlchemy URL. Thread-safe.

    `sqlite:////absolute/path` creates the file, for its owner only, and its directory. Whatever the database, its
    driver or the file system raises becomes `error`, without the values that were sent. `pragmas` are SQLite's, besides
    WAL, which lets readers and a writer work at once.
    """

    def __init__(self, url: str, error: type[Exception], pragmas: Sequence[str] = ()) -> None:
        self.url = url
        """Holds the password, if there is one."""
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

    def transact(self, work: Callable[[Connection], T]) -> T:
        """The result of `work` in a transaction of `write`, tried again when the database ends it in favour of another one."""
        for attempt in range(1, TRIES):
            try:
                with self.write() as connection:
                    return work(connection)
            except self._error as error:
                if not _is_conflict(error.__cause__):
                    raise
                time.sleep(random.uniform(0, BACKOFF_S * attempt))
        with self.write() as connection:
            return work(connection)

    @contextmanager
    def exclusive(self, name: str) -> Iterator[Connection]:
        """A transaction that only one process at a time has under this name."""
        with self.write() as connection:
            if self._is_sqlite:
                yield connection
                return
            if connection.scalar(select(func.get_lock(name, LOCK_WAIT_S))) != 1:
                raise self._error(f"the database's lock {name} was not free within {LOCK_WAIT_S} s")
            try:
                yield connection
            finally:
                connection.scalar(select(func.release_lock(name)))

    def close(self) -> None:
        self._engine.dispose()

    def _open(self, url: URL) -> Engine:
        if url.get_backend_name() != "sqlite":
            # MySQL's default also locks the gaps between rows, where writers of new rows would meet in deadlocks.
            return create_engine(url, isolation_level="READ COMMITTED", pool_pre_ping=True, pool_size=POOL_SIZE, **_POOL)
        self._prepare_file(url)
        # What was used last is used next: SQLite has a page cache for each connection, and the last one's is warm.
        engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S}, pool_size=SQLITE_POOL_SIZE, **_POOL)
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


def _is_conflict(error: BaseException | None) -> bool:
    if not isinstance(error, DBAPIError) or error.orig is None:
        return False
    # A second row with a unique key: whoever came first has committed meanwhile, and the next try sees it.
    return isinstance(error, IntegrityError) or error.orig.args[:1] in {(number,) for number in CONFLICTS}
