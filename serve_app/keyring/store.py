"""Keys and tenants in a SQL database, and the record of what was done to them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from cache.database import Database
from cache.migrate import migrate
from serve_app.config import AppConfig
from serve_app.errors import KeyringError, NotFoundError
from serve_app.keyring import secret
from serve_app.keyring.schema import audit, keys, revision, tenants
from serve_app.keyring.settings import AuditRecord, KeyInfo, KeySettings, TenantSettings

T = TypeVar("T")
MIGRATIONS = Path(__file__).parent / "migrations"


@dataclass(frozen=True, slots=True)
class Known:
    """What is needed to tell whether a text is this key's."""

    info: KeyInfo
    digest: str
    old_digest: str | None
    old_until: float


def keyring_url(config: AppConfig) -> str:
    """SQLAlchemy URL of the keys' database. It holds the password, if there is one."""
    return config.url_of(config.auth.database_url, "keyring.db")


def open_keyring(url: str) -> "KeyStore":
    """The store behind an SQLAlchemy URL, with its tables as they are today. Raises `KeyringError`."""
    # Full synchronous, SQLite's default, stays on: a revocation that was answered must not be lost.
    database = Database(url, KeyringError)
    migrate(database, MIGRATIONS, "mygo-keyring-migrations")
    return KeyStore(database)


class KeyStore:
    """Any call may raise `KeyringError`. `actor`: see `AuditRecord`; `now`: seconds since the epoch."""

    def __init__(self, database: Database) -> None:
        """`database`: with the tables, see `open_keyring`; `close` closes it."""
        self._database = database

    def revision(self) -> int:
        """Another one after each change of a key or a tenant."""
        with self._database.read() as connection:
            found: int | None = connection.scalar(select(revision.c.revision))
        return found or 0

    def find(self, key_id: str) -> tuple[Known, TenantSettings] | None:
        """A key, whatever its state, with what its tenant's keys have together."""
        joined = keys.outerjoin(tenants, tenants.c.name == keys.c.tenant)
        query = select(keys, tenants.c.settings.label("shared")).select_from(joined).where(keys.c.id == key_id)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        return Known(_info(row), row.digest, row.old_digest, row.old_until or 0.0), _tenant(row.shared)

    def create(self, settings: KeySettings, actor: str, now: float) -> tuple[KeyInfo, str]:
        """The key and its text, which nobody can find out again."""
        key_id = secret.new_id()
        text = secret.new_key(key_id)
        columns = {"id": key_id, "tenant": settings.tenant, "digest": secret.digest(text), "settings": _built(settings), "created_at": now}

        def work(connection: Connection) -> None:
            _note(connection, actor, "key.create", f"key:{key_id}", _built(settings), now)
            connection.execute(insert(keys), columns)

        self._database.transact(work)
        return KeyInfo(id=key_id, settings=settings, created_at=now), text

    def change(self, key_id: str, change: Callable[[KeySettings], KeySettings], actor: str, now: float) -> KeyInfo:
        """Raises `NotFoundError`, and what `change` raises."""

        def work(connection: Connection, info: KeyInfo) -> dict[str, Any]:
            after = change(info.settings)
            _note(connection, actor, "key.change", f"key:{key_id}", _differences(info.settings, after), now)
            return {"settings": _built(after)}

        return self._edit(key_id, work)

    def rotate(self, key_id: str, keep_old_s: float, actor: str, now: float) -> tuple[KeyInfo, str]:
        """A new text for the key; the old one is good for `keep_old_s` seconds more. Raises `NotFoundError`, also for a revoked key."""
        text = secret.new_key(key_id)

        def work(connection: Connection, info: KeyInfo) -> dict[str, Any]:
            if info.revoked_at is not None:
                raise _no_key()
            _note(connection, actor, "key.rotate", f"key:{key_id}", {"keep_old_s": keep_old_s}, now)
            old = connection.scalar(select(keys.c.digest).where(keys.c.id == key_id))
            return {"old_digest": old, "old_until": now + keep_old_s, "rotated_at": now, "digest": secret.digest(text)}

        return self._edit(key_id, work), text

    def revoke(self, key_id: str, actor: str, now: float) -> KeyInfo:
        """For good. Doing it again changes nothing. Raises `NotFoundError`."""

        def work(connection: Connection, info: KeyInfo) -> dict[str, Any]:
            if info.revoked_at is not None:
                return {}
            _note(connection, actor, "key.revoke", f"key:{key_id}", {}, now)
            return {"revoked_at": now}

        return self._edit(key_id, work)

    def get(self, key_id: str) -> KeyInfo:
        """Raises `NotFoundError`."""
        with self._database.read() as connection:
            return _info(_row(connection, key_id))

    def keys(self, tenant: str | None, after: str, limit: int) -> list[KeyInfo]:
        """Keys in the order of their ids, behind `after`."""
        query = select(keys).where(keys.c.id > after).order_by(keys.c.id).limit(limit)
        if tenant is not None:
            query = query.where(keys.c.tenant == tenant)
        with self._database.read() as connection:
            return [_info(row) for row in connection.execute(query)]

    def tenant(self, name: str) -> TenantSettings:
        """As for all, if nothing was said of it."""
        with self._database.read() as connection:
            return _tenant(connection.scalar(select(tenants.c.settings).where(tenants.c.name == name)))

    def change_tenant(self, name: str, change: Callable[[TenantSettings], TenantSettings], actor: str, now: float) -> TenantSettings:
        """Raises what `change` raises."""
        own = tenants.c.name == name

        def work(connection: Connection) -> TenantSettings:
            found = connection.scalar(select(tenants.c.settings).where(own).with_for_update())
            before, after = _tenant(found), change(_tenant(found))
            _note(connection, actor, "tenant.change", f"tenant:{name}", _differences(before, after), now)
            if found is None:
                connection.execute(insert(tenants), {"name": name, "settings": _built(after)})
            else:
                connection.execute(update(tenants).where(own).values(settings=_built(after)))
            return after

        return self._database.transact(work)

    def tenants(self, after: str, limit: int) -> list[tuple[str, TenantSettings]]:
        """Those of which something was said, in the order of their names, behind `after`."""
        query = select(tenants).where(tenants.c.name > after).order_by(tenants.c.name).limit(limit)
        with self._database.read() as connection:
            return [(row.name, _tenant(row.settings)) for row in connection.execute(query)]

    def audit(self, before: int | None, limit: int) -> list[AuditRecord]:
        """The newest first; `before`: older than the record of this number."""
        query = select(audit).order_by(audit.c.seq.desc()).limit(limit)
        if before is not None:
            query = query.where(audit.c.seq < before)
        with self._database.read() as connection:
            return [AuditRecord(**row._mapping) for row in connection.execute(query)]

    def used(self, times: Mapping[str, float]) -> None:
        """When keys were used last, by id. No change that others have to hear of."""

        def work(connection: Connection) -> None:
            for key_id, at in sorted(times.items()):
                connection.execute(update(keys).where(keys.c.id == key_id).values(last_used_at=at))

        if times:
            self._database.transact(work)

    def close(self) -> None:
        self._database.close()

    def _edit(self, key_id: str, work: Callable[[Connection, KeyInfo], dict[str, Any]]) -> KeyInfo:
        """The key after `work` has said which columns change."""

        def edit(connection: Connection) -> KeyInfo:
            changes = work(connection, _info(_row(connection, key_id, is_locked=True)))
            if changes:
                connection.execute(update(keys).where(keys.c.id == key_id).values(changes))
            return _info(_row(connection, key_id))

        return self._database.transact(edit)


def _row(connection: Connection, key_id: str, *, is_locked: bool = False) -> Row[Any]:
    query = select(keys).where(keys.c.id == key_id)
    row = connection.execute(query.with_for_update() if is_locked else query).one_or_none()
    if row is None:
        raise _no_key()
    return row


def _note(connection: Connection, actor: str, action: str, target: str, details: dict[str, Any], now: float) -> None:
    """Part of every change. The revision's row lets one change in at a time, so that records are numbered as the changes were made."""
    connection.execute(update(revision).values(revision=revision.c.revision + 1))
    connection.execute(insert(audit), {"at": now, "actor": actor, "action": action, "target": target, "details": details})


def _info(row: Row[Any]) -> KeyInfo:
    times = {name: row._mapping[name] for name in ("created_at", "rotated_at", "revoked_at", "last_used_at")}
    return KeyInfo(id=row.id, settings=msgspec.convert(row.settings, KeySettings), **times)


def _tenant(settings: Any) -> TenantSettings:
    return TenantSettings() if settings is None else msgspec.convert(settings, TenantSettings)


def _built(settings: KeySettings | TenantSettings) -> dict[str, Any]:
    built: dict[str, Any] = msgspec.to_builtins(settings)
    return built


def _differences(before: KeySettings | TenantSettings, after: KeySettings | TenantSettings) -> dict[str, Any]:
    was, built = _built(before), _built(after)
    return {name: value for name, value in built.items() if value != was[name]}


def _no_key() -> NotFoundError:
    return NotFoundError("There is no such key.", param="key_id", code="not_found")
