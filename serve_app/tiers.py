"""The exact and the semantic tier, as one request meets them."""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from cache.cascade import Decision, Query
from cache.config import CacheConfig
from cache.eligibility import is_time_sensitive
from cache.entry import Entry, Vector
from cache.exact import AnswerLru, Held
from cache.keys import exact_key, fingerprint
from cache.policy import Policy
from cache.stores.base import Known
from deployments.embedding import Embedded
from serve_app.coalesce import Coalesced
from serve_app.content.guard import Guard
from serve_app.epochs import Epochs
from serve_app.flights import ALONE, Flights, Ticket
from serve_app.keeper import Keeper
from serve_app.learning import Learner
from serve_app.metrics import Metrics
from serve_app.openai.answers import completion_tokens
from serve_app.openai.keys import is_cacheable, key_material, question_of
from serve_app.openai.requests import Generation
from serve_app.services import CacheService, EmbeddingService
from serve_app.tenants import Caller
from serve_app.uses import Uses

log = logging.getLogger("ray.serve")

LOOKUP_TIMEOUT_S = 2.0
"""A cache that answers later than this is slower than no cache."""
_ONLY_EXACT = Policy(mode="off")
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
    request: Generation
    tags: tuple[str, ...] = ()
    text: str | None = None
    """The question that is compared, once `CacheTiers.ask` has read it; None: not eligible for the semantic tier."""
    time_sensitive: bool = False
    """It would be eligible, but its answer is another one soon."""
    is_hurried: bool = False
    """It would be refused if there is no kept answer to this very request: nothing is to be computed before that is known."""
    is_asked: bool = False
    """`text`, `time_sensitive` and `fingerprint` have been read."""
    fingerprint: str = ""
    vector: Vector | None = None
    embedding: "asyncio.Future[Embedded] | None" = None
    """Of the question, begun before it is known whether it is needed."""
    policy: Policy = Policy()  # noqa: RUF009  # frozen
    """The tenant's, of the semantic tier."""
    soft_ttl_s: float | None = None
    decision: Decision | None = None
    """What the semantic tier decided."""
    known: Known = Known(0)  # noqa: RUF009  # frozen
    """What the cache said of this very request."""
    ticket: Ticket = ALONE
    """Its part in a computation that equal requests share."""
    deadline: float = field(default_factory=lambda: asyncio.get_running_loop().time() + LOOKUP_TIMEOUT_S)
    """On the event loop's clock: when all lookups together must have answered."""
    guard: Guard | None = None
    """What the answer must pass, and kept ones have passed."""


@dataclass(frozen=True, slots=True)
class SemanticHit:
    """A kept answer to an equivalent question; `similarity` is their cosine."""

    entry: Entry
    similarity: float


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
        learner: Learner,
        metrics: Metrics,
        flights: Flights,
        uses: Uses,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._of_tenant = {name: config.of(name) for name in config.tenants}
        self._policy = config.semantic.policy()
        self._policies = {name: each.semantic.policy() for name, each in self._of_tenant.items()}
        self._model_identity = model_identity
        self._lru = lru
        self.cache = cache
        self._embedding = embedding
        self._keeper = keeper
        self._learner = learner
        self._metrics = metrics
        self._flights = flights
        self._uses = uses
        self._clock = clock
        self._epochs = Epochs(cache, clock)
        self._finds = Coalesced()
        self._embeds = Coalesced()

    def lookup(self, request: Generation, caller: Caller, namespace: str, guard: Guard | None = None) -> Lookup:
        """What needs no more than the exact tier. Raises `KeyFormatError`."""
        mode, config = request.cache.mode, self._of_tenant.get(caller.tenant, self._config)
        allowed = caller.principal.cache
        cacheable = allowed != "off" and is_cacheable(request)
        return Lookup(
            namespace=namespace,
            key=exact_key(namespace, request.kind, {**key_material(request), **self._must_match(guard)}),
            model=request.model,
            read=cacheable and mode in ("on", "exact") and not (caller.no_cache or caller.no_store),
            write=cacheable and mode != "off" and not caller.no_store,
            ttl_s=min(request.cache.ttl_s or config.ttl_s, config.ttl_s),
            request=request,
            tags=tuple(dict.fromkeys(request.cache.tags)),
            policy=_ONLY_EXACT if allowed == "exact" else self._policies.get(caller.tenant, self._policy),
            soft_ttl_s=config.soft_ttl_s,
            guard=guard,
        )

    def _must_match(self, guard: Guard | None) -> dict[str, str]:
        """What a kept answer must have in common with a request beside its fields."""
        model = {"mygo_model": self._model_identity}
        return {**model, "mygo_content": guard.fingerprint} if guard and guard.fingerprint else model

    def ask(self, lookup: Lookup) -> None:
        """Reads what the semantic tier compares, which takes as long as all else that an exact hit needs. Once. Raises `KeyFormatError`."""
        wanted = lookup.policy.mode != "off" and lookup.request.cache.mode in ("on", "refresh") and (lookup.read or lookup.write)
        if lookup.is_asked or not wanted:
            return
        lookup.is_asked = True
        # Only budgets, ages and quotas differ between tenants, not how questions are read.
        asked = question_of(lookup.request, self._config.semantic.max_text_chars, self._config.semantic.dialogue)
        lookup.time_sensitive = asked is not None and is_time_sensitive(asked.text)
        if asked and not lookup.time_sensitive:
            lookup.text = asked.text
            lookup.fingerprint = fingerprint({**asked.rest, **self._must_match(lookup.guard)})

    def at_hand(self, namespace: str, key: str) -> Held | None:
        """The answer to this very request, if this process holds it and knows that it may be served. Waits for nothing.

        None means nothing: `exact` goes on from there.
        """
        held = self._lru.held(namespace, key) if self._config.exact.enabled else None
        if held is None or held.entry.is_stale(self._clock()) or self._epochs.fresh(namespace) != held.entry.epoch:
            return None
        return held

    @staticmethod
    def begin(lookup: Lookup) -> None:
        """All its lookups together have from now on until `LOOKUP_TIMEOUT_S`."""
        lookup.deadline = asyncio.get_running_loop().time() + LOOKUP_TIMEOUT_S

    def served(self, held: Held) -> None:
        """What `at_hand` gave was sent."""
        self._metrics.cache("exact", "hit")
        self._uses.hit(held.entry.id)

    def attach(self, held: Held, made: Any, size: int) -> None:
        """See `AnswerLru.attach`."""
        self._lru.attach(held, made, size)

    async def exact(self, lookup: Lookup) -> Entry | None:
        """The answer to this very request. Also finds what `semantic` and `keep` need to know of it."""
        if lookup.read and self._config.exact.enabled and (entry := await self._from_lru(lookup)):
            self._metrics.cache("exact", "hit")
            self._uses.hit(entry.id)
            return entry
        if not await self._find(lookup):
            return None
        if not (lookup.read and self._config.exact.enabled):
            self._metrics.cache("exact", "bypass")
            return None
        entry = lookup.known.exact
        if entry:
            self._lru.put(replace(entry, epoch=lookup.known.epoch))
        else:
            entry = self._landed(lookup)
        self._metrics.cache("exact", "hit" if entry else "miss")
        return entry

    def _landed(self, lookup: Lookup) -> Entry | None:
        """An entry that came into this process while the store was asked."""
        entry = self._lru.get(lookup.namespace, lookup.key)
        if entry is None or entry.epoch != lookup.known.epoch:
            return None
        self._uses.hit(entry.id)
        return entry

    async def join(self, lookup: Lookup) -> Entry | None:
        """The answer of an equal request of this process that was in flight. None: this one goes on, by `lookup.ticket`."""
        if lookup.read and lookup.write and self._config.exact.enabled:
            lookup.ticket = await self._flights.join(lookup.namespace, lookup.key, lookup.known.epoch)
            self.begin(lookup)  # the wait was for no tier
            if lookup.ticket.entry:
                self._uses.hit(lookup.ticket.entry.id)
        return lookup.ticket.entry

    async def claim(self, lookup: Lookup) -> Entry | None:
        """The answer of an equal request of another process. None: this one asks the engine."""
        entry = await lookup.ticket.claim()
        if entry:
            self._lru.put(replace(entry, epoch=lookup.known.epoch))
        return entry

    async def change(self, method: str, namespace: str, *args: Any) -> Any:
        """As `CacheService.call`, for what ends entries."""
        changed = await self.cache.call(method, namespace, *args)
        await self._epochs.renew(namespace)
        return changed

    async def _from_lru(self, lookup: Lookup) -> Entry | None:
        """An entry of this process, if nothing in its namespace was ended since it was put there."""
        entry = self._lru.get(lookup.namespace, lookup.key)
        if entry is None:
            return None
        epoch = await self._bounded("exact", lookup.deadline, self._epochs.current(lookup.namespace))
        return entry if epoch == entry.epoch else None

    async def _find(self, lookup: Lookup) -> bool:
        """Fills `lookup.known`. False: the cache did not answer, and without the epoch nothing may be kept either."""
        if not (lookup.read or lookup.write):
            return True
        self.ask(lookup)
        self._embed_ahead(lookup)
        text = lookup.text if lookup.read and lookup.policy.mode != "shadow" else None
        asked_at = self._clock()

        async def read() -> Known:
            known: Known = await self._finds.read(
                (lookup.namespace, lookup.key, text),
                lambda: self.cache.find(lookup.namespace, lookup.key, lookup.fingerprint, text),
                LOOKUP_TIMEOUT_S / 2,
            )
            return known

        async def read_twice() -> Known:
            try:
                return await read()
            except TimeoutError:  # it hung, and left time for another
                return await read()

        found = await self._bounded("exact", lookup.deadline, read_twice(), "ask_store")
        if found is FAILED:
            lookup.write = False
            return False
        lookup.known = found
        self._epochs.saw(lookup.namespace, found.epoch, asked_at)
        return True

    async def semantic(self, lookup: Lookup) -> SemanticHit | None:
        if lookup.text is None:
            self._metrics.cache("semantic", "time_sensitive" if lookup.time_sensitive else "ineligible")
            return None
        if lookup.read and lookup.known.reworded:
            self._metrics.cache("semantic", "reworded")
            return SemanticHit(lookup.known.reworded, 1.0)
        if not (lookup.read or lookup.write) or not await self._embed(lookup, lookup.text) or lookup.vector is None:
            return None
        if not lookup.read:
            self._metrics.cache("semantic", "bypass")
            return None
        query = Query(lookup.namespace, lookup.fingerprint, lookup.text, lookup.vector)
        found = await self._bounded("semantic", lookup.deadline, self.cache.search(query, lookup.policy), "ask_for_similar")
        if found is FAILED:
            return None
        decision: Decision = found.decision
        lookup.decision = decision
        self._metrics.stages(decision.seconds)
        self._metrics.cache("semantic", decision.reason if decision.guard is None else f"guard_{decision.guard}")
        return None if found.entry is None else SemanticHit(found.entry, decision.similarity or 0.0)

    def _embed_ahead(self, lookup: Lookup) -> None:
        """Begins while the store is asked, because most of what it is asked for is new. What is found there has no use for it."""
        text = lookup.text
        if text is None or lookup.vector is not None or lookup.is_hurried:
            return
        whose = lookup.namespace
        reading = self._embeds.read((whose, text), lambda: self._embedding.embed_one(text, whose), LOOKUP_TIMEOUT_S)
        lookup.embedding = asyncio.ensure_future(reading)
        lookup.embedding.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # it may not be needed

    async def _embed(self, lookup: Lookup, text: str) -> bool:
        """Sets the lookup's vector. False: there is none that may find an answer or be found."""
        embedding = lookup.embedding or self._embedding.embed_one(text, lookup.namespace)
        embedded = await self._bounded("semantic", lookup.deadline, embedding, "wait_for_embedding")
        if embedded is FAILED:
            return False
        if not embedded.covered:
            self._metrics.cache("semantic", "not_covered")
            return False
        lookup.vector = embedded.vector
        return True

    async def to_renew(self, lookup: Lookup) -> Lookup | None:
        """What the answer that was served to `lookup`, past its soft end, is to be kept under when it is computed anew.

        None: that has been done by another process, whose answer this one has now, or nothing can be kept.
        """
        anew = replace(lookup, ticket=ALONE, decision=None, deadline=asyncio.get_running_loop().time() + LOOKUP_TIMEOUT_S)
        if not lookup.write or not await self._find(anew):
            return None
        entry = anew.known.exact
        if entry is not None and not entry.is_stale(self._clock()):
            self._lru.put(replace(entry, epoch=anew.known.epoch))
            return None
        if anew.text is not None and anew.vector is None:
            await self._embed(anew, anew.text)
        return anew

    async def _bounded(self, tier: str, deadline: float, call: Awaitable[Any], stage: str | None = None) -> Any:
        """Caches fail open to the engine: an error or a late answer is a miss, counted with its reason. `stage`: what is timed."""
        began = time.perf_counter()
        try:
            async with asyncio.timeout_at(deadline):
                found = await call
            if stage is not None:
                self._metrics.stages({stage: time.perf_counter() - began})
            return found
        except Exception as error:  # such calls raise errors of many types; cancellation is none of them
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
            return
        kept = msgspec.json.encode(answer)
        self._learner.missed(lookup.namespace, lookup.decision, kept)
        self._keep(lookup, kept, completion_tokens(answer))

    def _keep(self, lookup: Lookup, answer: bytes, tokens: int) -> None:
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
            stale_at=None if lookup.soft_ttl_s is None else now + lookup.soft_ttl_s,
            epoch=lookup.known.epoch,
            tokens=tokens,
            tags=lookup.tags,
            vector=lookup.vector,
        )
        if self._config.exact.enabled:
            self._lru.put(entry)
        lookup.ticket.landed(entry)
        self._keeper.keep(entry, lookup.ticket.written)
