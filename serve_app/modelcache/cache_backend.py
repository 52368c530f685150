"""ModelCache's protocol on the shared cache.

`scope.model` is a partition of the tenant's own: part of the fingerprint, and the entry's model under a prefix that no engine's model
has. No engine stands behind this protocol, so there is nothing to learn from: for a tenant in mode `verified` its searches are decided
as in `static`, and in `shadow` there are none.
Which questions may be worded otherwise is decided as for chats (`serve_app.tiers`); the others are found by their own words.
"""

import hashlib
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec

from cache.cascade import Query
from cache.config import CacheConfig
from cache.eligibility import is_time_sensitive
from cache.entry import Entry
from cache.errors import KeyFormatError
from cache.keys import exact_key, fingerprint
from cache.policy import Policy
from cache.stores.base import EntryInfo, Filter, model_scope
from cache.stores.query_log import LoggedQuery
from cache.stores.schema import MAX_MODEL_CHARS
from serve_app.modelcache.backend import BackendError, Hit, Message, QueryRecord
from serve_app.modelcache.keytext import Question, key_text, question_of
from serve_app.services import CacheService, EmbeddingService
from serve_app.tenants import Namespaces, name_of

PREFIX, REGISTERED = "modelcache:", "modelcache-model:"
"""Of the models of kept answers, and of the entries that only say that there is such a model."""
PAGE = 500
REGISTERED_S = 10 * 365 * 86_400.0
_CHARS_PER_TOKEN = 4


class _Kept(msgspec.Struct):
    """An entry's answer."""

    answer: str
    query: str


class SharedCacheBackend:
    """A `CacheBackend`. `clock` gives seconds since the epoch."""

    def __init__(
        self,
        cache: CacheService,
        embedding: EmbeddingService,
        namespaces: Namespaces,
        config: CacheConfig,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cache = cache
        self._embedding = embedding
        self._namespaces = namespaces
        self._config = config
        self._clock = clock

    async def query(self, tenant: str | None, model: str, messages: Sequence[Message]) -> Hit | None:
        question = question_of(messages)
        if question.blank:
            return None
        namespace, policy = self._namespaces.of(name_of(tenant)), self._policy(tenant)
        text = self._comparable(question) if policy.mode in ("verified", "static") else None
        key, place = _keys(namespace, model, question)
        known = await self._cache.find(namespace, key, place, text)
        if entry := known.exact or known.reworded:
            return _hit(entry, 1.0)
        embedded = None if text is None else await self._embedding.embed_one(text, namespace)
        if text is None or embedded is None or not embedded.covered:
            return None
        found = await self._cache.search(Query(namespace, place, text, embedded.vector), replace(policy, mode="static"))
        return _hit(found.entry, found.decision.similarity or 0.0) if found.entry else None

    async def insert(self, tenant: str | None, model: str, items: Sequence[tuple[Sequence[Message], str]]) -> list[str]:
        namespace = self._namespaces.of(name_of(tenant))
        epoch = await self._cache.epoch(namespace)
        ttl_s = self._config.of(name_of(tenant)).ttl_s
        entries = [self._answer(namespace, model, epoch, ttl_s, messages, answer) for messages, answer in items]
        if self._policy(tenant).mode == "off":
            entries = [replace(entry, text=None) for entry in entries]
        texts = [entry.text for entry in entries if entry.text is not None]
        embedded = iter(await self._embedding.embed(texts) if texts else [])
        await self._register(namespace, model)
        found = [None if entry.text is None else next(embedded) for entry in entries]
        await self._cache.keep(
            [replace(entry, vector=each.vector) if each and each.covered else entry for entry, each in zip(entries, found, strict=True)]
        )
        return [entry.id for entry in entries]

    async def delete(self, tenant: str | None, model: str, ids: Sequence[str]) -> int:
        namespace = self._namespaces.of(name_of(tenant))
        found = await self._page(namespace, Filter(_column(PREFIX, model), ids=list(ids)), "", len(ids))
        deleted: int = await self._cache.call("delete", namespace, [each.id for each in found])
        return deleted

    async def truncate(self, tenant: str | None, model: str) -> int | None:
        namespace, name = self._namespaces.of(name_of(tenant)), _column(PREFIX, model)
        count, after = 0, ""
        while page := await self._page(namespace, Filter(name), after, PAGE):
            count, after = count + len(page), page[-1].id
        if not count and not await self._is_registered(namespace, model):
            return None
        await self._register(namespace, model)
        await self._cache.call("invalidate", namespace, model_scope(name))
        return count

    async def register(self, tenant: str | None, model: str) -> bool:
        namespace = self._namespaces.of(name_of(tenant))
        used = await self._page(namespace, Filter(_column(PREFIX, model)), "", 1)
        return await self._register(namespace, model) and not used

    async def log(self, records: Sequence[QueryRecord]) -> None:
        await self._cache.call("log", [self._line(record) for record in records])

    def _line(self, record: QueryRecord) -> LoggedQuery:
        entry_id, similarity = (record.hit.id, record.hit.similarity) if record.hit else (None, None)
        namespace, outcome = self._namespaces.of(name_of(record.tenant)), "hit" if record.hit else str(record.error_code)
        model = record.model[:MAX_MODEL_CHARS]
        return LoggedQuery(namespace, model, self._clock(), outcome, record.seconds, record.query, entry_id, similarity)

    def _policy(self, tenant: str | None) -> Policy:
        return self._config.of(name_of(tenant)).semantic.policy()

    def _comparable(self, question: Question) -> str | None:
        """The question's text, if it may be worded otherwise."""
        eligible = len(question.text) <= self._config.semantic.max_text_chars and not is_time_sensitive(question.text)
        return question.text if eligible else None

    def _answer(self, namespace: str, model: str, epoch: int, ttl_s: float, messages: Sequence[Message], answer: str) -> Entry:
        """Without its vector. Raises `BackendError`."""
        kept, limit, question = msgspec.json.encode(_Kept(answer, key_text(messages))), self._config.max_answer_bytes, question_of(messages)
        if len(kept) > limit:
            raise BackendError(f"An answer is longer than {limit} bytes with its question.")
        key, place = _keys(namespace, model, question)
        entry = self._entry(namespace, _column(PREFIX, model), key, epoch, ttl_s)
        # What saves nothing would be evicted first.
        return replace(entry, answer=kept, text=self._comparable(question), fingerprint=place, tokens=1 + len(answer) // _CHARS_PER_TOKEN)

    async def _register(self, namespace: str, model: str) -> bool:
        """Makes the model known, with an entry that answers nothing. False: it already was."""
        if await self._is_registered(namespace, model):
            return False
        key, epoch = exact_key(namespace, "modelcache_registration", {"model": model}), await self._cache.epoch(namespace)
        await self._cache.keep([self._entry(namespace, _column(REGISTERED, model), key, epoch, REGISTERED_S)])
        return True

    async def _is_registered(self, namespace: str, model: str) -> bool:
        return bool(await self._page(namespace, Filter(_column(REGISTERED, model)), "", 1))

    async def _page(self, namespace: str, wanted: Filter, after: str, limit: int) -> list[EntryInfo]:
        page: list[EntryInfo] = await self._cache.call("page", namespace, wanted, after, limit)
        return page

    def _entry(self, namespace: str, name: str, key: str, epoch: int, ttl_s: float) -> Entry:
        now = self._clock()
        return Entry(
            id=uuid.uuid4().hex,
            namespace=namespace,
            exact_key=key,
            fingerprint="",
            model=name,
            text=None,
            answer=b"{}",
            created_at=now,
            expires_at=now + ttl_s,
            epoch=epoch,
        )


def _column(prefix: str, model: str) -> str:
    """The model's name in the store, another one for each: MySQL holds `MAX_MODEL_CHARS`, and takes trailing spaces for none."""
    if len(prefix + model) <= MAX_MODEL_CHARS and not model.startswith("#") and not model.endswith(" "):
        return prefix + model
    return f"{prefix}#{hashlib.sha256(model.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _keys(namespace: str, model: str, question: Question) -> tuple[str, str]:
    """The exact key and the fingerprint. Raises `BackendError`."""
    try:
        key = exact_key(namespace, "modelcache", {"model": model, "text": question.text, "rest": question.rest})
        return key, fingerprint({"modelcache": model, "rest": question.rest})
    except KeyFormatError:
        raise BackendError("The request has a number or a text that cannot be kept.") from None


def _hit(entry: Entry, similarity: float) -> Hit | None:
    """None for an answer that was damaged in the store."""
    try:
        kept = msgspec.json.decode(entry.answer, type=_Kept)
    except msgspec.DecodeError:
        return None
    return Hit(entry.id, kept.query, kept.answer, similarity)
