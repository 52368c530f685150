"""Every route that the document describes. A route that stands here twice, or not at all, fails a test."""

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from retrieval.files import PURPOSES
from serve_app import admin_routes, cache_routes, document_calls
from serve_app.admin_routes import Rotation
from serve_app.anthropic.requests import CountRequest, MessageRequest
from serve_app.cache_lines import Line
from serve_app.cache_routes import Feedback, Invalidation
from serve_app.cache_transfer import LINES_TYPE
from serve_app.contexts.routes import ChangedContext, NewContext, NewTag
from serve_app.document_calls import PageQuery
from serve_app.files import MAX_LISTED
from serve_app.keyring.settings import KeySettings, Tenant, TenantSettings
from serve_app.modelcache.bodies import TYPES
from serve_app.modelcache.protocol import MAX_IDS, MAX_MODEL_CHARS, MAX_ROWS
from serve_app.openai.requests import ChatRequest, CompletionRequest, EmbeddingRequest
from serve_app.openai.responses import ResponseRequest
from serve_app.openapi.operation import JSON, Body, Content, Operation, Schema, listed, of_fields, said, text
from serve_app.vector_store_files import ListQuery, NewAttributes, NewBatch, NewFile
from serve_app.vector_stores import ChangedStore, NewDocuments, NewStore, Search

EVENTS = "text/event-stream"
BYTES = "application/octet-stream"
MODELCACHE = "ModelCacheError"
MESSAGES = "MessageError"
NOT_FOUND = frozenset({404})
GENERATED = frozenset({404, 429, 502, 504})


class Limited(msgspec.Struct):
    limit: Annotated[int, Meta(ge=1, le=document_calls.MAX_PAGE)] = 20


class FilesQuery(msgspec.Struct):
    limit: Annotated[int, Meta(ge=1, le=MAX_LISTED)] = MAX_LISTED
    purpose: Annotated[str, Meta(extra_json_schema={"enum": list(PURPOSES)})] | None = None


class AdminPage(msgspec.Struct):
    limit: Annotated[int, Meta(ge=1, le=admin_routes.MAX_PAGE)] = 100
    after: Annotated[str, Meta(max_length=128)] = ""


class AdminKeysPage(AdminPage):
    tenant: Tenant | None = None


class AuditPage(msgspec.Struct):
    limit: Annotated[int, Meta(ge=1, le=admin_routes.MAX_PAGE)] = 100
    after: Annotated[str, Meta(pattern=r"^[0-9]{0,15}\Z")] = ""


class ModelCacheQuery(msgspec.Struct):
    data: str = ""
    """The request, as JSON."""


_UPLOAD: Schema = {
    "type": "object",
    "properties": {
        "purpose": {"enum": list(PURPOSES)},
        "file": {"type": "string", "contentMediaType": BYTES, "description": "With a file name. One file."},
    },
    "required": ["purpose", "file"],
    "additionalProperties": False,
}
_TEXT_PART: Schema = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    "required": ["type", "text"],
}
_MESSAGES: Schema = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "role": {"type": ["string", "null"]},
            "content": {"anyOf": [{"type": ["string", "null"]}, {"type": "array", "items": _TEXT_PART}]},
        },
    },
}
_ROW: Schema = {"type": "object", "properties": {"query": _MESSAGES, "answer": {"type": "string"}}, "required": ["query", "answer"]}
_MODELCACHE: Schema = {
    "type": "object",
    "properties": {
        "type": {"enum": list(TYPES)},
        "scope": {"type": "object", "properties": {"model": {"type": "string", "maxLength": MAX_MODEL_CHARS}}, "required": ["model"]},
        "query": {**_MESSAGES, "description": "Of `query`: what is looked up."},
        "chat_info": {"type": "array", "maxItems": MAX_ROWS, "items": _ROW, "description": "Of `insert`: what is kept."},
        "remove_type": {"enum": ["delete_by_id", "truncate_by_model"], "description": "Of `remove`."},
        "id_list": {"type": "array", "maxItems": MAX_IDS, "items": {"type": ["string", "integer"]}},
    },
    "required": ["type"],
}
_MODELCACHE_ANSWER = of_fields(errorCode={"type": "integer"}, errorDesc={"type": "string"})
_GENERATED: Schema = {
    "description": 'Events `data: {...}`, the last one `data: [DONE]`, where `"stream": true` asks for them.',
}
_READY: Content = {
    JSON: {
        "type": "object",
        "properties": {"status": {"enum": ["ready", "starting"]}, "replicas": {"type": "array"}, "parts": {"type": "object"}},
        "required": ["status"],
    }
}
_NUMBERS = ("entries", "bytes", "hits", "tokens_saved")

_NAMED: Schema = {"description": 'Events with names, where `"stream": true` asks for them.'}
_RESPONSE = "/v1/responses/{response_id}"
_NOT_STORED = "Nothing is stored here: always an error."
_CONTEXT = "/v1/caching/{cache_id}"
_TAGS = "/v1/caching/refs/tags"
_STORE = "/v1/vector_stores/{store_id}"
_DOCUMENT = f"{_STORE}/documents/{{document_id}}"
_FILE = f"{_STORE}/files/{{file_id}}"
_BATCH = f"{_STORE}/file_batches/{{batch_id}}"
_FOR_ADMINS = "For keys with the role `admin`."
_NO_MULTICACHE = "There is none here: always an error in ModelCache's shape."

OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("GET", "/v1/models"): Operation(
        "The models that the key may ask for", of_fields(object={"const": "list"}, data={"type": "array"}), refusals=frozenset({502})
    ),
    ("GET", "/v1/models/{model}"): Operation("One model", said("model", "id"), refusals=frozenset({404, 502})),
    ("POST", "/v1/chat/completions"): Operation(
        "An answer to a chat",
        {**said("chat.completion", "id", "choices", "usage"), EVENTS: _GENERATED},
        Body(ChatRequest, about="Other fields are the engine's."),
        headers=("MaxWait", "CacheControl"),
        refusals=GENERATED,
    ),
    ("POST", "/v1/completions"): Operation(
        "The continuation of a text",
        {**said("text_completion", "id", "choices", "usage"), EVENTS: _GENERATED},
        Body(CompletionRequest, about="Other fields are the engine's."),
        headers=("MaxWait", "CacheControl"),
        refusals=GENERATED,
    ),
    ("POST", "/v1/responses"): Operation(
        "A response",
        {**said("response", "id", "output", "usage"), EVENTS: _NAMED},
        Body(ResponseRequest, about="Other fields are the engine's. Nothing is stored."),
        headers=("MaxWait", "CacheControl"),
        refusals=GENERATED,
    ),
    ("POST", "/v1/responses/input_tokens"): Operation(
        "How long a response's prompt is", said("response.input_tokens", "input_tokens"), Body(ResponseRequest), refusals=GENERATED
    ),
    ("GET", _RESPONSE): Operation("A stored response", {}, refusals=NOT_FOUND, about=_NOT_STORED),
    ("DELETE", _RESPONSE): Operation("Delete a stored response", {}, refusals=NOT_FOUND, about=_NOT_STORED),
    ("POST", f"{_RESPONSE}/cancel"): Operation("End a response in the background", {}, refusals=NOT_FOUND, about=_NOT_STORED),
    ("GET", f"{_RESPONSE}/input_items"): Operation("What a stored response was asked", {}, refusals=NOT_FOUND, about=_NOT_STORED),
    ("POST", "/v1/messages"): Operation(
        "An answer in Anthropic's shape",
        {
            **of_fields(id={"type": "string"}, type={"const": "message"}, content={"type": "array"}, usage={"type": "object"}),
            EVENTS: _NAMED,
        },
        Body(MessageRequest, about="Other fields are the engine's."),
        headers=("MaxWait", "CacheControl"),
        refusals=GENERATED,
        error=MESSAGES,
    ),
    ("POST", "/v1/messages/count_tokens"): Operation(
        "How long a prompt is", of_fields(input_tokens={"type": "integer"}), Body(CountRequest), refusals=GENERATED, error=MESSAGES
    ),
    ("POST", "/v1/caching"): Operation(
        "Keep the beginning of chats",
        said("context_cache_object", "id", "status", "tokens"),
        Body(NewContext, about="Of `ttl` and `expired_at` one at most."),
        headers=("MaxWait",),
        refusals=GENERATED,
    ),
    ("GET", "/v1/caching"): Operation("Kept contexts", listed("context_cache_object"), query=(Limited, PageQuery)),
    ("GET", _CONTEXT): Operation("One kept context", said("context_cache_object", "id"), refusals=NOT_FOUND),
    ("PUT", _CONTEXT): Operation("Change a kept context", said("context_cache_object", "id"), Body(ChangedContext), refusals=NOT_FOUND),
    ("DELETE", _CONTEXT): Operation("End a kept context", said("context_cache_object.deleted", "id"), refusals=NOT_FOUND),
    ("GET", _TAGS): Operation("Tags of kept contexts", of_fields(object={"const": "list"}, data={"type": "array"})),
    ("POST", _TAGS): Operation("Give a tag", said("cache_object.tag", "tag", "cache_id"), Body(NewTag), refusals=NOT_FOUND),
    ("GET", f"{_TAGS}/{{tag}}"): Operation("One tag", said("cache_object.tag", "tag", "cache_id"), refusals=NOT_FOUND),
    ("DELETE", f"{_TAGS}/{{tag}}"): Operation("Take a tag away", said("cache_object.tag.deleted", "tag")),
    ("GET", f"{_TAGS}/{{tag}}/content"): Operation("The context with a tag", said("context_cache_object", "id"), refusals=NOT_FOUND),
    ("POST", "/v1/embeddings"): Operation(
        "Vectors of texts",
        of_fields(object={"const": "list"}, data={"type": "array"}, model={"type": "string"}, usage={"type": "object"}),
        Body(EmbeddingRequest),
        refusals=frozenset({404, 429}),
    ),
    ("GET", "/v1/vector_stores"): Operation("Document collections", listed("vector_store"), query=(Limited, PageQuery), refusals=NOT_FOUND),
    ("POST", "/v1/vector_stores"): Operation(
        "A new collection", said("vector_store", "id"), Body(NewStore, required=False), refusals=NOT_FOUND
    ),
    ("GET", _STORE): Operation("One collection", said("vector_store", "id"), refusals=NOT_FOUND),
    ("POST", _STORE): Operation("Change a collection", said("vector_store", "id"), Body(ChangedStore), refusals=NOT_FOUND),
    ("DELETE", _STORE): Operation("Delete a collection", said("vector_store.deleted", "id"), refusals=NOT_FOUND),
    ("POST", f"{_STORE}/search"): Operation(
        "Search a collection", said("vector_store.search_results.page", "data"), Body(Search), refusals=NOT_FOUND
    ),
    ("GET", f"{_STORE}/documents"): Operation(
        "Texts in a collection",
        listed("vector_store.document"),
        query=(Limited, PageQuery),
        refusals=NOT_FOUND,
        about="`order` is `asc` if it is not given.",
    ),
    ("POST", f"{_STORE}/documents"): Operation(
        "Add texts to a collection", of_fields(object={"const": "list"}, data={"type": "array"}), Body(NewDocuments), refusals=NOT_FOUND
    ),
    ("GET", _DOCUMENT): Operation("One text", said("vector_store.document", "id"), refusals=NOT_FOUND),
    ("DELETE", _DOCUMENT): Operation("Take a text out", said("vector_store.document.deleted", "id"), refusals=NOT_FOUND),
    ("GET", f"{_STORE}/files"): Operation(
        "Files in a collection", listed("vector_store.file"), query=(Limited, PageQuery, ListQuery), refusals=NOT_FOUND
    ),
    ("POST", f"{_STORE}/files"): Operation(
        "Add a file to a collection", said("vector_store.file", "id"), Body(NewFile), refusals=NOT_FOUND
    ),
    ("GET", _FILE): Operation("One file of a collection", said("vector_store.file", "id"), refusals=NOT_FOUND),
    ("POST", _FILE): Operation("Change a file's attributes", said("vector_store.file", "id"), Body(NewAttributes), refusals=NOT_FOUND),
    ("DELETE", _FILE): Operation("Take a file out", said("vector_store.file.deleted", "id"), refusals=NOT_FOUND),
    ("GET", f"{_FILE}/content"): Operation(
        "A file's text, as it is searched", said("vector_store.file_content.page", "data"), refusals=NOT_FOUND
    ),
    ("POST", f"{_STORE}/file_batches"): Operation(
        "Add several files", said("vector_store.files_batch", "id"), Body(NewBatch), refusals=NOT_FOUND
    ),
    ("GET", _BATCH): Operation("One batch", said("vector_store.files_batch", "id"), refusals=NOT_FOUND),
    ("POST", f"{_BATCH}/cancel"): Operation(
        "End what of a batch is not read yet", said("vector_store.files_batch", "id"), refusals=NOT_FOUND
    ),
    ("GET", f"{_BATCH}/files"): Operation(
        "A batch's files", listed("vector_store.file"), query=(Limited, PageQuery, ListQuery), refusals=NOT_FOUND
    ),
    ("GET", "/v1/files"): Operation("Uploaded files", listed("file"), query=(FilesQuery, PageQuery), refusals=NOT_FOUND),
    ("POST", "/v1/files"): Operation("Upload a file", said("file", "id"), Body(_UPLOAD, media="multipart/form-data"), refusals=NOT_FOUND),
    ("GET", "/v1/files/{file_id}"): Operation("One file", said("file", "id"), refusals=NOT_FOUND),
    ("DELETE", "/v1/files/{file_id}"): Operation("Delete a file", said("file", "id"), refusals=NOT_FOUND),
    ("GET", "/v1/files/{file_id}/content"): Operation("A file's bytes", {BYTES: {}}, refusals=NOT_FOUND),
    ("GET", "/v1/cache/entries"): Operation("Kept answers", listed("cache.entry"), query=(cache_routes.Page,)),
    ("GET", "/v1/cache/entries/{entry_id}"): Operation("One kept answer", said("cache.entry", "id"), refusals=NOT_FOUND),
    ("DELETE", "/v1/cache/entries/{entry_id}"): Operation("Delete a kept answer", said("cache.entry.deleted", "id"), refusals=NOT_FOUND),
    ("POST", "/v1/cache/invalidate"): Operation(
        "End kept answers", said("cache.invalidation", "epoch"), Body(Invalidation, about="Exactly one of the fields.")
    ),
    ("POST", "/v1/cache/feedback"): Operation(
        "Say that a kept answer was wrong", said("cache.feedback", "entry_id"), Body(Feedback), refusals=NOT_FOUND
    ),
    ("GET", "/v1/cache/stats"): Operation("Sums over the cache", said("cache.stats", *_NUMBERS)),
    ("GET", "/v1/cache/export"): Operation("Kept answers as lines of JSON", text(LINES_TYPE)),
    ("POST", "/v1/cache/import"): Operation(
        "Keep answers", said("cache.import", "imported", "errors"), Body(Line, media=LINES_TYPE, about="One to a line.")
    ),
    ("GET", "/v1/admin/keys"): Operation("Keys", listed("key"), query=(AdminKeysPage,), about=_FOR_ADMINS),
    ("POST", "/v1/admin/keys"): Operation("Make a key", said("key", "id", "key"), Body(KeySettings), about=_FOR_ADMINS),
    ("GET", "/v1/admin/keys/{key_id}"): Operation("One key", said("key", "id"), refusals=NOT_FOUND, about=_FOR_ADMINS),
    ("POST", "/v1/admin/keys/{key_id}"): Operation(
        "Change a key", said("key", "id"), Body(KeySettings, partial=True), refusals=NOT_FOUND, about=_FOR_ADMINS
    ),
    ("DELETE", "/v1/admin/keys/{key_id}"): Operation("Revoke a key", said("key", "id"), refusals=NOT_FOUND, about=_FOR_ADMINS),
    ("POST", "/v1/admin/keys/{key_id}/rotate"): Operation(
        "Give a key a new text", said("key", "id", "key"), Body(Rotation, required=False), refusals=NOT_FOUND, about=_FOR_ADMINS
    ),
    ("GET", "/v1/admin/tenants"): Operation("Tenants of which something is set", listed("tenant"), query=(AdminPage,), about=_FOR_ADMINS),
    ("GET", "/v1/admin/tenants/{name}"): Operation("One tenant", said("tenant", "id"), about=_FOR_ADMINS),
    ("POST", "/v1/admin/tenants/{name}"): Operation(
        "Change a tenant", said("tenant", "id"), Body(TenantSettings, partial=True), about=_FOR_ADMINS
    ),
    ("GET", "/v1/admin/audit"): Operation(
        "What was done to keys and tenants", listed("audit_record"), query=(AuditPage,), about=_FOR_ADMINS
    ),
    ("POST", "/modelcache"): Operation(
        "ModelCache's protocol",
        _MODELCACHE_ANSWER,
        Body(_MODELCACHE),
        error=MODELCACHE,
        about="What is wrong is told by `errorCode`. The same over a WebSocket.",
    ),
    ("GET", "/modelcache"): Operation("The same, in the query", _MODELCACHE_ANSWER, query=(ModelCacheQuery,), error=MODELCACHE),
    ("GET", "/welcome"): Operation("ModelCache's greeting", text("text/plain"), error=MODELCACHE),
    ("GET", "/multicache"): Operation("ModelCache's multimodal cache", {}, error=MODELCACHE, about=_NO_MULTICACHE),
    ("POST", "/multicache"): Operation("ModelCache's multimodal cache", {}, error=MODELCACHE, about=_NO_MULTICACHE),
    ("GET", "/healthz"): Operation("This process answers", of_fields(status={"const": "ok"})),
    ("GET", "/readyz"): Operation("Every part is there", _READY, others={503: _READY}, about="Strangers are told the status alone."),
    ("GET", "/metrics"): Operation(
        "Metrics for Prometheus", text("text/plain"), about="Where there are keys: for those with the role `admin`."
    ),
    ("GET", "/openapi.json"): Operation("This document", of_fields(openapi={"const": "3.1.0"}, paths={"type": "object"})),
}
"""By method and path, as clients write it."""
