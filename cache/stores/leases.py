"""Leases: which process computes the answer to a request, so that equal requests are computed once in the whole cluster."""

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from cache.database import Database
from cache.stores.schema import leases


class SqlLeaseStore:
    """A lease belongs to an owner until a time; when that has passed, whoever asks first gets it. Every call may raise `StoreError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def acquire(self, namespace: str, exact_key: str, owner: str, now: float, for_s: float) -> bool:
        """Takes the lease, or prolongs one's own. False: somebody else has it."""
        here = _of(namespace, exact_key)

        def work(connection: Connection) -> bool:
            held = connection.execute(select(leases.c.owner, leases.c.expires_at).where(*here).with_for_update()).first()
            if held is not None and held.owner != owner and held.expires_at > now:
                return False
            if held is None:
                row = {"namespace": namespace, "exact_key": exact_key, "owner": owner, "expires_at": now + for_s}
                connection.execute(insert(leases), row)
            else:
                connection.execute(update(leases).where(*here).values(owner=owner, expires_at=now + for_s))
            return True

        return self._database.transact(work)

    def release(self, namespace: str, exact_key: str, owner: str) -> None:
        """Gives the lease back. One that has passed to another owner stays there."""
        self._database.transact(
            lambda connection: connection.execute(delete(leases).where(*_of(namespace, exact_key), leases.c.owner == owner))
        )

    def collect(self, now: float) -> None:
        """Removes leases whose time is over."""
        self._database.transact(lambda connection: connection.execute(delete(leases).where(leases.c.expires_at <= now)))


def _of(namespace: str, exact_key: str) -> list[ColumnElement[bool]]:
    return [leases.c.namespace == namespace, leases.c.exact_key == exact_key]
