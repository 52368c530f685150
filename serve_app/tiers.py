"""The exact and the semantic tier, as one request meets them."""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from cache.config import CacheConfig
from cache.entry import Entry, Vector
from cache.exact import AnswerLru
from cache.keys import exact_key, fingerprint
from cache.semantic import is_indistinct
from serve_app.keeper import Keeper
from serve_app.metrics import Metrics
from serve_app.openai.keys import is_cacheable, key_material, question_of
from serve_app.openai.requests import Generation
from serve_app.services import CacheService, EmbeddingService, SemanticHit, SemanticMiss
from serve_app.tenants import Caller

log = logging.getLogger("ray.serve")

LOOKUP_TIMEOUT_S = 2.0
"""A cache that answers later than this is slower than no cache."""
FAILED: Final = object()
"""What a lookup gives that failed: it has been counted already."""


@dataclass(slots=True)
class Lookup:
    """What the cache is asked, and what the answer will be kept under."""

    namespace: str
    key: str
    model: str
    read: bool
    write: bool
    ttl_s: float
    text: str | None = None
    """The question that is compared; None: not eligible for the semantic tier."""
    fingerprint: str = ""
    vector: Vector | None = None
    deadline: float = field(default_factory=lambda: asyncio.get_running_loop().time() + LOOKUP_TIMEOUT_S)
    """On the event loop's clock: when all lookups together must have answered."""


class CacheTiers:
    """`model_identity` tells apart models that are served under one name: another one's answers are never replayed."""

    def __init__(
        self,
        config: CacheConfig,
        model_identity: str,
        lru: AnswerLru,
        cache: CacheService,
        embedding: EmbeddingService,
        keeper: Keeper,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._model_identity = model_identity
        self._lru = lru
        self._cache = cache
        self._embedding = embedding
        self._keeper = keeper
        self._metrics = metrics
        self._clock = clock

    def lookup(self, request: Generation, caller: Caller, namespace: str) -> Lookup:
        """Raises `KeyFormatError`."""
        mode, config = request.cache.mode, self._config
        cacheable = is_cacheable(request)
        lookup = Lookup(
            namespace=namespace,
            key=exact_key(namespace, request.kind, {**key_material(request), "mygo_model": self._model_identity}),
            model=request.model,
            read=cacheable and mode in ("on", "exact") and not (caller.no_cache or caller.no_store),
            write=cacheable and mode != "off" and not caller.no_store,
            ttl_s=min(request.cache.ttl_s or config.ttl_s, config.ttl_s),
        )
        if config.semantic.enabled and mode in ("on", "refresh") and (lookup.read or lookup.write):
            asked = question_of(request, config.semantic.max_text_chars)
            if asked:
                lookup.text = asked.text
                lookup.fingerprint = fingerprint({**asked.rest, "mygo_model": self._model_identity})
        return lookup

    async def exact(self, lookup: Lookup) -> Entry | None:
        if not (lookup.read and self._config.exact.enabled):
            self._metrics.cache("exact", "bypass")
            return None
        entry = self._lru.get(lookup.namespace, lookup.key)
        if entry is None:
            found = await self._bounded("exact", lookup.deadline, self._cache.find_exact(lookup.namespace, lookup.key))
            if found is FAILED:
                return None
            entry = found
            if entry:
                self._lru.put(entry)
        self._metrics.cache("exact", "hit" if entry else "miss")
        return entry

    async def semantic(self, lookup: Lookup) -> SemanticHit | None:
        if lookup.text is None:
            self._metrics.cache("semantic", "ineligible")
            return None
        embedded = await self._bounded("semantic", lookup.deadline, self._embedding.embed_one(lookup.text))
        if embedded is FAILED:
            return None
        if not embedded.covered:  # its vector must neither find an answer nor be found
            self._metrics.cache("semantic", "not_covered")
            return None
        lookup.vector = embedded.vector
        if not lookup.read:
            self._metrics.cache("semantic", "bypass")
            return None
        found = await self._bounded("semantic", lookup.deadline, self._cache.search(lookup.namespace, lookup.fingerprint, embedded.vector))
        if found is FAILED:
            return None
        if isinstance(found, SemanticHit) and is_indistinct(found.similarity, found.entry.text, lookup.text):
            found = SemanticMiss("indistinct")
        self._metrics.cache("semantic", found.reason if isinstance(found, SemanticMiss) else "hit")
        return found if isinstance(found, SemanticHit) else None

    async def _bounded(self, tier: str, deadline: float, lookup: Awaitable[Any]) -> Any:
        """Caches fail open to the engine: an error or a late answer is a miss, counted with its reason."""
        try:
            async with asyncio.timeout_at(deadline):
                return await lookup
        except Exception as error:  # a handle raises errors of many types; cancellation is none of them
            log.warning("cache lookup failed", extra={"tier": tier, "error": type(error).__name__})
            self._metrics.cache(tier, "timeout" if isinstance(error, TimeoutError) else "error")
            return FAILED

    def copy_limit(self, lookup: Lookup) -> int:
        """Bytes of a stream that are worth copying: an answer's events are several times its size."""
        return 4 * self._config.max_answer_bytes if lookup.write else 0

    def keep(self, lookup: Lookup, parse: Callable[[bytes], dict[str, Any] | None], raw: bytes) -> None:
        """Into the LRU now, so that the next request finds it; into the store off the reply's path.

        Whatever is strange in an engine's answer, the client gets it all the same.
        """
        if not lookup.write:
            return
        try:
            answer = parse(raw)
        except Exception as error:
            log.warning("answer not understood, and not kept", extra={"error": type(error).__name__})
            self._metrics.write_skipped("not_understood")
            return
        if answer is None:
            self._metrics.write_skipped("incomplete")
        else:
            self._keep(lookup, msgspec.json.encode(answer))

    def _keep(self, lookup: Lookup, answer: bytes) -> None:
        if len(answer) > self._config.max_answer_bytes:
            self._metrics.write_skipped("too_large")
            return
        now = self._clock()
        entry = Entry(
            id=uuid.uuid4().hex,
            namespace=lookup.namespace,
            exact_key=lookup.key,
            fingerprint=lookup.fingerprint,
            model=lookup.model,
            text=lookup.text,
            answer=answer,
            created_at=now,
            expires_at=now + lookup.ttl_s,
            vector=lookup.vector,
        )
        if self._config.exact.enabled:
            self._lru.put(entry)
        self._keeper.keep(entry)
