"""The life of a generation request: ARCHITECTURE's steps, each a call into a lower part.

A request with documents is answered from what it says *and* what they say, so its documents are fetched before its
exact key is built.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from cache.entry import Entry
from deployments.replica_client import ReplicaClient
from deployments.replicas import ReplicaDirectory
from deployments.routing import RoutingPolicy
from retrieval.prompt import assemble
from serve_app.config import AppConfig
from serve_app.errors import InvalidRequestError, NotFoundError
from serve_app.learning import Learner
from serve_app.metrics import Metrics
from serve_app.openai import answers
from serve_app.openai.keys import last_question
from serve_app.openai.requests import Generation
from serve_app.relay import read_answer, relay, send
from serve_app.renewal import Renewals
from serve_app.replies import JSON_TYPE, SSE_TYPE, Reply
from serve_app.services import DocumentService, EmbeddingService
from serve_app.tenants import Authenticator, Caller
from serve_app.tiers import CacheTiers, Lookup

_NOT_FOR_CLIENTS = frozenset({"kv_transfer_params", "ec_transfer_params"})


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One for each ingress replica."""

    config: AppConfig
    authenticator: Authenticator
    tiers: CacheTiers
    embedding: EmbeddingService
    documents: DocumentService | None
    directory: ReplicaDirectory
    policy: RoutingPolicy
    client: ReplicaClient
    metrics: Metrics
    learner: Learner
    renewals: Renewals
    clock: Callable[[], float] = time.time

    async def generate(self, request: Generation, caller: Caller) -> Reply:
        """The answer to a checked request. Raises what `serve_app.errors.to_api_error` understands."""
        namespace = self.authenticator.namespace(caller.tenant)  # 1
        self._admit(request)  # 2
        request = await self._retrieve(request, namespace)  # 5
        lookup = self.tiers.lookup(request, caller, namespace)
        entry = await self.tiers.exact(lookup) or await self.tiers.join(lookup)  # 3
        if entry and (reply := self._replay(request, caller, entry, "exact", 1.0)):
            self._renew(request, caller, lookup, entry)
            return reply
        with lookup.ticket:
            return await self._compute(request, caller, lookup)

    async def _compute(self, request: Generation, caller: Caller, lookup: Lookup) -> Reply:
        """For all equal requests that are in flight, if this one leads them."""
        hit = await self.tiers.semantic(lookup)  # 4
        if hit and (reply := self._replay(request, caller, hit.entry, "semantic", hit.similarity)):
            self._audit(request, caller, lookup)
            self._renew(request, caller, lookup, hit.entry)
            lookup.ticket.ended()
            return reply
        entry = await self.tiers.claim(lookup)
        if entry and (reply := self._replay(request, caller, entry, "exact", 1.0)):
            return reply
        # 6: the engine renders and tokenizes
        ranked = self.policy.rank(self.directory.replicas)  # 7
        answer = await send(self.client, request, caller, lookup.namespace, ranked)  # 8
        return await relay(request, answer, self.tiers, lookup)  # 8, 9

    def _admit(self, request: Generation) -> None:
        if request.model != self.config.llm.model.name:
            served = self.config.llm.model.name
            raise NotFoundError(f"The model does not exist here; the one that answers is {served}.", param="model", code="model_not_found")
        limit = min((replica.max_model_len for replica in self.directory.replicas), default=None)
        if limit and request.max_tokens and request.max_tokens > limit:
            field = "max_completion_tokens" if "max_completion_tokens" in request.body else "max_tokens"
            raise InvalidRequestError(f"{field} must be at most {limit}, the model's context length.", param=field, code="invalid_value")
        if refused := _NOT_FOR_CLIENTS & request.body.keys():
            raise InvalidRequestError("This field is not accepted here.", param=min(refused), code="unsupported_parameter")

    async def _retrieve(self, request: Generation, namespace: str) -> Generation:
        asked = request.retrieval
        if asked is None:
            return request
        if self.documents is None:
            raise InvalidRequestError("Retrieval is turned off here.", param="retrieval")
        limit = self.config.retrieval.max_top_k
        if asked.top_k > limit:
            raise InvalidRequestError(f"retrieval.top_k must be at most {limit}.", param="retrieval.top_k", code="invalid_value")
        messages = request.body["messages"]
        hits = await self.documents.search(namespace, asked.vector_store_ids, last_question(messages), asked.top_k)
        documents = tuple(hit.chunk.id for hit in hits)
        return replace(request, body={**request.body, "messages": assemble(messages, hits)}, documents=documents)

    def _audit(self, request: Generation, caller: Caller, lookup: Lookup) -> None:
        """Has the answer that was just served computed anew now and then."""

        async def compute() -> bytes | None:
            parsed = answers.from_json(await self._anew(request, caller, lookup.namespace))
            return None if parsed is None else msgspec.json.encode(parsed)

        if lookup.decision is not None:
            self.learner.hit(lookup.namespace, lookup.decision, lookup.policy.audit_share, compute)

    def _renew(self, request: Generation, caller: Caller, lookup: Lookup, entry: Entry) -> None:
        """Has the answer that was just served computed anew if it is past its soft end."""

        async def renew() -> str:
            anew = await self.tiers.to_renew(lookup)
            if anew is None:
                return "not_needed"
            self.tiers.keep(anew, answers.from_json, await self._anew(request, caller, lookup.namespace))
            return "renewed"

        self.renewals.served(entry, lookup.key, renew)

    async def _anew(self, request: Generation, caller: Caller, namespace: str) -> bytes:
        """The engine's answer as one piece, whatever the client asked for."""
        body = {key: value for key, value in request.body.items() if key not in ("stream", "stream_options")}
        whole = replace(request, stream=False, include_usage=False, body=body)
        return await read_answer(await send(self.client, whole, caller, namespace, self.policy.rank(self.directory.replicas)))

    def _replay(self, request: Generation, caller: Caller, entry: Entry, tier: str, similarity: float) -> Reply | None:
        """None for an answer that was damaged in the store: a doubt, and so a miss."""
        try:
            answer = answers.from_kept(entry.answer, request.kind)
        except msgspec.DecodeError:
            self.metrics.cache(tier, "damaged")
            return None
        created = int(self.clock())
        response_id = f"{'chatcmpl' if request.kind == 'chat' else 'cmpl'}-{caller.request_id}"
        headers = {**request.headers, "x-mygo-cache": tier, "x-mygo-similarity": f"{similarity:.4f}", "x-mygo-entry": entry.id}
        if request.stream:
            return Reply(200, headers, SSE_TYPE, answers.to_stream(answer, response_id, created, request.include_usage))
        return Reply(200, headers, JSON_TYPE, answers.to_json(answer, response_id, created))
