"""Puts documents into a chat: those that are found for its last question, as many as the model's context has room for."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from deployments.head_start import HeadStart
from deployments.replicas import ReplicaDirectory
from deployments.routing import Routing
from retrieval.config import RetrievalConfig
from retrieval.documents import SearchHit, SearchRequest, SearchResult
from retrieval.errors import DocumentError, UnknownStoreError, UnknownTicketError
from retrieval.order import Ranks
from retrieval.prompt import assemble, without_control
from retrieval.scopes import Caller as DocumentCaller
from retrieval.scopes import namespace_of
from retrieval.wording import sentence
from serve_app.content.guard import Guard
from serve_app.content.texts import permitted_hits
from serve_app.errors import InvalidRequestError, NotFoundError, to_api_error
from serve_app.openai.keys import last_question
from serve_app.openai.requests import Generation, RetrievalOptions, Retrieved
from serve_app.relay import engine_request
from serve_app.services import DocumentService
from serve_app.tenants import Caller, Namespaces

log = logging.getLogger("ray.serve")

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
    namespaces: Namespaces
    guard: Guard | None = None
    """The tenant's content rules."""

    async def augmented(self, request: Generation, asked: RetrievalOptions, caller: Caller, namespace: str) -> Generation:
        """The request with its documents by rank. Raises `InvalidRequestError`, `NotFoundError`, and what `DocumentService` does."""
        if self.documents is None:
            raise InvalidRequestError("Retrieval is turned off here.", param="retrieval")
        limit = self.config.max_top_k
        if asked.top_k > limit:
            raise InvalidRequestError(f"retrieval.top_k must be at most {limit}.", param="retrieval.top_k", code="invalid_value")
        query = last_question(request.body["messages"])
        search = SearchRequest(asked.vector_store_ids, [query], asked.top_k, asked.filters, asked.score_threshold)
        try:
            if asked.reorder and self.routing.may_start_early:
                found, start = await self._in_two_steps(self.documents, search, request, caller, namespace)
            else:
                found, start = await self._permitted(await self.documents.search(self.namespaces.reach(caller.principal), search)), None
        except UnknownStoreError as error:
            raise _no_store(error, asked.vector_store_ids) from None
        except DocumentError as error:
            param = "retrieval.vector_store_ids"
            raise InvalidRequestError(sentence(str(error), param), param=param, code="invalid_value") from None
        try:
            whole = self._with(request, found, namespace, len(found.hits), start)
            left = await self._room(whole, caller, namespace)
        except BaseException:
            if start:
                self.routing.leave(start)
            raise
        if left is not None and left < len(found.hits):
            whole = self._with(request, found, namespace, left, start)
        return whole if asked.reorder else _in_order(whole)

    async def _in_two_steps(
        self, documents: DocumentService, search: SearchRequest, request: Generation, caller: Caller, namespace: str
    ) -> tuple[SearchResult, HeadStart | None]:
        """The documents, and what was begun with while they were searched for. It is to be left in every case."""
        reach = self.namespaces.reach(caller.principal)
        begun = await documents.begin_search(reach, search)
        provisional = await self._permitted(begun.result)
        if begun.ticket is None:
            return provisional, None
        began = self.routing.router.clock()
        starting = asyncio.ensure_future(self._head_start(request, provisional, caller, namespace))
        try:
            found = await self._permitted(await _ended(documents, reach, begun.ticket, search))
        except BaseException:
            if start := _begun(starting):
                self.routing.leave(start)
            raise
        self.routing.gate.seen(self.routing.router.clock() - began, lasting(provisional.hits, found.hits))
        return found, _begun(starting)

    async def _permitted(self, found: SearchResult) -> SearchResult:
        return replace(found, hits=await permitted_hits(self.guard, found.hits)) if self.guard else found

    async def _head_start(self, request: Generation, provisional: SearchResult, caller: Caller, namespace: str) -> HeadStart | None:
        request = self._with(request, provisional, namespace, len(provisional.hits))
        _, salt, chat = engine_request(request, caller, namespace)
        return await self.routing.head_start(salt, chat) if chat and request.adapter is None else None

    def _with(self, request: Generation, found: SearchResult, namespace: str, count: int, start: HeadStart | None = None) -> Generation:
        """The request with the best `count` of the documents."""
        messages = request.body["messages"]
        hits = without_control(found.hits[:count], next((replica.control_tokens for replica in self.directory.replicas), ()))
        scopes = set(found.scopes.values())
        # What belongs to a group alone is shared by its members: so is its KV. What is mixed, or has no documents, stays the tenant's.
        scope = scopes.pop() if hits and len(scopes) == 1 else namespace
        ranks = Ranks([hit.score for hit in hits], self.config.max_displacement, self.config.tie)
        retrieved = Retrieved(messages, tuple(hits), scope, ranks, len(found.hits) - count, start)
        return replace(request, body={**request.body, "messages": assemble(messages, hits)}, retrieved=retrieved)

    async def _room(self, request: Generation, caller: Caller, namespace: str) -> int | None:
        """How many of the documents there is room for; None: all of them, as far as can be told."""
        room = min((replica.max_model_len for replica in self.directory.replicas), default=0) - (request.max_tokens or ANSWER_TOKENS)
        if room <= 0 or request.prompt_bytes + TEMPLATE_TOKENS <= room:  # no token is shorter than a byte
            return None
        _, _, chat = engine_request(request, caller, namespace)
        lengths = await self.routing.lengths(chat) if chat else None
        if lengths is None:
            return None
        return sum(lengths[0] + total <= room for total in accumulate(lengths[1]))


def _no_store(error: UnknownStoreError, asked: list[str]) -> NotFoundError:
    at = asked.index(error.id) if error.id in asked else 0 if len(asked) == 1 else None
    param = "retrieval.vector_store_ids" + ("" if at is None else f"[{at}]")
    return NotFoundError(to_api_error(error).message, param=param, code="not_found")


async def _ended(documents: DocumentService, reach: DocumentCaller, ticket: str, search: SearchRequest) -> SearchResult:
    try:
        return await documents.end_search(namespace_of(reach), ticket)
    except UnknownTicketError:  # another process took over, or it was forgotten in a rush
        return await documents.search(reach, search)


def _begun(starting: "asyncio.Task[HeadStart | None]") -> HeadStart | None:
    """What has begun by now; nothing will afterwards."""
    if not starting.done():
        starting.cancel()
        return None
    if error := starting.exception():
        log.error("a head start failed", exc_info=error)
        return None
    return starting.result()


def _in_order(request: Generation) -> Generation:
    return replace(request, retrieved=replace(request.retrieved, ranks=None)) if request.retrieved else request


def lasting(provisional: Sequence[SearchHit], final: Sequence[SearchHit]) -> float:
    """Share of the provisional documents that come before the first one that did not last."""
    lasted = {hit.chunk.id for hit in final}
    count = next((place for place, hit in enumerate(provisional) if hit.chunk.id not in lasted), len(provisional))
    return count / len(provisional) if provisional else 0.0
