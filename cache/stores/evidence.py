"""What was learnt of kept answers: observations for the verified decision, and pairs that feedback forbids."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, insert, select

from cache.database import Database
from cache.stores.schema import denials, observations

MAX_PER_ENTRY = 64
"""Older observations of an entry say little that the newer ones do not."""


@dataclass(frozen=True, slots=True)
class Observation:
    """Whether the entry's answer would have been right for another question. `score`: as `cache.decision` defines it for the kind."""

    namespace: str
    entry_id: str
    kind: str
    score: float
    correct: bool
    created_at: float
    weight: float = 1.0
    served: bool = False
    """The answer had been served as a hit: an audit or a complaint. Otherwise it was computed anew to learn."""


class SqlEvidenceStore:
    """Observations and denials. They go with their entry. Every call may raise `StoreError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def observe(self, seen: Sequence[Observation]) -> None:
        if seen:
            self._database.transact(lambda connection: connection.execute(insert(observations), [asdict(each) for each in seen]))

    def of_entries(self, ids: Sequence[str]) -> dict[str, list[Observation]]:
        """The newest `MAX_PER_ENTRY` observations of each entry, newest first."""
        query = select(*_COLUMNS).where(observations.c.entry_id.in_(ids)).order_by(observations.c.seq.desc())
        found: defaultdict[str, list[Observation]] = defaultdict(list)
        with self._database.read() as connection:
            for row in connection.execute(query.limit(MAX_PER_ENTRY * max(1, len(ids)))):
                found[row.entry_id].append(Observation(**row._mapping))
        return {entry_id: each[:MAX_PER_ENTRY] for entry_id, each in found.items()}

    def recent(self, namespace: str | None, limit: int, after: int = 0) -> tuple[list[Observation], int]:
        """At most `limit` of the namespace's observations (None: everybody's) behind the mark `after`, oldest first, and the new mark."""
        query = select(observations.c.seq, *_COLUMNS).where(observations.c.seq > after)
        if namespace is not None:
            query = query.where(observations.c.namespace == namespace)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(observations.c.seq).limit(limit)).all()
        return [Observation(*row[1:]) for row in rows], rows[-1].seq if rows else after

    def deny(self, entry_id: str, question: str, now: float) -> None:
        """The entry must never answer this question again. Saying it twice is harmless."""
        row = {"entry_id": entry_id, "question": question_hash(question), "created_at": now}

        def work(connection: Connection) -> None:
            same = (denials.c.entry_id == entry_id, denials.c.question == row["question"])
            if connection.execute(select(denials.c.entry_id).where(*same)).first() is None:
                connection.execute(insert(denials), row)

        self._database.transact(work)

    def denied(self, ids: Sequence[str], question: str) -> set[str]:
        """Which of these entries must not answer the question."""
        query = select(denials.c.entry_id).where(denials.c.entry_id.in_(ids), denials.c.question == question_hash(question))
        with self._database.read() as connection:
            return set(connection.scalars(query))


def question_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


_COLUMNS = [observations.c[name] for name in ("namespace", "entry_id", "kind", "score", "correct", "created_at", "weight", "served")]
