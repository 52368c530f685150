"""The routes for document collections: OpenAI's shapes, and documents given as texts."""

import re
from typing import Annotated, Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta

from retrieval.documents import Document, DocumentInfo, SearchHit, VectorStoreInfo, new_document
from serve_app.endpoint import Handler, HttpRequest
from serve_app.errors import InvalidRequestError, NotFoundError
from serve_app.openai.requests import check, parse_object
from serve_app.pipeline import Pipeline
from serve_app.replies import Reply, json_reply
from serve_app.tenants import tenant_of

Attributes = dict[str, str | float | bool]
_NUMBER = re.compile(r"[0-9]{1,9}")


class NewStore(msgspec.Struct, forbid_unknown_fields=True):
    name: str = ""
    metadata: dict[str, str] = {}


class NewDocument(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    id: str | None = None
    attributes: Attributes = {}


class NewDocuments(msgspec.Struct, forbid_unknown_fields=True):
    documents: Annotated[list[NewDocument], Meta(min_length=1, max_length=1000)]


class Search(msgspec.Struct, forbid_unknown_fields=True):
    query: Annotated[str, Meta(min_length=1)]
    max_num_results: Annotated[int, Meta(ge=1)] = 10


class Page(msgspec.Struct):
    """A part of a list: at most `limit` items behind the one with the id `after`, in the order of their ids."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    after: str = ""


class VectorStoreRoutes:
    """Thin: each is one call of `retrieval.service.RetrievalService` in the caller's namespace."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def table(self) -> dict[str, dict[str, Handler]]:
        store, document = "/v1/vector_stores/{store_id}", "/v1/vector_stores/{store_id}/documents/{document_id}"
        return {
            "/v1/vector_stores": {"GET": self.list_stores, "POST": self.create_store},
            store: {"GET": self.get_store, "DELETE": self.delete_store},
            f"{store}/search": {"POST": self.search},
            f"{store}/documents": {"GET": self.list_documents, "POST": self.add_documents},
            document: {"GET": self.get_document, "DELETE": self.delete_document},
        }

    async def _call(self, request: HttpRequest, method: str, *args: Any) -> Any:
        if self._pipeline.documents is None:
            raise NotFoundError("Retrieval is turned off here.")
        namespace = self._pipeline.authenticator.namespace(tenant_of(request.headers))
        return await self._pipeline.documents.call(method, namespace, *args)

    async def create_store(self, request: HttpRequest) -> Reply:
        asked = check(parse_object(request.body or b"{}"), NewStore)
        return json_reply(_store(await self._call(request, "create_store", asked.name, asked.metadata)))

    async def list_stores(self, request: HttpRequest) -> Reply:
        page = _page(request)
        return _list([_store(each) for each in await self._call(request, "list_stores", page.limit + 1, page.after)], page)

    async def get_store(self, request: HttpRequest) -> Reply:
        return json_reply(_store(await self._call(request, "get_store", request.path_params["store_id"])))

    async def delete_store(self, request: HttpRequest) -> Reply:
        store_id = request.path_params["store_id"]
        await self._call(request, "delete_store", store_id)
        return json_reply({"id": store_id, "object": "vector_store.deleted", "deleted": True})

    async def add_documents(self, request: HttpRequest) -> Reply:
        asked = check(parse_object(request.body), NewDocuments)
        documents = [new_document(each.text, each.attributes, each.id) for each in asked.documents]
        ids = await self._call(request, "add_documents", request.path_params["store_id"], documents)
        return json_reply({"object": "list", "data": [{"id": each, "object": "vector_store.document"} for each in ids]})

    async def list_documents(self, request: HttpRequest) -> Reply:
        page, store_id = _page(request), request.path_params["store_id"]
        return _list([_document(each) for each in await self._call(request, "list_documents", store_id, page.limit + 1, page.after)], page)

    async def get_document(self, request: HttpRequest) -> Reply:
        store_id, document_id = request.path_params["store_id"], request.path_params["document_id"]
        document: Document | None = await self._call(request, "get_document", store_id, document_id)
        if document is None:
            raise _no_document()
        shown = {"id": document.id, "object": "vector_store.document", "text": document.text}
        return json_reply({**shown, "attributes": dict(document.attributes)})

    async def delete_document(self, request: HttpRequest) -> Reply:
        document_id = request.path_params["document_id"]
        if not await self._call(request, "delete_document", request.path_params["store_id"], document_id):
            raise _no_document()
        return json_reply({"id": document_id, "object": "vector_store.document.deleted", "deleted": True})

    async def search(self, request: HttpRequest) -> Reply:
        asked = check(parse_object(request.body), Search)
        limit = self._pipeline.config.retrieval.max_top_k
        if asked.max_num_results > limit:
            raise InvalidRequestError(f"max_num_results must be at most {limit}.", param="max_num_results", code="invalid_value")
        store_ids = [request.path_params["store_id"]]
        found = await self._call(request, "search", store_ids, asked.query, asked.max_num_results)
        page = {"object": "vector_store.search_results.page", "search_query": [asked.query], "has_more": False, "next_page": None}
        return json_reply({**page, "data": [_hit(each) for each in found.hits]})


def _no_document() -> NotFoundError:
    return NotFoundError("There is no such document.", param="document_id", code="not_found")


def _page(request: HttpRequest) -> Page:
    """Raises `InvalidRequestError`."""
    asked = {key: value for key, value in parse_qsl(request.query) if key in ("limit", "after")}
    if _NUMBER.fullmatch(asked.get("limit", "1")):
        return check({**asked, **({"limit": int(asked["limit"])} if "limit" in asked else {})}, Page)
    raise InvalidRequestError("limit must be a number.", param="limit", code="invalid_value")


def _list(items: list[dict[str, Any]], page: Page) -> Reply:
    """`items` has one more than the page if there are more."""
    shown = items[: page.limit]
    ends = {"first_id": shown[0]["id"], "last_id": shown[-1]["id"]} if shown else {"first_id": None, "last_id": None}
    return json_reply({"object": "list", "data": shown, **ends, "has_more": len(items) > len(shown)})


def _store(info: VectorStoreInfo) -> dict[str, Any]:
    counts = {"in_progress": 0, "completed": info.documents, "failed": 0, "cancelled": 0, "total": info.documents}
    return {
        "id": info.id,
        "object": "vector_store",
        "created_at": int(info.created_at),
        "name": info.name,
        "status": "completed",
        "file_counts": counts,
        "usage_bytes": 0,
        "metadata": dict(info.metadata),
        "version": info.version,
    }


def _document(info: DocumentInfo) -> dict[str, Any]:
    return {
        "id": info.id,
        "object": "vector_store.document",
        "created_at": int(info.created_at),
        "bytes": info.bytes,
        "chunks": info.chunks,
        "attributes": dict(info.attributes),
    }


def _hit(hit: SearchHit) -> dict[str, Any]:
    return {
        "file_id": hit.chunk.document_id,
        "filename": hit.chunk.document_id,
        "chunk_id": hit.chunk.id,
        "score": hit.score,
        "attributes": dict(hit.chunk.attributes),
        "content": [{"type": "text", "text": hit.chunk.text}],
    }
