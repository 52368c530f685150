"""Kept contexts in a SQL database: what they say, whose they are, and how long they live."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, and_, delete, func, insert, select, update

from cache.database import Database
from cache.migrate import migrate
from retrieval.documents import Page
from retrieval.rows import page_of
from serve_app.config import AppConfig
from serve_app.contexts.schema import contexts, tags
from serve_app.errors import ContextStoreError, NotFoundError, QuotaError

MIGRATIONS = Path(__file__).parent / "migrations"
PREFIX = "cache-"
"""Of ids, which are made by `retrieval.documents.new_id`."""
PURGED = 100
"""Rows at a time."""
MAX_TAGS = 1000
"""Of one tenant."""
MAX_CONTEXTS = 128
"""Of one tenant that live at the same time."""


@dataclass(frozen=True, slots=True)
class Context:
    """The beginning of chats. Times are seconds since the epoch."""

    id: str
    namespace: str
    model: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    name: str
    description: str
    metadata: dict[str, str]
    tokens: int
    """That are kept of its prompt."""
    created_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class Tag:
    tag: str
    context_id: str
    created_at: float


def contexts_url(config: AppConfig) -> str:
    """SQLAlchemy URL of the contexts' database. It holds the password, if there is one."""
    return config.url_of(config.contexts.database_url, "contexts.db")


def open_contexts(url: str) -> "ContextStore":
    """The store behind an SQLAlchemy URL, with its tables as they are today. Raises `ContextStoreError`."""
    database = Database(url, ContextStoreError)
    migrate(database, MIGRATIONS, "mygo-contexts-migrations")
    return ContextStore(database)


class ContextStore:
    """Any call may raise `ContextStoreError`. `now`: seconds since the epoch; what is past its end is as if it were not there."""

    def __init__(self, database: Database) -> None:
        """`database`: with the tables, see `open_contexts`; `close` closes it."""
        self._database = database

    def create(self, context: Context, tagged: Sequence[str], max_tokens: int | None) -> None:
        """Raises `QuotaError` if the tenant's contexts would have more tokens than `max_tokens`, or were too many."""
        row = {
            **{name: getattr(context, name) for name in ("id", "namespace", "model", "name", "description", "tokens")},
            "messages": _text(context.messages),
            "tools": None if context.tools is None else _text(context.tools),
            "labels": _text(context.metadata),
            "created_at": context.created_at,
            "expires_at": context.expires_at,
        }

        def work(connection: Connection) -> None:
            live = and_(contexts.c.namespace == context.namespace, contexts.c.expires_at > context.created_at)
            count, tokens = connection.execute(select(func.count(), func.coalesce(func.sum(contexts.c.tokens), 0)).where(live)).one()
            if count >= MAX_CONTEXTS:
                raise QuotaError(f"At most {MAX_CONTEXTS} contexts can be kept at the same time: delete one.", code="context_quota")
            if max_tokens is not None and tokens + context.tokens > max_tokens:
                raise over_quota(context.tokens, max_tokens)
            connection.execute(insert(contexts), row)
            for tag in tagged:
                _set_tag(connection, context.namespace, tag, context.id, context.created_at)

        self._database.transact(work)

    def get(self, namespace: str, context_id: str, now: float) -> Context:
        """Raises `NotFoundError`."""
        with self._database.read() as connection:
            return _context(_row(connection, namespace, context_id, now))

    def page(self, namespace: str, page: Page, now: float) -> list[Context]:
        query = page_of(select(contexts).where(contexts.c.namespace == namespace, contexts.c.expires_at > now), contexts.c.id, page)
        with self._database.read() as connection:
            return [_context(row) for row in connection.execute(query)]

    def change(self, namespace: str, context_id: str, expires_at: float | None, metadata: dict[str, str] | None, now: float) -> Context:
        """Raises `NotFoundError`."""

        def work(connection: Connection) -> Context:
            found = _context(_row(connection, namespace, context_id, now))
            changed = replace(
                found,
                expires_at=found.expires_at if expires_at is None else expires_at,
                metadata=found.metadata if metadata is None else metadata,
            )
            values = {"expires_at": changed.expires_at, "labels": _text(changed.metadata)}
            connection.execute(update(contexts).where(contexts.c.id == context_id).values(values))
            return changed

        return self._database.transact(work)

    def put_off(self, namespace: str, context_id: str, expires_at: float, now: float) -> None:
        """A new end for a context that lives; nothing for any other."""
        mine = and_(contexts.c.id == context_id, contexts.c.namespace == namespace, contexts.c.expires_at > now)
        self._database.transact(lambda connection: connection.execute(update(contexts).where(mine).values(expires_at=expires_at)) and None)

    def delete(self, namespace: str, context_id: str, now: float) -> None:
        """And its tags. Raises `NotFoundError`."""

        def work(connection: Connection) -> None:
            _row(connection, namespace, context_id, now)
            _delete(connection, [context_id])

        self._database.transact(work)

    def live(self, now: float) -> dict[str, float]:
        """When each context of all tenants ends, by id."""
        with self._database.read() as connection:
            rows = connection.execute(select(contexts.c.id, contexts.c.expires_at).where(contexts.c.expires_at > now)).all()
        return {row.id: row.expires_at for row in rows}

    def read(self, ids: Sequence[str]) -> list[Context]:
        """Those of them that are there, whoever's."""
        with self._database.read() as connection:
            return [_context(row) for row in connection.execute(select(contexts).where(contexts.c.id.in_(ids)))]

    def purge(self, now: float, limit: int = PURGED) -> int:
        """Deletes what is past its end, at most so many. Returns how many there were."""
        with self._database.read() as connection:
            ids = list(connection.scalars(select(contexts.c.id).where(contexts.c.expires_at <= now).limit(limit)))
        if ids:
            self._database.transact(lambda connection: _delete(connection, ids))
        return len(ids)

    def set_tag(self, namespace: str, tag: str, context_id: str, now: float) -> Tag:
        """Raises `NotFoundError` if there is no such context."""

        def work(connection: Connection) -> Tag:
            _row(connection, namespace, context_id, now)
            _set_tag(connection, namespace, tag, context_id, now)
            return Tag(tag, context_id, now)

        return self._database.transact(work)

    def tag(self, namespace: str, tag: str) -> Tag:
        """Raises `NotFoundError`."""
        with self._database.read() as connection:
            row = connection.execute(select(tags).where(tags.c.namespace == namespace, tags.c.tag == tag)).one_or_none()
        if row is None:
            raise NotFoundError("There is no such tag.", param="tag", code="not_found")
        return Tag(row.tag, row.context_id, row.created_at)

    def tags(self, namespace: str) -> list[Tag]:
        """By name."""
        with self._database.read() as connection:
            rows = connection.execute(select(tags).where(tags.c.namespace == namespace).order_by(tags.c.tag)).all()
        return [Tag(row.tag, row.context_id, row.created_at) for row in rows]

    def delete_tag(self, namespace: str, tag: str) -> None:
        """Whether it is there or not."""
        self._database.transact(
            lambda connection: connection.execute(delete(tags).where(tags.c.namespace == namespace, tags.c.tag == tag)) and None
        )

    def close(self) -> None:
        self._database.close()


def over_quota(tokens: int, most: int) -> QuotaError:
    return QuotaError(
        f"{tokens} tokens more would be over the {most} that this tenant may have kept: delete contexts, or wait for their end.",
        code="context_quota",
    )


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _context(row: Row[Any]) -> Context:
    columns = row._mapping
    tools = None if row.tools is None else msgspec.json.decode(row.tools)
    names = ("id", "namespace", "model", "name", "description", "tokens", "created_at", "expires_at")
    return Context(
        **{name: columns[name] for name in names},
        messages=msgspec.json.decode(row.messages),
        tools=tools,
        metadata=msgspec.json.decode(row.labels),
    )


def _row(connection: Connection, namespace: str, context_id: str, now: float) -> Row[Any]:
    query = select(contexts).where(contexts.c.id == context_id, contexts.c.namespace == namespace, contexts.c.expires_at > now)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise no_context()
    return row


def no_context() -> NotFoundError:
    return NotFoundError("There is no such context, or its time is over.", param="cache_id", code="context_not_found")


def _set_tag(connection: Connection, namespace: str, tag: str, context_id: str, now: float) -> None:
    others = select(func.count()).where(tags.c.namespace == namespace, tags.c.tag != tag)
    if (connection.scalar(others) or 0) >= MAX_TAGS:
        raise QuotaError(f"At most {MAX_TAGS} tags can be given: delete one.", code="context_quota")
    connection.execute(delete(tags).where(tags.c.namespace == namespace, tags.c.tag == tag))
    connection.execute(insert(tags), {"namespace": namespace, "tag": tag, "context_id": context_id, "created_at": now})


def _delete(connection: Connection, ids: Sequence[str]) -> None:
    connection.execute(delete(tags).where(tags.c.context_id.in_(ids)))
    connection.execute(delete(contexts).where(contexts.c.id.in_(ids)))
