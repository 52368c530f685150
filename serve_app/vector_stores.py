"""The routes for document collections: OpenAI's shapes, and documents given as texts."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from retrieval.documents import (
    FILE_PREFIX,
    MAX_BATCH,
    MAX_QUERIES,
    Attachment,
    Document,
    DocumentInfo,
    SearchHit,
    SearchRequest,
    VectorStoreInfo,
    new_document,
)
from retrieval.filters import parse_filter
from serve_app.document_calls import Attributes, Chunking, DocumentCalls, chunking_of, list_reply, page_of
from serve_app.endpoint import Handler, HttpRequest
from serve_app.errors import InvalidRequestError, NotFoundError
from serve_app.openai.requests import check, parse_object
from serve_app.replies import Reply, json_reply
from serve_app.vector_store_files import FileId, file_counts

_NOT_HAD = ("expires_after", "description")
"""OpenAI's options that collections do not have here."""


class NewStore(msgspec.Struct, forbid_unknown_fields=True):
    name: str | None = None
    metadata: dict[str, str] | None = None
    file_ids: Annotated[list[FileId], Meta(max_length=MAX_BATCH)] | None = None
    chunking_strategy: Chunking | None = None
    group: str | None = None


class ChangedStore(msgspec.Struct, forbid_unknown_fields=True):
    name: str | None = None
    metadata: dict[str, str] | None = None


class NewDocument(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    id: str | None = None
    attributes: Attributes = {}


class NewDocuments(msgspec.Struct, forbid_unknown_fields=True):
    documents: Annotated[list[NewDocument], Meta(min_length=1, max_length=1000)]


class Ranking(msgspec.Struct, forbid_unknown_fields=True):
    ranker: Literal["auto", "none"] = "auto"
    score_threshold: Annotated[float, Meta(ge=0, le=1)] | None = None


Query = Annotated[str, Meta(min_length=1)]


class Search(msgspec.Struct, forbid_unknown_fields=True):
    query: Query | Annotated[list[Query], Meta(min_length=1, max_length=MAX_QUERIES)]
    max_num_results: Annotated[int, Meta(ge=1)] = 10
    filters: dict[str, Any] | None = None
    ranking_options: Ranking | None = None
    rewrite_query: bool = False


class VectorStoreRoutes:
    """Thin: each is one call of `retrieval.tier.RetrievalTier`."""

    def __init__(self, documents: DocumentCalls) -> None:
        self._call = documents

    def table(self) -> dict[str, dict[str, Handler]]:
        store, document = "/v1/vector_stores/{store_id}", "/v1/vector_stores/{store_id}/documents/{document_id}"
        return {
            "/v1/vector_stores": {"GET": self.list_stores, "POST": self.create_store},
            store: {"GET": self.get_store, "POST": self.update_store, "DELETE": self.delete_store},
            f"{store}/search": {"POST": self.search},
            f"{store}/documents": {"GET": self.list_documents, "POST": self.add_documents},
            document: {"GET": self.get_document, "DELETE": self.delete_document},
        }

    async def create_store(self, request: HttpRequest) -> Reply:
        asked = check(_had(parse_object(request.body or b"{}")), NewStore)
        cutting = chunking_of(asked.chunking_strategy)
        attachments = [Attachment(each, cutting=cutting) for each in asked.file_ids or ()]
        info = await self._call(request, "create_store", asked.name or "", asked.metadata or {}, asked.group, attachments)
        return json_reply(_store(info))

    async def update_store(self, request: HttpRequest) -> Reply:
        asked = check(_had(parse_object(request.body)), ChangedStore)
        return json_reply(_store(await self._call(request, "update_store", request.path_params["store_id"], asked.name, asked.metadata)))

    async def list_stores(self, request: HttpRequest) -> Reply:
        page = page_of(request)
        return list_reply([_store(each) for each in await self._call(request, "list_stores", page)], page)

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
        page, store_id = page_of(request, order="asc"), request.path_params["store_id"]
        return list_reply([_document(each) for each in await self._call(request, "list_documents", store_id, page)], page)

    async def get_document(self, request: HttpRequest) -> Reply:
        store_id, document_id = request.path_params["store_id"], request.path_params["document_id"]
        document: Document | None = await self._call(request, "get_document", store_id, document_id)
        if document is None:
            raise _no_document()
        shown = {"id": document.id, "object": "vector_store.document", "text": document.text}
        return json_reply({**shown, "attributes": dict(document.attributes)})

    async def delete_document(self, request: HttpRequest) -> Reply:
        store_id, document_id = request.path_params["store_id"], request.path_params["document_id"]
        if document_id.startswith(FILE_PREFIX):
            raise NotFoundError(
                "There is no such document; a file is taken out of a vector store by DELETE /v1/vector_stores/{id}/files/{file_id}.",
                param="document_id",
                code="not_found",
            )
        if not await self._call(request, "delete_document", store_id, document_id):
            raise _no_document()
        return json_reply({"id": document_id, "object": "vector_store.document.deleted", "deleted": True})

    async def search(self, request: HttpRequest) -> Reply:
        asked = check(parse_object(request.body), Search)
        limit = self._call.config.max_top_k
        if asked.max_num_results > limit:
            raise InvalidRequestError(f"max_num_results must be at most {limit}.", param="max_num_results", code="invalid_value")
        if asked.rewrite_query:
            raise InvalidRequestError("Queries are not rewritten here.", param="rewrite_query", code="unsupported_parameter")
        if asked.filters is not None:
            parse_filter(asked.filters, "filters")
        threshold = asked.ranking_options.score_threshold if asked.ranking_options else None
        queries = [asked.query] if isinstance(asked.query, str) else asked.query
        search = SearchRequest([request.path_params["store_id"]], queries, asked.max_num_results, asked.filters, threshold)
        found = await self._call.service().search(self._call.reach(request), search)
        page = {"object": "vector_store.search_results.page", "search_query": queries, "has_more": False, "next_page": None}
        return json_reply({**page, "data": [_hit(each) for each in found.hits]})


def _had(body: dict[str, Any]) -> dict[str, Any]:
    """Raises `InvalidRequestError` for an option that nobody here would heed. Nulls ask for nothing."""
    for option in _NOT_HAD:
        if body.get(option) is not None:
            raise InvalidRequestError(f"{option} is not supported here: leave it out.", param=option, code="unsupported_parameter")
    return {key: value for key, value in body.items() if value is not None or key not in _NOT_HAD}


def _no_document() -> NotFoundError:
    return NotFoundError("There is no such document.", param="document_id", code="not_found")


def _store(info: VectorStoreInfo) -> dict[str, Any]:
    return {
        "id": info.id,
        "object": "vector_store",
        "created_at": int(info.created_at),
        "name": info.name,
        "status": "in_progress" if info.counts.get("in_progress") else "completed",
        "file_counts": file_counts(info.counts),
        "usage_bytes": info.usage_bytes,
        "last_active_at": None,  # the reference's: nothing here ends for want of use, so nobody notes it
        "metadata": dict(info.metadata),
        "version": info.version,
        **({"group": info.group} if info.group else {}),
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
        "filename": hit.chunk.filename,
        "chunk_id": hit.chunk.id,
        "score": hit.score,
        "attributes": dict(hit.chunk.attributes),
        "content": [{"type": "text", "text": hit.chunk.text}],
    }
