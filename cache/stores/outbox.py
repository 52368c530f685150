"""The outbox: which entries the vector index has still to hear of.

A line names an entry, not what happened to it: whoever applies it asks what the entry is *now*. So lines may be applied twice
and in any order (transactional outbox, https://microservices.io/patterns/data/transactional-outbox.html).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Row, delete, exists, func, insert, select, update

from cache.entry import Vector
from cache.stores.base import Change
from cache.stores.schema import DEAD, LIVE, PENDING, entries, outbox
from cache.vectors.base import VectorRecord

RECORD = (entries.c.id, entries.c.namespace, entries.c.fingerprint, entries.c.vector)


def add(connection: Connection, ids: Sequence[str]) -> None:
    if ids:
        connection.execute(insert(outbox), [{"entry_id": entry_id, "claimed_until": 0.0} for entry_id in ids])


def has_line() -> ColumnElement[bool]:
    return exists().where(outbox.c.entry_id == entries.c.id)


def size(connection: Connection) -> int:
    return connection.scalar(select(func.count()).select_from(outbox)) or 0


def claim(connection: Connection, limit: int, now: float, hold_s: float, embedder: str) -> list[Change]:
    # Workers pass over each other's lines instead of waiting for them; a worker that died loses its own after `hold_s`.
    free = select(outbox.c.seq, outbox.c.entry_id).where(outbox.c.claimed_until <= now).order_by(outbox.c.seq).limit(limit)
    lines = connection.execute(free.with_for_update(skip_locked=True)).all()
    if not lines:
        return []
    connection.execute(update(outbox).where(outbox.c.seq.in_([line.seq for line in lines])).values(claimed_until=now + hold_s))
    wanted = (entries.c.id.in_({line.entry_id for line in lines}), entries.c.state != DEAD, entries.c.embedder == embedder)
    records = {row.id: record(row) for row in connection.execute(select(*RECORD).where(*wanted, entries.c.vector.is_not(None)))}
    return [Change(line.seq, line.entry_id, records.get(line.entry_id)) for line in lines]


def confirm(connection: Connection, changes: Sequence[Change]) -> None:
    upserted = [change.entry_id for change in changes if change.record is not None]
    connection.execute(update(entries).where(entries.c.id.in_(upserted), entries.c.state == PENDING).values(state=LIVE))
    alive = set(connection.scalars(select(entries.c.id).where(entries.c.id.in_(upserted), entries.c.state == LIVE)))
    done = [change.seq for change in changes if change.record is None or change.entry_id in alive]
    connection.execute(delete(outbox).where(outbox.c.seq.in_(done)))
    again = [change.seq for change in changes if change.record is not None and change.entry_id not in alive]
    connection.execute(update(outbox).where(outbox.c.seq.in_(again)).values(claimed_until=0.0))


def record(row: Row[*tuple[Any, ...]]) -> VectorRecord:
    vector: Vector = np.frombuffer(row.vector, "<f4").astype(np.float32)
    return VectorRecord(row.id, row.namespace, row.fingerprint, vector)
