"""Entries in a SQL database: SQLite by default, MySQL and its kin."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, delete, func, insert, select, update

from cache.database import Database
from cache.entry import Entry, Vector
from cache.errors import StoreError
from cache.migrate import migrate
from cache.stores import lookups, outbox
from cache.stores.base import ALL, Candidate, Change, Collected, EntryInfo, Filter, Known, Quota, Stats, model_scope, tag_scope
from cache.stores.garbage import collect, evict, is_exceeded
from cache.stores.rows import end, raise_epoch
from cache.stores.schema import DEAD, LIVE, PENDING, entries, epochs, tags
from cache.stores.servable import SERVABLE, UNEXPIRED
from cache.stores.value import value
from cache.vectors.base import VectorRecord

MIGRATIONS = Path(__file__).parent / "migrations"


def open_database(url: str) -> Database:
    """The database behind an SQLAlchemy URL, with the stores' tables as they are today. Raises `StoreError`."""
    # With synchronous=NORMAL a power cut may cost the last entries, never the file.
    database = Database(url, StoreError, ("synchronous=NORMAL",))
    migrate(database, MIGRATIONS, "mygo-migrations")
    return database


class SqlEntryStore:
    """An `EntryStore` on SQLAlchemy Core."""

    def __init__(self, database: Database) -> None:
        """`database`: of `open_database`, which it closes."""
        self._database = database

    def put(self, entry: Entry) -> None:
        self.put_all([entry])

    def put_all(self, batch: Sequence[Entry]) -> None:
        ordered = sorted(batch, key=lambda each: (each.namespace, each.exact_key))  # two writers lock in one order

        def work(connection: Connection) -> None:
            for entry in ordered:
                _put(connection, entry)

        self._database.transact(work)

    def epoch(self, namespace: str) -> int:
        with self._database.read() as connection:
            return lookups.epoch(connection, namespace)

    def find_exact(self, namespace: str, exact_key: str, now: float) -> Entry | None:
        with self._database.read() as connection:
            return lookups.by_key(connection, namespace, exact_key, now)

    def get(self, namespace: str, entry_id: str, now: float) -> Entry | None:
        with self._database.read() as connection:
            return lookups.by_id(connection, namespace, entry_id, now)

    def look_up(self, namespace: str, exact_key: str, fingerprint: str, normal_key: str | None, now: float) -> Known:
        with self._database.read() as connection:
            return lookups.known(connection, namespace, exact_key, fingerprint, normal_key, now)

    def candidates(self, namespace: str, fingerprint: str, ids: Sequence[str], normal_key: str, now: float) -> list[Candidate]:
        with self._database.read() as connection:
            return lookups.candidates(connection, namespace, fingerprint, ids, normal_key, now)

    def use(self, hits: Mapping[str, int], now: float) -> None:
        query = select(entries.c.id, entries.c.tokens, entries.c.hits).where(entries.c.id.in_(hits)).with_for_update()

        def work(connection: Connection) -> None:
            for row in connection.execute(query).all():
                total = row.hits + hits[row.id]
                used = {"hits": total, "last_used_at": now, "value": value(row.tokens, total, now)}
                connection.execute(update(entries).where(entries.c.id == row.id).values(used))

        if hits:
            self._database.transact(work)

    def delete(self, namespace: str, ids: Sequence[str], now: float) -> int:
        own = entries.c.namespace.concat("") == namespace  # as `_OWN_BY_ID`
        query = select(entries.c.id).where(own, entries.c.id.in_(ids), entries.c.state != DEAD)

        def work(connection: Connection) -> int:
            found = connection.scalars(query.with_for_update()).all()
            end(connection, found, now)
            if ids:  # also for one that was never written, or has been evicted: a process may hold it in memory
                raise_epoch(connection, namespace, now)
            return len(found)

        return self._database.transact(work)

    def invalidate(self, namespace: str, scope: str, now: float) -> int:
        def work(connection: Connection) -> int:
            epoch = raise_epoch(connection, namespace, now)
            connection.execute(delete(epochs).where(epochs.c.namespace == namespace, epochs.c.scope == scope))
            raised = {"namespace": namespace, "scope": scope, "epoch": epoch, "raised_at": now, "next_sweep_at": now}
            connection.execute(insert(epochs), raised)
            return epoch

        return self._database.transact(work)

    def page(self, namespace: str, wanted: Filter, after: str, limit: int, now: float) -> list[EntryInfo]:
        columns = [
            entries.c[name] for name in ("id", "model", "text", "created_at", "expires_at", "last_used_at", "hits", "tokens", "size")
        ]
        query = _filtered(select(*columns), wanted).where(entries.c.namespace == namespace, entries.c.id > after, SERVABLE)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(entries.c.id).limit(limit), {"now": now}).all()
            tagged = lookups.tags_of(connection, [row.id for row in rows])
        return [EntryInfo(**row._mapping, tags=tagged.get(row.id, ())) for row in rows]

    def stats(self, namespace: str, now: float) -> Stats:
        sums = [func.coalesce(func.sum(each), 0) for each in (entries.c.size, entries.c.hits, entries.c.hits * entries.c.tokens)]
        unswept = select(epochs.c.scope).where(epochs.c.namespace == namespace, epochs.c.next_sweep_at <= epochs.c.raised_at).limit(1)
        with self._database.read() as connection:
            # What was invalidated is dead once it has been swept; until then each entry is compared, at ten times the cost.
            kept = UNEXPIRED if connection.scalar(unswept) is None else SERVABLE
            row = connection.execute(select(func.count(), *sums).where(entries.c.namespace == namespace, kept), {"now": now}).one()
        return Stats(*(int(each) for each in row))

    def claim(self, limit: int, now: float, hold_s: float, embedder: str) -> list[Change]:
        return self._database.transact(lambda connection: outbox.claim(connection, limit, now, hold_s, embedder))

    def confirm(self, changes: Sequence[Change]) -> None:
        self._database.transact(lambda connection: outbox.confirm(connection, changes))

    def enqueue(self, ids: Sequence[str]) -> None:
        self._database.transact(lambda connection: outbox.add(connection, ids))

    def backlog(self) -> int:
        with self._database.read() as connection:
            return outbox.size(connection)

    def scan(self, after: str, limit: int, now: float, embedder: str) -> list[VectorRecord]:
        live = entries.c.state + 0 == LIVE  # by any other index than that of the ids, each page would sort all that is left
        wanted = (entries.c.id > after, live, entries.c.embedder == embedder, entries.c.vector.is_not(None))
        query = select(*outbox.RECORD).where(*wanted, SERVABLE, ~outbox.has_line()).order_by(entries.c.id).limit(limit)
        with self._database.read() as connection:
            return [outbox.record(row) for row in connection.execute(query, {"now": now})]

    def known(self, ids: Sequence[str]) -> set[str]:
        query = select(entries.c.id).where(entries.c.id.in_(ids), (entries.c.state != DEAD) | outbox.has_line())
        with self._database.read() as connection:
            return set(connection.scalars(query))

    def outdated(self, embedder: str, after: str, limit: int, now: float) -> list[tuple[str, str]]:
        foreign = (entries.c.id > after, entries.c.embedder != embedder, entries.c.vector.is_not(None), entries.c.text.is_not(None))
        query = select(entries.c.id, entries.c.text).where(*foreign, SERVABLE).order_by(entries.c.id).limit(limit)
        with self._database.read() as connection:
            return [(row.id, row.text or "") for row in connection.execute(query, {"now": now})]

    def embed(self, vectors: Mapping[str, Vector], embedder: str) -> None:
        def work(connection: Connection) -> None:
            for entry_id, vector in vectors.items():
                anew = {"vector": vector.astype("<f4").tobytes(), "embedder": embedder, "state": PENDING}
                if connection.execute(update(entries).where(entries.c.id == entry_id, entries.c.state != DEAD).values(anew)).rowcount:
                    outbox.add(connection, [entry_id])

        self._database.transact(work)

    def collect(self, now: float, grace_s: float, limit: int) -> Collected:
        return self._database.transact(lambda connection: collect(connection, now, grace_s, limit))

    def evict(self, namespace: str | None, quota: Quota, now: float) -> int:
        with self._database.read() as connection:
            if not is_exceeded(connection, namespace, quota):  # counted beside writers, of which SQLite lets in one at a time
                return 0
        return self._database.transact(lambda connection: evict(connection, namespace, quota, now))

    def count(self) -> int:
        with self._database.read() as connection:
            return connection.scalar(select(func.count()).select_from(entries)) or 0

    def close(self) -> None:
        self._database.close()


def _filtered(query: Select[Any], wanted: Filter) -> Select[Any]:
    if wanted.model is not None:
        query = query.where(entries.c.model == wanted.model)
    if wanted.tag is not None:
        query = query.where(entries.c.id.in_(select(tags.c.entry_id).where(tags.c.tag == wanted.tag)))
    return query if wanted.ids is None else query.where(entries.c.id.in_(wanted.ids))


def _put(connection: Connection, entry: Entry) -> None:
    scopes = [ALL, model_scope(entry.model), *(tag_scope(tag) for tag in entry.tags)]
    overtaking = (epochs.c.namespace == entry.namespace, epochs.c.scope.in_(scopes), epochs.c.epoch > entry.epoch)
    if connection.execute(select(epochs.c.epoch).where(*overtaking).limit(1)).first() is not None:
        return  # nobody could be served it, and what it would replace may be newer
    same_key = (entries.c.namespace == entry.namespace, entries.c.live_key == entry.exact_key)
    replaced = connection.scalar(select(entries.c.id).where(*same_key).with_for_update())
    if replaced is not None:
        end(connection, [replaced], entry.created_at)
        raise_epoch(connection, entry.namespace, entry.created_at)
    connection.execute(insert(entries), _row(entry))
    if entry.tags:
        connection.execute(insert(tags), [{"entry_id": entry.id, "tag": tag} for tag in entry.tags])
    if entry.vector is not None:
        outbox.add(connection, [entry.id])


def _row(entry: Entry) -> dict[str, Any]:
    row = {name: getattr(entry, name) for name in lookups.READ}
    vector = None if entry.vector is None else entry.vector.astype("<f4").tobytes()
    return row | {
        "vector": vector,
        "live_key": entry.exact_key,
        "state": LIVE if vector is None else PENDING,
        "ended_at": None,
        "size": entry.size,
        "hits": 0,
        "last_used_at": entry.created_at,
        "value": value(entry.tokens, 0, entry.created_at),
    }
