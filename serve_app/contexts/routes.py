"""The routes for kept contexts, in Kimi's shapes: `/v1/caching`, and the tags that tenants give them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from deployments.errors import NoReplicaError
from retrieval.documents import new_id
from serve_app.contexts.asked import TAG, Metadata, seconds_of
from serve_app.contexts.schema import MAX_DESCRIPTION_CHARS, MAX_NAME_CHARS
from serve_app.contexts.service import Contexts
from serve_app.contexts.store import PREFIX, Context, ContextStore, Tag, over_quota
from serve_app.document_calls import list_reply, page_of
from serve_app.endpoint import Handler, HttpRequest
from serve_app.errors import InvalidRequestError, NotFoundError, QuotaError
from serve_app.openai.requests import CacheOptions, ChatMessage, Generation, check, parse_object
from serve_app.pipeline import Pipeline
from serve_app.replies import Reply, json_reply
from serve_app.tenants import caller_of

TagName = Annotated[str, Meta(pattern=rf"^{TAG}\Z")]
MAX_TAGS = 16


class NewContext(msgspec.Struct, forbid_unknown_fields=True):
    model: str
    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    tools: list[dict[str, Any]] | None = None
    name: Annotated[str, Meta(max_length=MAX_NAME_CHARS)] = ""
    description: Annotated[str, Meta(max_length=MAX_DESCRIPTION_CHARS)] = ""
    metadata: Metadata | None = None
    expired_at: int | None = None
    ttl: int | str | None = None
    tags: Annotated[list[TagName], Meta(max_length=MAX_TAGS)] = []


class ChangedContext(msgspec.Struct, forbid_unknown_fields=True):
    metadata: Metadata | None = None
    expired_at: int | None = None
    ttl: int | str | None = None


class NewTag(msgspec.Struct, forbid_unknown_fields=True):
    tag: TagName
    cache_id: str


class ContextRoutes:
    """Of one ingress."""

    def __init__(self, pipeline: Pipeline, contexts: Contexts, clock: Callable[[], float]) -> None:
        self._pipeline = pipeline
        self._contexts = contexts
        self._clock = clock

    def table(self) -> dict[str, dict[str, Handler]]:
        tag = "/v1/caching/refs/tags/{tag}"
        return {
            "/v1/caching": {"GET": self.list, "POST": self.create},
            "/v1/caching/refs/tags": {"GET": self.list_tags, "POST": self.set_tag},
            tag: {"GET": self.get_tag, "DELETE": self.delete_tag},
            f"{tag}/content": {"GET": self.tagged},
            "/v1/caching/{cache_id}": {"GET": self.get, "PUT": self.change, "DELETE": self.delete},
        }

    async def create(self, request: HttpRequest) -> Reply:
        """Computes the context's prefix, as a chat with one token for an answer would, and has it kept from then on."""
        body = parse_object(request.body)
        asked = check(body, NewContext)
        now = self._clock()
        end = self._end(asked.expired_at, asked.ttl, now)
        namespace, messages, tools = self._namespace(request), body["messages"], body.get("tools")
        chat = {"model": asked.model, "messages": messages, "max_tokens": 1, "temperature": 0, **({"tools": tools} if tools else {})}
        generation = Generation("chat", chat, asked.model, False, False, CacheOptions(mode="off"), None, 1)
        caller = caller_of(request.headers, request.id, request.principal)
        arrival = self._pipeline.arrive(generation, caller)
        if refusal := self._pipeline.refusal(arrival):
            raise refusal
        if arrival.ruled:  # a long prompt is not checked before
            arrival = replace(arrival, request=await arrival.ruled.permitted())
        model, passed = arrival.request.model, arrival.request.body  # its own name, and masked by content rules
        messages, tools = passed["messages"], passed.get("tools", tools)
        measured = await self._contexts.measure(model, messages, tools, namespace)
        if measured is None and not self._pipeline.directory.replicas:
            raise NoReplicaError("no replica takes the request")
        if measured is None:
            message = "The messages are too short to be kept, have more than text, or are no chat for this model."
            raise InvalidRequestError(message, param="messages", code="invalid_value")
        most, tokens = self._contexts.limit(request.principal), len(measured.tokens)
        if most is not None and self._contexts.is_too_much(namespace, measured.keys, most):  # before anything is computed for it
            raise over_quota(tokens, most)
        answered = await self._pipeline.answer(arrival)
        await answered.close()
        said = asked.name, asked.description, asked.metadata or {}
        context = Context(new_id(PREFIX, now), namespace, model, messages, tools, *said, tokens, now, end)
        await self._contexts.call(ContextStore.create, context, asked.tags, most)
        if await self._contexts.made(context, measured) == "full":
            await self._contexts.call(ContextStore.delete, namespace, context.id, now)
            self._contexts.forget(context.id)
            raise QuotaError(f"No replica has room to keep {tokens} tokens more (llm.kept_share).", code="context_capacity")
        return json_reply(self._shown(context), headers=answered.headers)

    async def list(self, request: HttpRequest) -> Reply:
        page = page_of(request)
        found = await self._contexts.call(ContextStore.page, self._namespace(request), page, self._clock())
        return list_reply([self._shown(context) for context in found], page)

    async def get(self, request: HttpRequest) -> Reply:
        return json_reply(self._shown(await self._context(request, request.path_params["cache_id"])))

    async def change(self, request: HttpRequest) -> Reply:
        asked = check(parse_object(request.body), ChangedContext)
        now = self._clock()
        end = None if asked.expired_at is None and asked.ttl is None else self._end(asked.expired_at, asked.ttl, now)
        where = self._namespace(request), request.path_params["cache_id"]
        context = await self._contexts.call(ContextStore.change, *where, end, asked.metadata, now)
        self._contexts.changed(context)
        return json_reply(self._shown(context))

    async def delete(self, request: HttpRequest) -> Reply:
        context_id = request.path_params["cache_id"]
        await self._contexts.call(ContextStore.delete, self._namespace(request), context_id, self._clock())
        self._contexts.forget(context_id)
        return json_reply({"id": context_id, "object": "context_cache_object.deleted", "deleted": True})

    async def set_tag(self, request: HttpRequest) -> Reply:
        asked = check(parse_object(request.body), NewTag)
        found = await self._contexts.call(ContextStore.set_tag, self._namespace(request), asked.tag, asked.cache_id, self._clock())
        return json_reply(_tag(found))

    async def list_tags(self, request: HttpRequest) -> Reply:
        found = await self._contexts.call(ContextStore.tags, self._namespace(request))
        return json_reply({"object": "list", "data": [_tag(each) for each in found]})

    async def get_tag(self, request: HttpRequest) -> Reply:
        return json_reply(_tag(await self._tag(request)))

    async def tagged(self, request: HttpRequest) -> Reply:
        return json_reply(self._shown(await self._context(request, (await self._tag(request)).context_id)))

    async def delete_tag(self, request: HttpRequest) -> Reply:
        tag = request.path_params["tag"]
        await self._contexts.call(ContextStore.delete_tag, self._namespace(request), tag)
        return json_reply({"tag": tag, "object": "cache_object.tag.deleted", "deleted": True})

    async def _tag(self, request: HttpRequest) -> Tag:
        found: Tag = await self._contexts.call(ContextStore.tag, self._namespace(request), request.path_params["tag"])
        return found

    async def _context(self, request: HttpRequest, context_id: str) -> Context:
        found: Context = await self._contexts.call(ContextStore.get, self._namespace(request), context_id, self._clock())
        return found

    def _namespace(self, request: HttpRequest) -> str:
        return self._pipeline.namespaces.of(request.principal.tenant)

    def _end(self, expired_at: int | None, ttl: int | str | None, now: float) -> float:
        """Raises `InvalidRequestError`."""
        if expired_at is not None and ttl is not None:
            raise InvalidRequestError("Give ttl or expired_at, not both.", param="ttl", code="invalid_value")
        if expired_at is None:
            return now + seconds_of(ttl, "ttl")
        seconds_of(int(expired_at - now + 0.999), "expired_at")
        return float(expired_at)

    def _shown(self, context: Context) -> dict[str, Any]:
        return {
            "id": context.id,
            "object": "context_cache_object",
            "status": "ready" if self._contexts.is_held(context.id) else "pending",
            "model": context.model,
            "messages": context.messages,
            "tools": context.tools,
            "name": context.name,
            "description": context.description,
            "metadata": context.metadata,
            "tokens": context.tokens,
            "created_at": int(context.created_at),
            "expired_at": int(context.expires_at),
        }


class NoContextRoutes:
    """In the place of `ContextRoutes` where nothing is kept."""

    def table(self) -> dict[str, dict[str, Handler]]:
        all_methods: dict[str, Handler] = dict.fromkeys(("GET", "POST", "PUT", "DELETE"), self.refuse)
        return {"/v1/caching": {"GET": self.refuse, "POST": self.refuse}, "/v1/caching/{path:path}": all_methods}

    async def refuse(self, request: HttpRequest) -> Reply:
        raise NotFoundError("Nothing is kept here: contexts.enabled or llm.kept_share in the configuration says so.", code="no_contexts")


def _tag(found: Tag) -> dict[str, Any]:
    return {"tag": found.tag, "cache_id": found.context_id, "object": "cache_object.tag", "created_at": int(found.created_at)}
