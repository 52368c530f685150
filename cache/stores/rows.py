"""Changes that several operations have in common."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects import mysql, sqlite

from cache.stores import outbox
from cache.stores.schema import DEAD, entries, epochs

BATCH = 500
COUNTER = ""
"""The scope of a namespace's own counter."""


def batches(ids: Sequence[str]) -> list[Sequence[str]]:
    """Parts that fit a statement."""
    return [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]


def end(connection: Connection, ids: Sequence[str], now: float) -> None:
    """Makes tombstones, and tells the index."""
    for part in batches(ids):
        dead = {"state": DEAD, "live_key": None, "ended_at": now}
        connection.execute(update(entries).where(entries.c.id.in_(part)).values(dead))
        with_vector = connection.scalars(select(entries.c.id).where(entries.c.id.in_(part), entries.c.vector.is_not(None))).all()
        outbox.add(connection, with_vector)


def raise_epoch(connection: Connection, namespace: str, now: float) -> int:
    """The namespace's next epoch. Whoever raises it too waits for this transaction's end: no two get one number."""
    row = {"namespace": namespace, "scope": COUNTER, "epoch": 1, "raised_at": now}
    connection.execute(_upsert(connection, row))
    counter = (epochs.c.namespace == namespace, epochs.c.scope == COUNTER)
    return connection.scalar(select(epochs.c.epoch).where(*counter).with_for_update()) or 1


def _upsert(connection: Connection, row: dict[str, Any]) -> Any:
    raised = {"epoch": epochs.c.epoch + 1, "raised_at": row["raised_at"]}
    if connection.dialect.name == "sqlite":
        return sqlite.insert(epochs).values(row).on_conflict_do_update(index_elements=["namespace", "scope"], set_=raised)
    return mysql.insert(epochs).values(row).on_duplicate_key_update(raised)
