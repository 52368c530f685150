"""What was learnt of kept answers: observations for the verified decision, and pairs that feedback forbids."""

from dataclasses import asdict, dataclass

from sqlalchemy import Connection, case, delete, func, insert, select

from cache.database import Database
from cache.guards.normal import normal_key
from cache.stores.schema import audits, denials, observations

MAX_PER_ENTRY = 64
"""Older observations of an entry say little that the newer ones do not."""


@dataclass(frozen=True, slots=True)
class Observation:
    """Whether the entry's answer would have been right for another question. `kind` and `score` as in `cache.cascade.Decision`."""

    namespace: str
    entry_id: str
    kind: str
    score: float
    correct: bool
    created_at: float
    scorer: str
    """Names verifier and embedder: the scores of others mean something else."""


class SqlEvidenceStore:
    """Observations and denials, which go with their entry, and audits, which stay. Every call may raise `StoreError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def observe(self, seen: Observation, *, audited: bool = False) -> None:
        """`audited`: the answer had been served as a hit; otherwise it was computed anew to learn."""

        def work(connection: Connection) -> None:
            connection.execute(insert(observations), asdict(seen))
            if audited:
                connection.execute(insert(audits), {"namespace": seen.namespace, "correct": seen.correct, "created_at": seen.created_at})

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

    def of_entry(self, entry_id: str, kind: str, scorer: str) -> list[Observation]:
        """The newest `MAX_PER_ENTRY` of an entry, newest first."""
        same = (observations.c.entry_id == entry_id, observations.c.kind == kind, observations.c.scorer == scorer)
        query = select(*_COLUMNS).where(*same).order_by(observations.c.seq.desc()).limit(MAX_PER_ENTRY)
        with self._database.read() as connection:
            return [Observation(*row) for row in connection.execute(query)]

    def mark(self, namespace: str | None, newest: int) -> int:
        """The mark behind which there are the newest observations of the namespace (None: of everybody), so many at most."""
        query = select(observations.c.seq).order_by(observations.c.seq.desc()).offset(newest).limit(1)
        with self._database.read() as connection:
            return connection.scalar(query if namespace is None else query.where(observations.c.namespace == namespace)) or 0

    def behind(self, mark: int, namespace: str | None, scorer: str, limit: int) -> tuple[list[Observation], int]:
        """At most `limit` observations of the namespace (None: of everybody) behind a mark, oldest first, and the mark behind them."""
        query = select(observations.c.seq, *_COLUMNS).where(observations.c.seq > mark, observations.c.scorer == scorer)
        if namespace is not None:
            query = query.where(observations.c.namespace == namespace)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(observations.c.seq).limit(limit)).all()
        return [Observation(*row[1:]) for row in rows], rows[-1].seq if rows else mark

    def deny(self, entry_id: str, question: str, now: float) -> None:
        """The entry must never answer this question again, nor what has its normal form. Saying it twice is harmless."""
        row = {"entry_id": entry_id, "question": normal_key(question), "created_at": now}

        def work(connection: Connection) -> None:
            same = (denials.c.entry_id == entry_id, denials.c.question == row["question"])
            if connection.execute(select(denials.c.entry_id).where(*same)).first() is None:
                connection.execute(insert(denials), row)

        self._database.transact(work)


_COLUMNS = [observations.c[name] for name in ("namespace", "entry_id", "kind", "score", "correct", "created_at", "scorer")]
