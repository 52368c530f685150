"""ModelCache's protocol on the shared cache.

`scope.model` is a partition of the tenant's own: part of the fingerprint, and the entry's model under a prefix that no engine's model
has. No engine stands behind this protocol, so there is nothing to learn from: its searches are decided in mode `static`.
"""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec

from cache.cascade import Query
from cache.entry import Entry
from cache.keys import exact_key, fingerprint
from cache.semantic import Found, Known
from cache.stores.base import EntryInfo, Filter, model_scope
from cache.stores.query_log import LoggedQuery
from serve_app.modelcache.backend import Hit, Message, QueryRecord
from serve_app.modelcache.keytext import Question, key_text, question_of
from serve_app.services import CacheService, EmbeddingService
from serve_app.tenants import Authenticator

PREFIX = "modelcache:"
PAGE = 500


class _Kept(msgspec.Struct):
    """An entry's answer."""

    answer: str
    query: str


class SharedCacheBackend:
    """A `CacheBackend`. `ttl_s`: how long what is inserted is kept; `clock` gives seconds since the epoch."""

    def __init__(
        self,
        cache: CacheService,
        embedding: EmbeddingService,
        authenticator: Authenticator,
        ttl_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cache = cache
        self._embedding = embedding
        self._authenticator = authenticator
        self._ttl_s = ttl_s
        self._clock = clock

    async def query(self, tenant: str | None, model: str, messages: Sequence[Message]) -> Hit | None:
        question = question_of(messages)
        if question.blank:
            return None
        namespace, place = self._authenticator.namespace(tenant), _place(model, question)
        known = await self._cache.find(namespace, _key(namespace, model, question), place, question.text)
        if entry := known.exact or known.reworded:
            return _hit(entry, 1.0)
        embedded = await self._embedding.embed_one(question.text)
        if not embedded.covered:
            return None
        found = await self._cache.search(Query(namespace, place, question.text, embedded.vector), "static")
        return _hit(found.entry, found.decision.similarity or 0.0) if isinstance(found, Found) else None

    async def insert(self, tenant: str | None, model: str, items: Sequence[tuple[Sequence[Message], str]]) -> list[str]:
        namespace = self._authenticator.namespace(tenant)
        epoch = await self._register(namespace, model)
        questions = [question_of(messages) for messages, _ in items]
        embedded = await self._embedding.embed([question.text for question in questions])
        entries = []
        for (messages, answer), question, each in zip(items, questions, embedded, strict=True):
            kept = msgspec.json.encode(_Kept(answer, key_text(messages)))
            entry = self._entry(namespace, model, _key(namespace, model, question), kept, epoch)
            vector = each.vector if each.covered else None
            entries.append(replace(entry, text=question.text, fingerprint=_place(model, question), vector=vector))
        for entry in entries:
            await self._cache.keep(entry)
        return [entry.id for entry in entries]

    async def delete(self, tenant: str | None, model: str, ids: Sequence[str]) -> int:
        namespace = self._authenticator.namespace(tenant)
        found = await self._page(namespace, Filter(PREFIX + model, ids=list(ids)), "", len(ids) + 1)
        deleted: int = await self._cache.call("delete", namespace, [each.id for each in found if each.text is not None])
        return deleted

    async def truncate(self, tenant: str | None, model: str) -> int | None:
        namespace = self._authenticator.namespace(tenant)
        if (await self._registration(namespace, model)).exact is None:
            return None
        count, after = 0, ""
        while page := await self._page(namespace, Filter(PREFIX + model), after, PAGE):
            count, after = count + sum(each.text is not None for each in page), page[-1].id
        await self._cache.call("invalidate", namespace, model_scope(PREFIX + model))
        await self._register(namespace, model)
        return count

    async def register(self, tenant: str | None, model: str) -> bool:
        namespace = self._authenticator.namespace(tenant)
        is_new = (await self._registration(namespace, model)).exact is None
        await self._register(namespace, model)
        return is_new

    async def log(self, record: QueryRecord) -> None:
        entry_id, similarity = (record.hit.id, record.hit.similarity) if record.hit else (None, None)
        namespace, outcome = self._authenticator.namespace(record.tenant), "hit" if record.hit else str(record.error_code)
        line = LoggedQuery(namespace, record.model, self._clock(), outcome, record.seconds, record.query, entry_id, similarity)
        await self._cache.call("log", [line])

    async def _register(self, namespace: str, model: str) -> int:
        """Makes the model known with an entry that answers nothing. Returns the namespace's epoch."""
        known = await self._registration(namespace, model)
        if known.exact is None:
            await self._cache.keep(self._entry(namespace, model, _registration_key(namespace, model), b"{}", known.epoch))
        return known.epoch

    async def _registration(self, namespace: str, model: str) -> Known:
        return await self._cache.find(namespace, _registration_key(namespace, model), "", None)

    async def _page(self, namespace: str, wanted: Filter, after: str, limit: int) -> list[EntryInfo]:
        page: list[EntryInfo] = await self._cache.call("page", namespace, wanted, after, limit)
        return page

    def _entry(self, namespace: str, model: str, key: str, answer: bytes, epoch: int) -> Entry:
        now = self._clock()
        return Entry(
            id=uuid.uuid4().hex,
            namespace=namespace,
            exact_key=key,
            fingerprint="",
            model=PREFIX + model,
            text=None,
            answer=answer,
            created_at=now,
            expires_at=now + self._ttl_s,
            epoch=epoch,
        )


def _place(model: str, question: Question) -> str:
    return fingerprint({"modelcache": model, "rest": question.rest})


def _key(namespace: str, model: str, question: Question) -> str:
    return exact_key(namespace, "modelcache", {"model": model, "text": question.text, "rest": question.rest})


def _registration_key(namespace: str, model: str) -> str:
    return exact_key(namespace, "modelcache_registration", {"model": model})


def _hit(entry: Entry, similarity: float) -> Hit | None:
    """None for an answer that was damaged in the store."""
    try:
        kept = msgspec.json.decode(entry.answer, type=_Kept)
    except msgspec.DecodeError:
        return None
    return Hit(entry.id, kept.query, kept.answer, similarity)
