"""What a look-up reads. Its statements are made once: making one takes longer than the database does."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import CompoundSelect, Connection, FromClause, Row, Select, bindparam, exists, null, select, union_all

from cache.entry import Entry
from cache.stores.base import Candidate, Known
from cache.stores.rows import COUNTER
from cache.stores.schema import denials, entries, epochs, tags
from cache.stores.servable import SERVABLE

READ = (
    "id",
    "namespace",
    "exact_key",
    "fingerprint",
    "model",
    "text",
    "answer",
    "created_at",
    "expires_at",
    "stale_at",
    "epoch",
    "tokens",
    "normal_key",
    "embedder",
)
"""What is read of an entry for its answer."""


def _read_from(table: FromClause) -> Select[Any]:
    """Few entries have tags: for the others they need not be asked for."""
    is_tagged = exists().where(tags.c.entry_id == table.c.id).correlate(table)
    return select(*(table.c[name] for name in READ), is_tagged.label("is_tagged"))


_OWN = entries.c.namespace == bindparam("namespace")
_OWN_BY_ID = entries.c.namespace.concat("") == bindparam("namespace")
"""For statements that have ids: SQLite would else go through the whole namespace by another index, which it takes to be small."""
_OF_PARTITION = entries.c.fingerprint == bindparam("fingerprint")
_OF_NORMAL_KEY = entries.c.normal_key == bindparam("normal_key")
_IS_DENIED = exists().where(denials.c.entry_id == entries.c.id, denials.c.question == bindparam("normal_key"))

_BY_KEY = _read_from(entries).where(_OWN, entries.c.live_key == bindparam("key"), SERVABLE)
_BY_ID = _read_from(entries).where(_OWN_BY_ID, entries.c.id == bindparam("id"), SERVABLE)

_OTHER_KEY = entries.c.exact_key != bindparam("key")
"""Lest an answer be read twice: most entries have the normal form of their own question."""
_NEWEST_ID = (
    select(entries.c.id).where(_OWN, _OF_NORMAL_KEY, _OF_PARTITION, _OTHER_KEY, ~_IS_DENIED, SERVABLE).order_by(entries.c.created_at.desc())
)
_NEWEST = entries.alias("newest")
_BY_NORMAL_KEY = _read_from(_NEWEST).where(_NEWEST.c.id == _NEWEST_ID.limit(1).scalar_subquery())

_OF_COUNTER = (epochs.c.namespace == bindparam("namespace"), epochs.c.scope == COUNTER)
_EPOCH = select(epochs.c.epoch).where(*_OF_COUNTER)
_EPOCH_AS_ENTRY = select(*(epochs.c.epoch if name == "epoch" else null().label(name) for name in (*READ, "is_tagged"))).where(*_OF_COUNTER)
_ALL: CompoundSelect[Any] = union_all(_BY_KEY, _BY_NORMAL_KEY, _EPOCH_AS_ENTRY)
"""One statement, so that all is of one moment. The row without an id has the namespace's epoch."""

_CANDIDATES = select(entries.c.id, entries.c.text, _IS_DENIED.label("is_denied")).where(
    entries.c.id.in_(bindparam("ids", expanding=True)), _OWN_BY_ID, _OF_PARTITION, entries.c.text.is_not(None), SERVABLE
)
_TAGS = select(tags.c.entry_id, tags.c.tag).where(tags.c.entry_id.in_(bindparam("ids", expanding=True))).order_by(tags.c.tag)


def epoch(connection: Connection, namespace: str) -> int:
    return connection.scalar(_EPOCH, {"namespace": namespace}) or 0


def by_key(connection: Connection, namespace: str, exact_key: str, now: float) -> Entry | None:
    return _first(connection, _BY_KEY, {"namespace": namespace, "key": exact_key, "now": now})


def by_id(connection: Connection, namespace: str, entry_id: str, now: float) -> Entry | None:
    return _first(connection, _BY_ID, {"namespace": namespace, "id": entry_id, "now": now})


def known(connection: Connection, namespace: str, exact_key: str, fingerprint: str, normal_key: str | None, now: float) -> Known:
    values = {"namespace": namespace, "key": exact_key, "fingerprint": fingerprint, "normal_key": normal_key or "", "now": now}
    rows = connection.execute(_ALL, values).all()
    counted = next((row.epoch for row in rows if row.id is None), 0)
    found = [row for row in rows if row.id is not None]
    if not found:
        return Known(counted)
    exact = next((row for row in found if row.exact_key == exact_key), None)
    return Known(counted, reworded=_entry(connection, found[0])) if exact is None else Known(counted, exact=_entry(connection, exact))


def candidates(
    connection: Connection, namespace: str, fingerprint: str, ids: Sequence[str], normal_key: str, now: float
) -> list[Candidate]:
    values = {"namespace": namespace, "fingerprint": fingerprint, "ids": list(ids), "normal_key": normal_key, "now": now}
    rows = connection.execute(_CANDIDATES, values).all()
    found = {entry_id: Candidate(entry_id, text or "", bool(is_denied)) for entry_id, text, is_denied in rows}
    return [found[entry_id] for entry_id in ids if entry_id in found]


def tags_of(connection: Connection, ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The tags of each entry that has some."""
    found: dict[str, tuple[str, ...]] = {}
    for row in connection.execute(_TAGS, {"ids": list(ids)}):
        found[row.entry_id] = (*found.get(row.entry_id, ()), row.tag)
    return found


def _first(connection: Connection, query: Select[Any], values: dict[str, Any]) -> Entry | None:
    row = connection.execute(query, values).first()
    return None if row is None else _entry(connection, row)


def _entry(connection: Connection, row: Row[*tuple[Any, ...]]) -> Entry:
    *columns, is_tagged = row
    tagged = tags_of(connection, [row.id]) if is_tagged else {}
    return Entry(**dict(zip(READ, columns, strict=True)), tags=tagged.get(row.id, ()))
