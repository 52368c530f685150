"""Ends what may not be served any more, and what is worth least; removes what ended long ago."""

from collections.abc import Sequence

from sqlalchemy import Connection, Select, delete, func, select

from cache.stores import outbox
from cache.stores.base import Collected, Quota
from cache.stores.rows import BATCH, COUNTER, batches, end
from cache.stores.schema import DEAD, LIVE, PENDING, denials, entries, epochs, observations, tags
from cache.stores.servable import invalidated

LONGEST_REQUEST_S = 86_400.0
"""No request takes longer: none whose work began before so old an invalidation is still to be kept."""


def collect(connection: Connection, now: float, grace_s: float, limit: int) -> Collected:
    """See `cache.stores.base.EntryStore.collect`."""
    expired = _ids(connection, select(entries.c.id).where(entries.c.state.in_((PENDING, LIVE)), entries.c.expires_at <= now).limit(limit))
    end(connection, expired, now)
    affected = entries.c.namespace.in_(select(epochs.c.namespace).where(epochs.c.scope != COUNTER))
    overtaken = _ids(connection, select(entries.c.id).where(affected, entries.c.state != DEAD, invalidated()).limit(limit))
    end(connection, overtaken, now)
    long_dead = (entries.c.state == DEAD, entries.c.ended_at <= now - grace_s, ~outbox.has_line())
    purged = _ids(connection, select(entries.c.id).where(*long_dead).limit(limit))
    _remove(connection, purged)
    if not overtaken:
        _forget_scopes(connection, now)
    return Collected(expired=len(expired), invalidated=len(overtaken), purged=len(purged))


def evict(connection: Connection, namespace: str | None, quota: Quota, now: float) -> int:
    """See `cache.stores.base.EntryStore.evict`."""
    held = [entries.c.state != DEAD, *([] if namespace is None else [entries.c.namespace == namespace])]
    count, size = connection.execute(select(func.count(), func.coalesce(func.sum(entries.c.size), 0)).where(*held)).one()
    ended = 0
    while _exceeds(quota, count, int(size)):
        worst = connection.execute(
            select(entries.c.id, entries.c.size).where(*held).order_by(entries.c.value, entries.c.id).limit(BATCH)
        ).all()
        going = []
        for row in worst:
            if not _exceeds(quota, count, int(size)):
                break
            going.append(row.id)
            count, size = count - 1, size - row.size
        end(connection, going, now)
        ended += len(going)
    return ended


def _exceeds(quota: Quota, count: int, size: int) -> bool:
    too_many = quota.max_entries is not None and count > quota.max_entries
    return too_many or (quota.max_bytes is not None and size > quota.max_bytes)


def _ids(connection: Connection, query: Select[str]) -> Sequence[str]:
    return connection.scalars(query.with_for_update(skip_locked=True)).all()


def _remove(connection: Connection, ids: Sequence[str]) -> None:
    for part in batches(ids):
        for table in (tags, observations, denials):
            connection.execute(delete(table).where(table.c.entry_id.in_(part)))
        connection.execute(delete(entries).where(entries.c.id.in_(part)))


def _forget_scopes(connection: Connection, now: float) -> None:
    """Invalidations that no entry, kept or still to be kept, is older than. The counters stay."""
    old = (epochs.c.scope != COUNTER, epochs.c.raised_at <= now - LONGEST_REQUEST_S)
    older = select(entries.c.id).where(entries.c.namespace == epochs.c.namespace, entries.c.state != DEAD, entries.c.epoch < epochs.c.epoch)
    # Two statements: MySQL does not delete from a table that the same statement reads.
    for row in connection.execute(select(epochs.c.namespace, epochs.c.scope).where(*old, ~older.exists()).limit(BATCH)).all():
        connection.execute(delete(epochs).where(epochs.c.namespace == row.namespace, epochs.c.scope == row.scope))
