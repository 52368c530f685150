"""The life of a generation request: ARCHITECTURE's steps, each a call into a lower part.

A request with documents is answered from what it says *and* what they say, so its documents are fetched before its
exact key is built.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import msgspec

from cache.entry import Entry
from deployments.errors import QueueFullError
from deployments.replica_client import ReplicaClient
from deployments.replicas import ReplicaDirectory
from deployments.routing import Routing
from serve_app.admission.gate import Admission, Admitted
from serve_app.augment import Augmenter
from serve_app.config import AppConfig
from serve_app.content.guard import Content, Ruled
from serve_app.contexts.service import Contexts
from serve_app.errors import ApiError, InvalidRequestError, NotFoundError, to_api_error
from serve_app.learning import Learner
from serve_app.media import refuse_remote_media
from serve_app.metrics import Metrics
from serve_app.openai import answers, formats
from serve_app.openai.citing import cited
from serve_app.openai.kinds import Kind
from serve_app.openai.replay import ID_PREFIXES, render
from serve_app.openai.requests import Generation
from serve_app.relay import read_answer, relay, send
from serve_app.renewal import Renewals
from serve_app.replies import JSON_TYPE, SSE_TYPE, Ready, ReadyReply, Reply
from serve_app.services import DocumentService, EmbeddingService
from serve_app.tenants import Caller, Namespaces, Principal
from serve_app.tiers import CacheTiers, Lookup
from serve_app.time_limits import Deadline, patience

_NOT_FOR_CLIENTS = frozenset({"kv_transfer_params", "ec_transfer_params"})
_NOT_IN_XARGS = _NOT_FOR_CLIENTS | {"kv_cache_report_mode"}
"""With the last one an engine would announce blocks again that it does not hold twice."""


class Asked(NamedTuple):
    """All that the exact tier needs to know of a request that may be given a kept answer."""

    kind: Kind
    namespace: str
    key: str
    stream: bool
    include_usage: bool


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that is known to be answered, and what the cache is asked for it; `lookup` is None while its documents are not known, the
    context that it begins with, or what content rules make of it.
    """

    request: Generation
    caller: Caller
    namespace: str
    lookup: Lookup | None
    ruled: Ruled | None = None
    """By content rules. None: there are none for it."""

    @property
    def asked(self) -> Asked | None:
        """None: no kept answer may be given, or not at once."""
        if self.lookup is None or not self.lookup.read or self.request.marks or (self.ruled and self.ruled.waits):
            return None
        return Asked(self.request.kind, self.namespace, self.lookup.key, self.request.stream, self.request.include_usage)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One for each ingress replica."""

    config: AppConfig
    namespaces: Namespaces
    tiers: CacheTiers
    embedding: EmbeddingService
    documents: DocumentService | None
    directory: ReplicaDirectory
    routing: Routing
    client: ReplicaClient
    metrics: Metrics
    learner: Learner
    renewals: Renewals
    admission: Admission
    clock: Callable[[], float] = time.time
    content: Content | None = None
    """None: there are no content rules."""
    contexts: Contexts | None = None
    """None: nothing is kept for it."""

    async def generate(self, request: Generation, caller: Caller) -> Reply:
        """The answer to a checked request. Raises what `serve_app.errors.to_api_error` understands."""
        return await self.answer(self.arrive(request, caller))

    def arrive(self, request: Generation, caller: Caller) -> Arrival:
        """What comes before any waiting. Raises as `generate` does."""
        namespace = self.namespaces.of(caller.tenant)  # 1
        request = self.checked(request, caller.principal)  # 2
        ruled = self.content.check(request, caller.tenant) if self.content else None
        if ruled is None:
            lookup = None if request.retrieval or request.context else self.tiers.lookup(request, caller, namespace)
            return Arrival(request, caller, namespace, lookup)
        request = ruled.request
        is_known = ruled.is_final and not request.retrieval and not request.context
        lookup = self.tiers.lookup(request, caller, namespace, ruled.guard) if is_known else None
        return Arrival(request, caller, namespace, lookup, ruled)

    def refusal(self, arrival: Arrival) -> ApiError | None:
        """Why a request is refused at once for which `at_hand` had nothing: a refusal must not cost what an answer does. None: it may be
        answered, or refused later.
        """
        request, caller = arrival.request, arrival.caller
        flow = self.admission.flow(request, caller, arrival.namespace)
        try:
            self.admission.check(request, caller, flow)
            if arrival.lookup is not None and not arrival.lookup.read:  # else there may be a kept answer
                self.routing.turnstile.check(flow)
        except (ApiError, QueueFullError) as error:
            return to_api_error(error)
        return None

    def is_at_hand(self, asked: Asked) -> bool:
        return self.tiers.at_hand(asked.namespace, asked.key) is not None

    def at_hand(self, asked: Asked, request_id: str) -> ReadyReply | None:
        """3, as far as this process knows the answer. None: `answer` goes on from there."""
        held = self.tiers.at_hand(asked.namespace, asked.key)
        if held is None:
            return None
        form = asked.stream, asked.include_usage
        ready: Ready | None = held.made and held.made.get(form)
        if ready is None:
            try:
                ready = _render(held.entry, asked)
            except msgspec.DecodeError:  # `answer` finds it damaged, too, and counts that
                return None
            self.tiers.attach(held, {**(held.made or {}), form: ready}, ready.size)
        self.tiers.served(held)
        return ready.reply(ID_PREFIXES[asked.kind] + request_id, int(self.clock()), request_id)

    async def answer(self, arrival: Arrival) -> Reply:
        """The rest of the request's life."""
        admitted = self.admission.enter(arrival.request, arrival.caller, arrival.namespace)  # 2
        deadline = Deadline(self.config.ingress.total_timeout_s)
        try:
            return admitted.ends_with(deadline.over(await deadline.within(self._admitted(arrival, admitted)), arrival.request))
        except BaseException:
            admitted.end()
            raise

    async def _admitted(self, arrival: Arrival, admitted: Admitted) -> Reply:
        if arrival.ruled:
            arrival = replace(arrival, request=await arrival.ruled.permitted())  # 2
        request = await self._begun(arrival.request, arrival.namespace)
        if arrival.request.context:
            admitted.grown(arrival.request, request)
        arrival = replace(arrival, request=request)
        if arrival.request.retrieval is None:
            return await self._answered(arrival, admitted)
        guard = arrival.ruled.guard if arrival.ruled else None
        augmenter = Augmenter(self.config.retrieval, self.documents, self.directory, self.routing, self.namespaces, guard)
        request = await augmenter.augmented(arrival.request, arrival.request.retrieval, arrival.caller, arrival.namespace)  # 5
        retrieved = request.retrieved
        try:
            reply = await self._answered(replace(arrival, request=request), admitted)
        finally:
            if retrieved and retrieved.head_start:
                self.routing.leave(retrieved.head_start)
        return cited(reply, retrieved.hits if retrieved else (), arrival.request.retrieval.citations)

    async def _begun(self, request: Generation, namespace: str) -> Generation:
        """With the context that it begins with."""
        if self.contexts:
            return await self.contexts.begun(request, namespace)
        if request.context:
            raise NotFoundError("Nothing is kept here: contexts.enabled in the configuration is false.", code="no_contexts")
        return request

    async def _answered(self, arrival: Arrival, admitted: Admitted) -> Reply:
        request, caller, namespace, lookup = arrival.request, arrival.caller, arrival.namespace, arrival.lookup
        request = self.contexts.marked(request, namespace) if self.contexts else request
        if lookup is None:
            lookup = self.tiers.lookup(request, caller, namespace, arrival.ruled.guard if arrival.ruled else None)
        self.tiers.begin(lookup)
        lookup.is_hurried = self.routing.turnstile.is_full(admitted.flow)
        entry = await self.tiers.exact(lookup) or await self.tiers.join(lookup)  # 3
        if entry and (reply := self._replay(request, caller, entry, "exact", 1.0)):
            self._renew(request, caller, lookup, entry)
            return reply
        with lookup.ticket:
            return await self._compute(request, caller, lookup, admitted)

    async def _compute(self, request: Generation, caller: Caller, lookup: Lookup, admitted: Admitted) -> Reply:
        """For all equal requests that are in flight, if this one leads them."""
        self.routing.turnstile.check(admitted.flow)  # under overload a refusal must not cost what a search does
        hit = await self.tiers.semantic(lookup)  # 4
        if hit and (reply := self._replay(request, caller, hit.entry, "semantic", hit.similarity)):
            self._audit(request, caller, lookup)
            self._renew(request, caller, lookup, hit.entry)
            lookup.ticket.ended()
            return reply
        entry = await self.tiers.claim(lookup)
        if entry and (reply := self._replay(request, caller, entry, "exact", 1.0)):
            return reply
        begun = self.contexts.keeping(request, caller, lookup.namespace) if self.contexts else None
        limits = patience(self.config.ingress, is_stream=request.stream)
        sent = await send(self.client, self.routing, request, caller, lookup.namespace, admitted.flow, limits, begun)  # 6, 7, 8
        return await relay(request, sent, self.tiers, lookup, admitted.used)  # 8, 9

    def require_model(self, name: str, principal: Principal) -> str:
        """The own name of the model, or of the adapter; `name` is empty where the client left the choice to us.

        Raises `NotFoundError` where none answers to this one, or none for this key.
        """
        served = self.config.llm.model
        name = name or served.name
        if name in served.adapters and principal.may_ask(name):
            return name
        if name not in served.names or not any(map(principal.may_ask, served.names)):
            raise NotFoundError(
                f"Could not find this model; the one that answers here is {served.name}.", param="model", code="model_not_found"
            )
        return served.name

    def checked(self, request: Generation, principal: Principal) -> Generation:
        """The request as it goes on, under the model's own name."""
        model = self.require_model(request.model, principal)
        if model != request.model:
            request = replace(request, model=model, body={**request.body, "model": model})
        if model in self.config.llm.model.adapters:
            request = replace(request, adapter=model)
        limit = min((replica.max_model_len for replica in self.directory.replicas), default=None)
        if limit and request.max_tokens and request.max_tokens > limit:
            field = request.length_field
            raise InvalidRequestError(f"{field} must be at most {limit}, the model's context length.", param=field, code="invalid_value")
        if refused := _NOT_FOR_CLIENTS & request.body.keys():
            raise InvalidRequestError("This field is not accepted here.", param=min(refused), code="unsupported_parameter")
        xargs = request.body.get("vllm_xargs")
        if isinstance(xargs, dict) and (refused := _NOT_IN_XARGS & xargs.keys()):
            raise InvalidRequestError("This field is not accepted here.", param=f"vllm_xargs.{min(refused)}", code="unsupported_parameter")
        refuse_remote_media(request.body, self.config.llm)
        return request

    def _audit(self, request: Generation, caller: Caller, lookup: Lookup) -> None:
        """Has the answer that was just served computed anew now and then."""

        async def compute() -> bytes | None:
            parsed = answers.from_json(await self._anew(request, caller, lookup))
            return None if parsed is None else msgspec.json.encode(parsed)

        if lookup.decision is not None:
            self.learner.hit(lookup.namespace, lookup.decision, lookup.policy.audit_share, compute)

    def _renew(self, request: Generation, caller: Caller, lookup: Lookup, entry: Entry) -> None:
        """Has the answer that was just served computed anew if it is past its soft end."""

        async def renew() -> str:
            anew = await self.tiers.to_renew(lookup)
            if anew is None:
                return "not_needed"
            self.tiers.keep(anew, formats.from_json(request.kind), await self._anew(request, caller, lookup))
            return "renewed"

        self.renewals.served(entry, lookup.key, renew)

    async def _anew(self, request: Generation, caller: Caller, lookup: Lookup) -> bytes:
        """The engine's answer as one piece, whatever the client asked for."""
        body = {key: value for key, value in request.body.items() if key not in ("stream", "stream_options")}
        whole = replace(request, stream=False, include_usage=False, body=body)
        flow = self.admission.flow(whole, caller, lookup.namespace, is_background=True)
        limits = patience(self.config.ingress, is_stream=False)
        raw = await read_answer(await send(self.client, self.routing, whole, caller, lookup.namespace, flow, limits))
        return await lookup.guard.whole(raw) if lookup.guard else raw

    def _replay(self, request: Generation, caller: Caller, entry: Entry, tier: str, similarity: float) -> Reply | None:
        """None for an answer that was damaged in the store: a doubt, and so a miss."""
        try:
            body = formats.replayed(request, entry.answer, caller.request_id, int(self.clock()))
        except msgspec.DecodeError:
            self.metrics.cache(tier, "damaged")
            return None
        return Reply(200, {**request.headers, **_hit_headers(entry, tier, similarity)}, SSE_TYPE if request.stream else JSON_TYPE, body)


def _render(entry: Entry, asked: Asked) -> Ready:
    pieces = render(entry.answer, asked.kind, stream=asked.stream, include_usage=asked.include_usage)
    return Ready(Reply(200, _hit_headers(entry, "exact", 1.0), SSE_TYPE if asked.stream else JSON_TYPE, b"").raw_headers(), pieces)


def _hit_headers(entry: Entry, tier: str, similarity: float) -> dict[str, str]:
    return {"x-mygo-cache": tier, "x-mygo-similarity": f"{similarity:.4f}", "x-mygo-entry": entry.id}
