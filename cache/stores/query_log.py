"""The query log: what was asked of a cache, and how it ended."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import delete, func, insert, select

from cache.database import Database
from cache.stores.schema import queries


@dataclass(frozen=True, slots=True)
class LoggedQuery:
    """One look-up. `outcome` is a short word or code; `seconds` how long it took."""

    namespace: str
    model: str
    created_at: float
    outcome: str
    seconds: float
    query: str | None = None
    entry_id: str | None = None
    similarity: float | None = None


class SqlQueryLog:
    """Lines in the order of their writing. Every call may raise `StoreError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, lines: Sequence[LoggedQuery]) -> None:
        if lines:
            self._database.transact(lambda connection: connection.execute(insert(queries), [asdict(each) for each in lines]))

    def page(self, namespace: str, after: int, limit: int) -> tuple[list[LoggedQuery], int]:
        """At most `limit` lines of the namespace behind the mark `after`, oldest first, and the new mark."""
        columns = [queries.c[name] for name in LoggedQuery.__slots__]
        wanted = select(queries.c.seq, *columns).where(queries.c.namespace == namespace, queries.c.seq > after)
        with self._database.read() as connection:
            rows = connection.execute(wanted.order_by(queries.c.seq).limit(limit)).all()
        return [LoggedQuery(*row[1:]) for row in rows], rows[-1].seq if rows else after

    def clear(self, namespace: str) -> None:
        """Removes the namespace's lines."""
        self._database.transact(lambda connection: connection.execute(delete(queries).where(queries.c.namespace == namespace)))

    def trim(self, max_lines: int) -> None:
        """Removes the oldest lines past `max_lines`."""
        with self._database.read() as connection:
            newest = connection.scalar(select(func.max(queries.c.seq))) or 0
        self._database.transact(lambda connection: connection.execute(delete(queries).where(queries.c.seq <= newest - max_lines)))
