"""What was learnt of kept answers: observations for the verified decision, and pairs that feedback forbids."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, bindparam, case, delete, func, insert, select

from cache.database import Database
from cache.stores.schema import audits, denials, observations

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
    """Observations and denials, which go with their entry, and audits, which stay. Every call may raise `StoreError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def observe(self, seen: Sequence[Observation]) -> None:
        """Keeps them; what was served counts as audited."""
        audited = [{"namespace": each.namespace, "correct": each.correct, "created_at": each.created_at} for each in seen if each.served]

        def work(connection: Connection) -> None:
            connection.execute(insert(observations), [asdict(each) for each in seen])
            if audited:
                connection.execute(insert(audits), audited)

        if seen:
            self._database.transact(work)

    def audited(self, namespace: str, since: float) -> tuple[int, int]:
        """How many of the namespace's hits were audited since a time, and how many of them were wrong."""
        wrong = func.coalesce(func.sum(case((audits.c.correct, 0), else_=1)), 0)
        query = select(func.count(), wrong).where(audits.c.namespace == namespace, audits.c.created_at >= since)
        with self._database.read() as connection:
            number, of_these = connection.execute(query).one()
        return int(number), int(of_these)

    def forget_audits(self, before: float) -> None:
        """Removes audits that are older."""
        self._database.transact(lambda connection: connection.execute(delete(audits).where(audits.c.created_at < before)))

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
        with self._database.read() as connection:
            return set(connection.scalars(_DENIED, {"ids": list(ids), "question": question_hash(question)}))


def question_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


_DENIED = select(denials.c.entry_id).where(
    denials.c.entry_id.in_(bindparam("ids", expanding=True)), denials.c.question == bindparam("question")
)
_COLUMNS = [observations.c[name] for name in ("namespace", "entry_id", "kind", "score", "correct", "created_at", "weight", "served")]
