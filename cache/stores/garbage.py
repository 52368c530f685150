"""Ends what may not be served any more, and what is worth least; removes what ended long ago."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, delete, func, literal, select, true, update

from cache.stores import outbox
from cache.stores.base import Collected, Quota, model_scope, tag_scope
from cache.stores.rows import BATCH, batches, end
from cache.stores.schema import DEAD, LIVE, PENDING, denials, entries, epochs, observations, tags

SETTLED_S = 60.0
"""No write takes longer: what was being written when a scope was invalidated is there to be found."""
LONGEST_REQUEST_S = 86_400.0
"""No request takes longer: none whose work began before so old an invalidation is still to be kept."""


def collect(connection: Connection, now: float, grace_s: float, limit: int) -> Collected:
    """See `cache.stores.base.EntryStore.collect`."""
    expired = _ids(connection, select(entries.c.id).where(entries.c.state.in_((PENDING, LIVE)), entries.c.expires_at <= now).limit(limit))
    end(connection, expired, now)
    overtaken = _sweep(connection, now, limit)
    long_dead = (entries.c.state == DEAD, entries.c.ended_at <= now - grace_s, ~outbox.has_line())
    purged = _ids(connection, select(entries.c.id).where(*long_dead).limit(limit))
    _remove(connection, purged)
    return Collected(expired=len(expired), invalidated=overtaken, purged=len(purged))


def _sweep(connection: Connection, now: float, limit: int) -> int:
    """Ends what was invalidated. Of each scope all is looked for when it is invalidated, when it is settled, and before it is forgotten:
    not at each turn, because to look takes time for each entry of the namespace."""
    ended = 0
    for scope in connection.execute(
        select(epochs).where(epochs.c.next_sweep_at <= now).order_by(epochs.c.next_sweep_at).limit(limit)
    ).all():
        overtaken = connection.scalars(_overtaken(scope).limit(limit - ended)).all()
        end(connection, overtaken, now)
        ended += len(overtaken)
        if ended == limit:  # it may have more
            break
        _swept(connection, scope, now)
    return ended


def _overtaken(scope: Row[*tuple[Any, ...]]) -> Select[str]:
    """Ids of what is not dead and was invalidated with this scope."""
    is_own: ColumnElement[bool] = entries.c.namespace == scope.namespace
    is_meant: ColumnElement[bool] = true()
    if scope.scope.startswith(model_scope("")):
        is_meant = entries.c.model == scope.scope.removeprefix(model_scope(""))
    elif scope.scope.startswith(tag_scope("")):
        tagged = select(tags.c.entry_id).where(tags.c.tag == scope.scope.removeprefix(tag_scope("")))
        is_own, is_meant = entries.c.namespace.concat("") == scope.namespace, entries.c.id.in_(tagged)  # by the tag's index
    return select(entries.c.id).where(is_own, entries.c.state != DEAD, entries.c.epoch < scope.epoch, is_meant)


def _swept(connection: Connection, scope: Row[*tuple[Any, ...]], now: float) -> None:
    this = (epochs.c.namespace == scope.namespace, epochs.c.scope == scope.scope, epochs.c.epoch == scope.epoch)  # not a later one
    if now >= scope.raised_at + LONGEST_REQUEST_S:
        connection.execute(delete(epochs).where(*this))
    else:
        wait_s = SETTLED_S if now < scope.raised_at + SETTLED_S else LONGEST_REQUEST_S
        connection.execute(update(epochs).where(*this).values(next_sweep_at=scope.raised_at + wait_s))


def evict(connection: Connection, namespace: str | None, quota: Quota, now: float) -> int:
    """See `cache.stores.base.EntryStore.evict`."""
    held = (entries.c.state != DEAD, _within(namespace))
    worst = select(entries.c.id, entries.c.size).where(*held).order_by(entries.c.value, entries.c.id).limit(BATCH)
    count, size = _held(connection, namespace, quota)
    ended = 0
    while _exceeds(quota, count, size):
        going = []
        for row in connection.execute(worst).all():
            if not _exceeds(quota, count, size):
                break
            going.append(row.id)
            count, size = count - 1, size - row.size
        end(connection, going, now)
        ended += len(going)
    return ended


def is_exceeded(connection: Connection, namespace: str | None, quota: Quota) -> bool:
    """Whether there is something to evict."""
    return _exceeds(quota, *_held(connection, namespace, quota))


def _exceeds(quota: Quota, count: int, size: int) -> bool:
    too_many = quota.max_entries is not None and count > quota.max_entries
    return too_many or (quota.max_bytes is not None and size > quota.max_bytes)


def _held(connection: Connection, namespace: str | None, quota: Quota) -> tuple[int, int]:
    """Entries and bytes; no bytes where none are limited: an index alone then counts the entries of the whole store, too."""
    size = literal(0) if quota.max_bytes is None else func.coalesce(func.sum(entries.c.size), 0)
    row = connection.execute(select(func.count(), size).where(entries.c.state.in_((PENDING, LIVE)), _within(namespace))).one()
    return row[0], int(row[1])


def _within(namespace: str | None) -> ColumnElement[bool]:
    return true() if namespace is None else entries.c.namespace == namespace


def _ids(connection: Connection, query: Select[str]) -> Sequence[str]:
    return connection.scalars(query.with_for_update(skip_locked=True)).all()


def _remove(connection: Connection, ids: Sequence[str]) -> None:
    for part in batches(ids):
        for table in (tags, observations, denials):
            connection.execute(delete(table).where(table.c.entry_id.in_(part)))
        connection.execute(delete(entries).where(entries.c.id.in_(part)))
