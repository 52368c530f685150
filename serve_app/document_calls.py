"""What the routes for documents have in common: calls in the caller's namespace, pages, and values that several bodies have."""

import re
from typing import Any, Literal
from urllib.parse import parse_qsl

import msgspec

from retrieval.config import RetrievalConfig
from retrieval.documents import ChunkingStrategy, Page
from retrieval.scopes import Caller
from serve_app.endpoint import HttpRequest
from serve_app.errors import InvalidRequestError, NotFoundError
from serve_app.openai.requests import check
from serve_app.pipeline import Pipeline
from serve_app.replies import Reply, json_reply
from serve_app.services import DocumentService

Attributes = dict[str, str | int | float | bool]
"""Integers stay what they are, so that those which are too large for a double can be refused."""
MAX_PAGE = 100
_NUMBER = re.compile(r"[0-9]{1,9}")


class DocumentCalls:
    """Thin: each call is one of `retrieval.tier.RetrievalTier`, for the request's caller."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    @property
    def config(self) -> RetrievalConfig:
        return self._pipeline.config.retrieval

    def reach(self, request: HttpRequest) -> Caller:
        return self._pipeline.namespaces.reach(request.principal)

    def service(self) -> DocumentService:
        """Raises `NotFoundError` where there is none."""
        if self._pipeline.documents is None:
            raise NotFoundError("Retrieval is turned off here.")
        return self._pipeline.documents

    async def __call__(self, request: HttpRequest, method: str, *args: Any) -> Any:
        service = self.service()
        return await service.call(method, self.reach(request), *args)


class Static(msgspec.Struct, forbid_unknown_fields=True):
    max_chunk_size_tokens: int
    chunk_overlap_tokens: int


class Chunking(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["auto", "static"]
    static: Static | None = None

    def cutting(self) -> ChunkingStrategy | None:
        """None: as configured. Raises `InvalidRequestError`."""
        if (self.type == "static") != (self.static is not None):
            raise InvalidRequestError(
                "chunking_strategy.static is for the type static, and required there.", param="chunking_strategy.static"
            )
        return ChunkingStrategy(self.static.max_chunk_size_tokens, self.static.chunk_overlap_tokens) if self.static else None


def chunking_of(asked: Chunking | None) -> ChunkingStrategy | None:
    return asked.cutting() if asked else None


class PageQuery(msgspec.Struct):
    """Of a list: what is behind the item with the id `after` and before the one with the id `before`."""

    after: str = ""
    before: str = ""
    order: Literal["asc", "desc"] = "desc"


def query_of(request: HttpRequest) -> dict[str, str]:
    """The last value of each name counts."""
    return dict(parse_qsl(request.query))


def page_of(request: HttpRequest, order: Literal["asc", "desc"] = "desc", most: int = MAX_PAGE, usual: int = 20) -> Page:
    """One item more than is asked for, so that it is known whether there are more. Raises `InvalidRequestError`."""
    query = query_of(request)
    asked: dict[str, Any] = {"order": order, **{key: query[key] for key in ("after", "before", "order") if key in query}}
    limit = query.get("limit", str(usual))
    if not _NUMBER.fullmatch(limit):
        raise InvalidRequestError("limit must be a number.", param="limit", code="invalid_value")
    if not 1 <= int(limit) <= most:
        raise InvalidRequestError(f"limit must be 1 to {most}.", param="limit", code="invalid_value")
    page = check(asked, PageQuery)
    return Page(int(limit) + 1, page.after, page.before, page.order == "desc")


def list_reply(items: list[dict[str, Any]], page: Page) -> Reply:
    """`items`: of `page`, which has one more than is shown: the first of a page that ends before an item, the last of any other."""
    shown = items[1 - page.limit :] if page.before and not page.after else items[: page.limit - 1]
    ends = {"first_id": shown[0]["id"], "last_id": shown[-1]["id"]} if shown else {"first_id": None, "last_id": None}
    return json_reply({"object": "list", "data": shown, **ends, "has_more": len(items) > len(shown)})
