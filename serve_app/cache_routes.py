"""The routes for a tenant's own cache: what it holds, and ending it."""

import re
from typing import Annotated, Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta

from cache.entry import Entry
from cache.guards.text import normal_form
from cache.semantic import Audits
from cache.stores.base import ALL, EntryInfo, Filter, Stats, model_scope, tag_scope
from serve_app.endpoint import Handler, HttpRequest
from serve_app.errors import InvalidRequestError, NotFoundError
from serve_app.openai.requests import Tag, check, parse_object
from serve_app.pipeline import Pipeline
from serve_app.replies import Reply, json_reply

_NUMBER = re.compile(r"[0-9]{1,9}")


class Page(msgspec.Struct):
    """A part of the list: at most `limit` entries behind the one with the id `after`, in the order of their ids."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    after: Annotated[str, Meta(max_length=64)] = ""
    model: Annotated[str, Meta(max_length=255)] | None = None
    tag: Annotated[str, Meta(max_length=64)] | None = None


class Invalidation(msgspec.Struct, forbid_unknown_fields=True):
    """Exactly one of them."""

    all: bool | None = None
    model: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    tag: Tag | None = None


class Feedback(msgspec.Struct, forbid_unknown_fields=True):
    """`correct: false`: the entry never answers this question again; with `delete`, or if the question is its own, no other one either."""

    entry_id: Annotated[str, Meta(min_length=1, max_length=64)]
    question: Annotated[str, Meta(min_length=1)]
    correct: bool
    delete: bool = False


class CacheRoutes:
    """Thin: each is one or two calls of `cache.semantic.SemanticCache` in the caller's namespace."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def table(self) -> dict[str, dict[str, Handler]]:
        return for_whole_cache(
            {
                "/v1/cache/entries": {"GET": self.list_entries},
                "/v1/cache/entries/{entry_id}": {"GET": self.get_entry, "DELETE": self.delete_entry},
                "/v1/cache/invalidate": {"POST": self.invalidate},
                "/v1/cache/feedback": {"POST": self.feedback},
                "/v1/cache/stats": {"GET": self.stats},
            }
        )

    def _namespace(self, request: HttpRequest) -> str:
        return self._pipeline.namespaces.of(request.principal.tenant)

    async def _call(self, request: HttpRequest, method: str, *args: Any) -> Any:
        return await self._pipeline.tiers.cache.call(method, self._namespace(request), *args)

    async def _change(self, request: HttpRequest, method: str, *args: Any) -> Any:
        """As `_call`, for what ends entries."""
        return await self._pipeline.tiers.change(method, self._namespace(request), *args)

    def _own_name(self, model: str | None) -> str | None:
        """What answers are kept under."""
        return None if model is None else self._pipeline.config.llm.model.own_name(model)

    async def list_entries(self, request: HttpRequest) -> Reply:
        page = _page(request)
        found: list[EntryInfo] = await self._call(request, "page", Filter(self._own_name(page.model), page.tag), page.after, page.limit + 1)
        shown = [_info(each) for each in found[: page.limit]]
        ends = {"first_id": shown[0]["id"], "last_id": shown[-1]["id"]} if shown else {"first_id": None, "last_id": None}
        return json_reply({"object": "list", "data": shown, **ends, "has_more": len(found) > len(shown)})

    async def get_entry(self, request: HttpRequest) -> Reply:
        entry: Entry | None = await self._call(request, "get", request.path_params["entry_id"])
        if entry is None:
            raise _no_entry("entry_id")
        kept = {"id": entry.id, "object": "cache.entry", "created_at": int(entry.created_at), "expires_at": int(entry.expires_at)}
        return json_reply({**kept, "model": entry.model, "text": entry.text, "tags": entry.tags, "answer": _shown(entry.answer)})

    async def delete_entry(self, request: HttpRequest) -> Reply:
        entry_id = request.path_params["entry_id"]
        if not await self._change(request, "delete", [entry_id]):
            raise _no_entry("entry_id")
        return json_reply({"id": entry_id, "object": "cache.entry.deleted", "deleted": True})

    async def invalidate(self, request: HttpRequest) -> Reply:
        asked = check(parse_object(request.body), Invalidation)
        epoch = await self._change(request, "invalidate", _scope(asked, self._own_name(asked.model)))
        return json_reply({"object": "cache.invalidation", "epoch": epoch})

    async def feedback(self, request: HttpRequest) -> Reply:
        said = check(parse_object(request.body), Feedback)
        if not said.correct:
            await self._end_wrong(request, said)
        return json_reply({"object": "cache.feedback", "entry_id": said.entry_id, "recorded": not said.correct})

    async def _end_wrong(self, request: HttpRequest, said: Feedback) -> None:
        entry: Entry | None = await self._call(request, "get", said.entry_id)
        if entry is None:
            await self._change(request, "delete", [said.entry_id])  # which ends what a process holds in memory only
            raise _no_entry("entry_id")
        # To its own question it is an exact hit, which no denial keeps back; and then it is right for no other one.
        if said.delete or entry.text is None or normal_form(entry.text) == normal_form(said.question):
            await self._change(request, "delete", [entry.id])
        else:
            await self._call(request, "deny", entry.id, said.question)

    async def stats(self, request: HttpRequest) -> Reply:
        stats: Stats = await self._call(request, "stats")
        audits: Audits = await self._call(request, "audits")
        counts = {"entries": stats.entries, "bytes": stats.bytes, "hits": stats.hits, "tokens_saved": stats.tokens_saved}
        wrong = {"audited": audits.number, "wrong": audits.wrong, "share_low": round(audits.low, 6), "share_high": round(audits.high, 6)}
        return json_reply({"object": "cache.stats", **counts, "false_hits": wrong})


def _shown(answer: bytes) -> Any:
    """None for one that was damaged in the store."""
    try:
        return msgspec.json.decode(answer)
    except msgspec.DecodeError:
        return None


def _page(request: HttpRequest) -> Page:
    """Raises `InvalidRequestError`."""
    asked: dict[str, Any] = {key: value for key, value in parse_qsl(request.query) if key in Page.__struct_fields__}
    if not _NUMBER.fullmatch(asked.get("limit", "1")):
        raise InvalidRequestError("limit must be a number.", param="limit", code="invalid_value")
    return check({**asked, **({"limit": int(asked["limit"])} if "limit" in asked else {})}, Page)


def _scope(asked: Invalidation, model: str | None) -> str:
    """`model`: by its own name. Raises `InvalidRequestError`."""
    scopes = [
        *([ALL] if asked.all else []),
        *([model_scope(model)] if model is not None else []),
        *([tag_scope(asked.tag)] if asked.tag is not None else []),
    ]
    if len(scopes) != 1:
        raise InvalidRequestError("Exactly one of all, model and tag is needed.", code="invalid_value")
    return scopes[0]


def _info(info: EntryInfo) -> dict[str, Any]:
    times = {"created_at": int(info.created_at), "expires_at": int(info.expires_at), "last_used_at": int(info.last_used_at)}
    counts = {"hits": info.hits, "tokens": info.tokens, "bytes": info.size}
    return {"id": info.id, "object": "cache.entry", "model": info.model, "text": info.text, **times, **counts, "tags": info.tags}


def _no_entry(param: str) -> NotFoundError:
    return NotFoundError("There is no such entry.", param=param, code="not_found")


def for_whole_cache(table: dict[str, dict[str, Handler]]) -> dict[str, dict[str, Handler]]:
    """The routes, for keys that may have all that is kept for their tenant."""

    def guarded(handler: Handler) -> Handler:
        async def guard(request: HttpRequest) -> Reply:
            request.principal.require_cache()
            return await handler(request)

        return guard

    return {path: {method: guarded(handler) for method, handler in methods.items()} for path, methods in table.items()}
