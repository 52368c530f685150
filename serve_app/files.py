"""The routes for uploaded files, in OpenAI's shapes. Bytes go to the retrieval deployment as they come, part by part, and come back so."""

import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from retrieval.documents import FileInfo
from retrieval.files import MAX_PART_BYTES, check_filename, check_purpose
from retrieval.wording import sentence, unknown_field
from serve_app.document_calls import DocumentCalls, list_reply, page_of, query_of
from serve_app.endpoint import Handler, HttpRequest, Upload, declared_length
from serve_app.errors import InvalidRequestError, TooLargeError
from serve_app.multipart import MAX_OVERHEAD_BYTES, Event, FileStart, FormField, read_form
from serve_app.replies import Reply, json_reply

MAX_LISTED = 10_000
"""OpenAI's, and what a list has when nothing is asked for."""
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]|[\"\\]")


class FileRoutes:
    def __init__(self, documents: DocumentCalls, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds, and never goes back."""
        self._documents = documents
        self._clock = clock

    def table(self) -> dict[str, dict[str, Handler | Upload]]:
        limit = self._documents.config.files.max_bytes
        upload = Upload(self.create, limit + MAX_OVERHEAD_BYTES, _too_large(limit))
        return {
            "/v1/files": {"GET": self.list_files, "POST": upload},
            "/v1/files/{file_id}": {"GET": self.get, "DELETE": self.delete},
            "/v1/files/{file_id}/content": {"GET": self.content},
        }

    async def create(self, request: HttpRequest, pieces: AsyncIterator[bytes]) -> Reply:
        self._documents.service()
        incoming = _Incoming(self._documents, request, self._clock)
        with self._documents.admitted(request) as headers:  # before the bytes, which may take long to come
            try:
                async for event in read_form(request.headers.get("content-type"), pieces):
                    await incoming.take(event)
                return json_reply(_file(await incoming.finish()), headers=headers)
            finally:
                await incoming.drop()

    async def list_files(self, request: HttpRequest) -> Reply:
        page, purpose = page_of(request, most=MAX_LISTED, usual=MAX_LISTED), query_of(request).get("purpose")
        if purpose is not None:
            check_purpose(purpose)
        return list_reply([_file(each) for each in await self._documents(request, "list_files", page, purpose)], page)

    async def get(self, request: HttpRequest) -> Reply:
        return json_reply(_file(await self._documents(request, "get_file", request.path_params["file_id"])))

    async def delete(self, request: HttpRequest) -> Reply:
        file_id = request.path_params["file_id"]
        await self._documents(request, "delete_file", file_id)
        return json_reply({"id": file_id, "object": "file", "deleted": True})

    async def content(self, request: HttpRequest) -> Reply:
        """The first part is read before the reply begins: a file that is not there is an error then, not a broken stream."""
        info: FileInfo = await self._documents(request, "get_file", request.path_params["file_id"])
        first = await self._documents(request, "read_file", info.id, 0, MAX_PART_BYTES)
        headers = {
            "content-length": str(info.bytes),
            "content-disposition": f"attachment; filename=\"{_UNPRINTABLE.sub('_', info.name)}\"; filename*=UTF-8''{quote(info.name)}",
            "x-content-type-options": "nosniff",
        }
        return Reply(200, headers, "application/octet-stream", self._bytes(request, info, first))

    async def _bytes(self, request: HttpRequest, info: FileInfo, first: bytes) -> AsyncIterator[bytes]:
        offset, part = 0, first
        while part:
            yield part
            offset += len(part)
            if offset >= info.bytes:
                return
            try:
                part = await self._documents(request, "read_file", info.id, offset, MAX_PART_BYTES)
            except Exception as error:  # the client sees that bytes are missing: nothing else can be said any more
                raise ConnectionAbortedError("the file is gone") from error


class _Incoming:
    """One upload: what is known of it, and the bytes that wait to be a part."""

    def __init__(self, documents: DocumentCalls, request: HttpRequest, clock: Callable[[], float]) -> None:
        self._documents = documents
        self._request = request
        self._clock = clock
        self._purpose: str | None = None
        self._upload: str | None = None
        self._name = ""
        self._waiting = bytearray()
        self._sent = 0
        self._sent_at = clock()

    async def take(self, event: Event) -> None:
        match event:
            case FormField("purpose", value):
                check_purpose(value)
                self._purpose = value
            case FormField(name, _):
                place, message = unknown_field("", name.split("[")[0], ("file", "purpose"))  # OpenAI's client writes expires_after[anchor]
                raise InvalidRequestError(sentence(message, ""), param=place or None, code="invalid_value")
            case FileStart("file", filename) if self._upload is None:
                self._name = PurePath(filename.replace("\\", "/")).name
                check_filename(self._name)  # before the bytes, which may take long to come
                declared = declared_length(self._request.headers.get("content-length", "0").encode("latin-1"))
                self._upload = await self._documents(self._request, "begin_upload", declared or 0)
                self._sent_at = self._clock()
            case FileStart():
                raise InvalidRequestError("The form must have one file, in the field file.", param="file", code="invalid_value")
            case bytes():
                await self._add(event)

    async def _add(self, piece: bytes) -> None:
        self._waiting += piece
        limit = self._documents.config.files.max_bytes
        if self._sent + len(self._waiting) > limit:
            raise TooLargeError(_too_large(limit), param="file", code="file_too_large")
        while len(self._waiting) >= MAX_PART_BYTES:
            await self._send(MAX_PART_BYTES)
        # Else the upload of a slow client would count as silent.
        if self._waiting and self._clock() - self._sent_at > self._documents.config.files.upload_timeout_s / 4:
            await self._send(len(self._waiting))

    async def _send(self, size: int) -> None:
        part = bytes(self._waiting[:size])
        del self._waiting[:size]
        await self._documents(self._request, "append_upload", self._upload, self._sent, part)
        self._sent += len(part)
        self._sent_at = self._clock()

    async def finish(self) -> FileInfo:
        """Raises `InvalidRequestError` if something is missing."""
        for field, given in (("file", self._upload), ("purpose", self._purpose)):
            if given is None:
                raise InvalidRequestError(f"{field} is required.", param=field, code="missing_required_parameter")
        if self._waiting or not self._sent:
            await self._send(len(self._waiting))
        info: FileInfo = await self._documents(self._request, "finish_upload", self._upload, self._name, self._purpose)
        self._upload = None
        return info

    async def drop(self) -> None:
        """What is not finished is of no use to anybody."""
        if self._upload is not None:
            await self._documents(self._request, "drop_upload", self._upload)


def _too_large(limit: int) -> str:
    return f"A file has at most {limit} bytes (retrieval.files.max_bytes)."


def _file(info: FileInfo) -> dict[str, Any]:
    return {
        "id": info.id,
        "object": "file",
        "bytes": info.bytes,
        "created_at": int(info.created_at),
        "filename": info.name,
        "purpose": info.purpose,
        "status": "processed",
        "status_details": None,
        "expires_at": None,
    }
