"""Puts documents into a chat: those that are found for its last question, as many as the model's context has room for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from deployments.replicas import ReplicaDirectory
from deployments.routing import Routing
from retrieval.config import RetrievalConfig
from retrieval.documents import SearchHit
from retrieval.order import Ranks
from retrieval.prompt import assemble
from serve_app.errors import InvalidRequestError
from serve_app.openai.keys import last_question
from serve_app.openai.requests import Generation, RetrievalOptions, Retrieved
from serve_app.relay import document_chat, engine_body, engine_call
from serve_app.services import DocumentService
from serve_app.tenants import Caller

ANSWER_TOKENS = 256
"""Room that documents leave for an answer whose length is not given."""
TEMPLATE_TOKENS = 256
"""At most what a chat template adds to a prompt's text."""


@dataclass(frozen=True, slots=True)
class Augmenter:
    """One for each request: it holds nothing."""

    config: RetrievalConfig
    documents: DocumentService | None
    directory: ReplicaDirectory
    routing: Routing

    async def augmented(self, request: Generation, asked: RetrievalOptions, caller: Caller, namespace: str) -> Generation:
        """The request with its documents by rank. Raises `InvalidRequestError` and what `DocumentService` does."""
        if self.documents is None:
            raise InvalidRequestError("Retrieval is turned off here.", param="retrieval")
        limit = self.config.max_top_k
        if asked.top_k > limit:
            raise InvalidRequestError(f"retrieval.top_k must be at most {limit}.", param="retrieval.top_k", code="invalid_value")
        messages = request.body["messages"]
        query = last_question(messages)
        found = await self.documents.search(namespace, asked.vector_store_ids, query, asked.top_k, asked.filter, asked.score_threshold)
        hits, scopes = found.hits, set(found.scopes.values())
        # What belongs to a group alone is shared by its members: so is its KV. What is mixed stays the tenant's.
        scope = scopes.pop() if len(scopes) == 1 else namespace
        whole = self._with(request, messages, hits, scope)
        left = await self._room(whole, caller, namespace)
        if left is None or left >= len(hits):
            return whole if asked.reorder else _in_order(whole)
        fitting = self._with(request, messages, hits[:left], scope, left_out=len(hits) - left)
        return fitting if asked.reorder else _in_order(fitting)

    def _with(
        self, request: Generation, messages: list[dict[str, Any]], hits: Sequence[SearchHit], scope: str, left_out: int = 0
    ) -> Generation:
        ranks = Ranks([hit.score for hit in hits], self.config.max_displacement, self.config.tie)
        body = {**request.body, "messages": assemble(messages, hits)}
        return replace(request, body=body, retrieved=Retrieved(messages, tuple(hits), scope, ranks, left_out))

    async def _room(self, request: Generation, caller: Caller, namespace: str) -> int | None:
        """How many of the documents there is room for; None: all of them, as far as can be told."""
        room = min((replica.max_model_len for replica in self.directory.replicas), default=0) - (request.max_tokens or ANSWER_TOKENS)
        if room <= 0 or request.prompt_bytes + TEMPLATE_TOKENS <= room:  # no token is shorter than a byte
            return None
        body = engine_body(request, namespace)
        chat = document_chat(request, engine_call(request, caller, body), body)
        lengths = await self.routing.lengths(chat) if chat else None
        if lengths is None:
            return None
        return sum(lengths[0] + total <= room for total in accumulate(lengths[1]))


def _in_order(request: Generation) -> Generation:
    return replace(request, retrieved=replace(request.retrieved, ranks=None)) if request.retrieved else request
