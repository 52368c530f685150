"""The routes for files in document collections, in OpenAI's shapes."""

from typing import Annotated, Any, get_args

import msgspec
from msgspec import Meta

from retrieval.chunking import unmarked
from retrieval.documents import MAX_BATCH, AttachedFile, Attachment, BatchInfo, Status
from serve_app.document_calls import Attributes, Chunking, DocumentCalls, chunking_of, list_reply, page_of, query_of
from serve_app.endpoint import Handler, HttpRequest
from serve_app.errors import InvalidRequestError
from serve_app.openai.requests import check, parse_object
from serve_app.replies import Reply, json_reply

STATUSES: tuple[Status, ...] = get_args(Status)
FileId = Annotated[str, Meta(min_length=1, max_length=64)]


class NewFile(msgspec.Struct, forbid_unknown_fields=True):
    file_id: FileId
    attributes: Attributes | None = None
    chunking_strategy: Chunking | None = None

    def attachment(self) -> Attachment:
        return Attachment(self.file_id, self.attributes or {}, chunking_of(self.chunking_strategy))


class NewBatch(msgspec.Struct, forbid_unknown_fields=True):
    file_ids: Annotated[list[FileId], Meta(min_length=1, max_length=MAX_BATCH)] | None = None
    files: Annotated[list[NewFile], Meta(min_length=1, max_length=MAX_BATCH)] | None = None
    attributes: Attributes | None = None
    chunking_strategy: Chunking | None = None

    def attachments(self) -> list[Attachment]:
        """Raises `InvalidRequestError`."""
        if (self.file_ids is None) == (self.files is None):
            raise InvalidRequestError("Give either file_ids or files.", param="file_ids", code="invalid_value")
        if self.files is not None:
            if self.attributes is not None or self.chunking_strategy is not None:
                raise InvalidRequestError("With files, attributes and chunking_strategy are each file's own.", param="files")
            return [each.attachment() for each in self.files]
        cutting = chunking_of(self.chunking_strategy)
        return [Attachment(each, self.attributes or {}, cutting) for each in self.file_ids or ()]


class NewAttributes(msgspec.Struct, forbid_unknown_fields=True):
    attributes: Attributes | None


class ListQuery(msgspec.Struct):
    filter: Status | None = None


class VectorStoreFileRoutes:
    def __init__(self, documents: DocumentCalls) -> None:
        self._documents = documents

    def table(self) -> dict[str, dict[str, Handler]]:
        store = "/v1/vector_stores/{store_id}"
        file, batch = f"{store}/files/{{file_id}}", f"{store}/file_batches/{{batch_id}}"
        return {
            f"{store}/files": {"GET": self.list_files, "POST": self.attach},
            file: {"GET": self.get, "POST": self.update, "DELETE": self.detach},
            f"{file}/content": {"GET": self.content},
            f"{store}/file_batches": {"POST": self.create_batch},
            batch: {"GET": self.get_batch},
            f"{batch}/cancel": {"POST": self.cancel_batch},
            f"{batch}/files": {"GET": self.list_batch},
        }

    async def _call(self, request: HttpRequest, method: str, *args: Any) -> Any:
        return await self._documents(request, method, request.path_params["store_id"], *args)

    def _reply(self, request: HttpRequest, file: AttachedFile) -> Reply:
        return json_reply(_file(file, request.path_params["store_id"]))

    async def attach(self, request: HttpRequest) -> Reply:
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise InvalidRequestError(
                'Upload the file to /v1/files first, then send the id that it got as JSON: {"file_id": "file-..."}.',
                param="file_id",
                code="invalid_content_type",
            )
        asked = check(parse_object(request.body), NewFile)
        with self._documents.admitted(request) as headers:
            file = await self._call(request, "attach_file", asked.attachment())
        return json_reply(_file(file, request.path_params["store_id"]), headers=headers)

    async def list_files(self, request: HttpRequest) -> Reply:
        return await self._list(request, None)

    async def list_batch(self, request: HttpRequest) -> Reply:
        return await self._list(request, request.path_params["batch_id"])

    async def _list(self, request: HttpRequest, batch: str | None) -> Reply:
        page, query = page_of(request), query_of(request)
        status = check({"filter": query["filter"]} if "filter" in query else {}, ListQuery).filter
        found = await self._call(request, "list_attached", page, status, batch)
        return list_reply([_file(each, request.path_params["store_id"]) for each in found], page)

    async def get(self, request: HttpRequest) -> Reply:
        return self._reply(request, await self._call(request, "get_attached", request.path_params["file_id"]))

    async def update(self, request: HttpRequest) -> Reply:
        attributes = check(parse_object(request.body), NewAttributes).attributes or {}
        return self._reply(request, await self._call(request, "update_attached", request.path_params["file_id"], attributes))

    async def detach(self, request: HttpRequest) -> Reply:
        file_id = request.path_params["file_id"]
        await self._call(request, "detach_file", file_id)
        return json_reply({"id": file_id, "object": "vector_store.file.deleted", "deleted": True})

    async def content(self, request: HttpRequest) -> Reply:
        text: str = await self._call(request, "attached_text", request.path_params["file_id"])
        page = {"object": "vector_store.file_content.page", "has_more": False, "next_page": None}
        return json_reply({**page, "data": [{"type": "text", "text": unmarked(text)}]})

    async def create_batch(self, request: HttpRequest) -> Reply:
        asked = check(parse_object(request.body), NewBatch)
        with self._documents.admitted(request) as headers:
            reply = self._batch(request, await self._call(request, "create_batch", asked.attachments()))
        reply.headers = {**reply.headers, **headers}
        return reply

    async def get_batch(self, request: HttpRequest) -> Reply:
        return self._batch(request, await self._call(request, "get_batch", request.path_params["batch_id"]))

    async def cancel_batch(self, request: HttpRequest) -> Reply:
        return self._batch(request, await self._call(request, "cancel_batch", request.path_params["batch_id"]))

    def _batch(self, request: HttpRequest, info: BatchInfo) -> Reply:
        status = "in_progress" if info.counts.get("in_progress") else "cancelled" if info.cancelled else "completed"
        return json_reply(
            {
                "id": info.id,
                "object": "vector_store.files_batch",
                "created_at": int(info.created_at),
                "vector_store_id": request.path_params["store_id"],
                "status": status,
                "file_counts": file_counts(info.counts),
            }
        )


def file_counts(counts: Any) -> dict[str, int]:
    """`counts`: by status; those that are missing are 0."""
    return {**{status: counts.get(status, 0) for status in STATUSES}, "total": sum(counts.values())}


def _file(file: AttachedFile, store_id: str) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "vector_store.file",
        "created_at": int(file.created_at),
        "vector_store_id": store_id,
        "filename": file.name,
        "status": file.status,
        "last_error": {"code": file.error_code, "message": file.error_message} if file.error_code else None,
        "usage_bytes": file.usage_bytes,
        "attributes": dict(file.attributes),
        "chunking_strategy": _chunking(file),
        "progress": {"chunks_done": file.chunks_done, "chunks_total": file.chunks_total},
    }


def _chunking(file: AttachedFile) -> dict[str, Any]:
    """A text that was given as a document was cut as is configured, now or then."""
    if not file.cutting.max_tokens:
        return {"type": "other"}
    static = {"max_chunk_size_tokens": file.cutting.max_tokens, "chunk_overlap_tokens": file.cutting.overlap_tokens}
    return {"type": "static", "static": static}
