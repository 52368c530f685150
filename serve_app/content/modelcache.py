"""Content rules for ModelCache's protocol: no engine answers it, so what clients bring and are given is checked here."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from serve_app.content.base import Matcher
from serve_app.content.guard import LONG_BYTES, Content, Guard
from serve_app.content.stream import passed
from serve_app.modelcache.backend import BackendError, CacheBackend, Hit, Message, QueryRecord
from serve_app.tenants import name_of


class _BlockedError(Exception):
    """A text is against a rule; the message is its name."""


class RuledBackend:
    """A `CacheBackend` before another one. The moderation model judges nothing here."""

    def __init__(self, backend: CacheBackend, content: Content) -> None:
        self._backend = backend
        self._content = content

    async def query(self, tenant: str | None, model: str, messages: Sequence[Message]) -> Hit | None:
        """A question or an answer that is against a rule is a miss."""
        guard = self._guard(tenant)
        try:
            hit = await self._backend.query(tenant, model, await self._question(guard, messages))
            return None if hit is None else replace(hit, answer=await self._checked(guard, guard.answer if guard else None, hit.answer))
        except _BlockedError:
            return None

    async def insert(self, tenant: str | None, model: str, items: Sequence[tuple[Sequence[Message], str]]) -> list[str]:
        """All of them, or none."""
        guard = self._guard(tenant)
        try:
            checked = [
                (await self._question(guard, messages), await self._checked(guard, guard.answer if guard else None, answer))
                for messages, answer in items
            ]
        except _BlockedError as error:
            raise BackendError(f"a text is against the content rule {error}") from None
        return await self._backend.insert(tenant, model, checked)

    async def delete(self, tenant: str | None, model: str, ids: Sequence[str]) -> int:
        return await self._backend.delete(tenant, model, ids)

    async def truncate(self, tenant: str | None, model: str) -> int | None:
        return await self._backend.truncate(tenant, model)

    async def register(self, tenant: str | None, model: str) -> bool:
        return await self._backend.register(tenant, model)

    async def log(self, records: Sequence[QueryRecord]) -> None:
        await self._backend.log([await self._logged(record) for record in records])

    async def _logged(self, record: QueryRecord) -> QueryRecord:
        guard = self._guard(record.tenant)
        try:
            return replace(record, query=await self._checked(guard, guard.prompt if guard else None, record.query))
        except _BlockedError:
            return replace(record, query="")

    def _guard(self, tenant: str | None) -> Guard | None:
        return self._content.of(name_of(tenant))

    async def _question(self, guard: Guard | None, messages: Sequence[Message]) -> Sequence[Message]:
        rules = guard.prompt if guard else None
        return [{**each, "content": await self._checked(guard, rules, each["content"])} if "content" in each else each for each in messages]

    async def _checked(self, guard: Guard | None, rules: Matcher | None, value: Any) -> Any:
        """A text, or what has texts in it, as it may go on. Raises `_BlockedError`."""
        if guard is None or rules is None:
            return value
        met: list[Any] = []

        def text(given: str) -> str:
            found, stream = passed(given, rules)
            met.extend(stream.matched)
            if stream.blocked_by:
                raise _BlockedError(stream.blocked_by.name)
            return found

        try:
            is_long = not isinstance(value, str) or len(value) > LONG_BYTES
            return await asyncio.to_thread(_mapped, value, text) if is_long else text(value)
        finally:
            for rule in met:
                guard.met(rule)


def _mapped(value: Any, text: Callable[[str], str]) -> Any:
    """The same with every text in it, at whatever depth, as `text` makes it."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, list):
        return [_mapped(each, text) for each in value]
    return {key: _mapped(each, text) for key, each in value.items()} if isinstance(value, dict) else value
