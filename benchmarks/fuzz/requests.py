"""Requests as a client would send them, one at random, with the tenant's secrets in every text."""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

BOUNDARY = "bvT2e9"
ENCODER = "all-MiniLM-L6-v2"


@dataclass
class Tenant:
    """Who asks. `secrets`: by the place where each stands. `ids`: of its own things, by their kind."""

    name: str
    key: str
    model: str
    secrets: Mapping[str, str]
    ids: dict[str, str] = field(default_factory=dict)
    others: list["Tenant"] = field(default_factory=list)
    """Whose things it tries to reach."""
    is_admin: bool = False

    def id_of(self, kind: str, rng: random.Random) -> str:
        """Mostly its own, sometimes another tenant's, sometimes nobody's."""
        drawn = rng.random()
        if self.others and drawn < 0.2:
            return rng.choice(self.others).ids.get(kind, "none")
        return self.ids.get(kind, "none") if drawn < 0.95 else f"{kind}-{rng.randrange(10**6)}"


@dataclass
class Request:
    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes = b""

    def raw(self) -> bytes:
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in self.headers)]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


def draw(tenant: Tenant, rng: random.Random) -> Request:
    """A valid one."""
    kinds = [*_KINDS, *(_ADMIN if tenant.is_admin or rng.random() < 0.2 else ())]
    method, path, body = rng.choice(kinds)(tenant, rng)
    headers = [
        ("host", "127.0.0.1"),
        ("authorization", f"Bearer {tenant.key}") if rng.random() < 0.9 else ("x-api-key", tenant.key),
        ("user-agent", f"fuzz {tenant.secrets['header']}"),
    ]
    if isinstance(body, bytes):
        media = f"multipart/form-data; boundary={BOUNDARY}" if path == "/v1/files" else "application/x-ndjson"
    else:
        media, body = "application/json", b"" if body is None else json.dumps(body, ensure_ascii=rng.random() < 0.5).encode()
    if body:
        headers += [("content-type", media), ("content-length", str(len(body)))]
    if rng.random() < 0.05:
        headers.append(("x-mygo-tenant", tenant.name))
    return Request(method, path, headers, body)


Made = tuple[str, str, Any]


def _chat(tenant: Tenant, rng: random.Random) -> Made:
    body: dict[str, Any] = {
        "model": tenant.model,
        "messages": [{"role": "user", "content": f"{tenant.secrets['prompt']} number {rng.randrange(50)}?"}],
        "max_tokens": rng.choice((1, 8, 32)),
    }
    extra: list[dict[str, Any]] = [
        {"stream": True, "stream_options": {"include_usage": True}},
        {"stream": True},
        {"cache": {"mode": rng.choice(("on", "off", "exact", "refresh")), "ttl_s": 60, "tags": [tenant.secrets["tag"]]}},
        {"retrieval": {"vector_store_ids": [tenant.id_of("store", rng)], "top_k": 2}},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]},
        {"n": 2, "seed": 7, "temperature": 1.5, "stop": [tenant.secrets["prompt"]]},
        {"user": tenant.secrets["prompt"], "logit_bias": {"5": 1.5}, "priority": 3, "cache_salt": tenant.secrets["prompt"]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": tenant.secrets["prompt"]}]}]},
    ]
    for each in rng.sample(extra, rng.randrange(3)):
        body |= each
    return "POST", "/v1/chat/completions", body


def _completion(tenant: Tenant, rng: random.Random) -> Made:
    prompts: tuple[Any, ...] = (tenant.secrets["prompt"], [tenant.secrets["prompt"], "b"], [1, 2, 3], [[1, 2], [3]])
    return "POST", "/v1/completions", {"model": tenant.model, "prompt": rng.choice(prompts), "max_tokens": 4, "echo": rng.random() < 0.2}


def _embedding(tenant: Tenant, rng: random.Random) -> Made:
    texts = rng.choice((tenant.secrets["prompt"], [tenant.secrets["prompt"], "x"]))
    return "POST", "/v1/embeddings", {"model": ENCODER, "input": texts, "encoding_format": rng.choice(("float", "base64"))}


def _search(tenant: Tenant, rng: random.Random) -> Made:
    one = {"type": "eq", "key": "kind", "value": tenant.secrets["attribute"]}
    filters = rng.choice((None, one, {"type": "or", "filters": [one, {"type": "in", "key": "n", "value": [1, 2]}]}))
    body = {"query": tenant.secrets["document"], "max_num_results": 3, **({"filters": filters} if filters else {})}
    return "POST", f"/v1/vector_stores/{tenant.id_of('store', rng)}/search", body


def _documents(tenant: Tenant, rng: random.Random) -> Made:
    attributes = {"kind": tenant.secrets["attribute"], "n": rng.randrange(9)}
    document = {"id": f"d{rng.randrange(4)}", "text": f"{tenant.secrets['document']} is a text.", "attributes": attributes}
    return "POST", f"/v1/vector_stores/{tenant.id_of('store', rng)}/documents", {"documents": [document]}


def _page(rng: random.Random) -> str:
    asked = ("limit=2", "order=asc", "after=none", "before=x", "filter=completed", "purpose=assistants", "model=m", "tag=t", "data=%7B%7D")
    return "?" + "&".join(rng.sample(asked, rng.randrange(1, 4)))


def _get(tenant: Tenant, rng: random.Random) -> Made:
    store, file = f"/v1/vector_stores/{tenant.id_of('store', rng)}", tenant.id_of("file", rng)
    batch = f"{store}/file_batches/{tenant.id_of('batch', rng)}"
    lists = ("/v1/vector_stores", "/v1/files", "/v1/cache/entries", "/v1/models", "/modelcache", f"{store}/files", f"{store}/documents")
    things = (store, f"/v1/files/{file}", f"/v1/files/{file}/content", f"{store}/files/{file}", f"{store}/files/{file}/content", batch)
    more = (f"{batch}/files", f"{store}/documents/d0", "/v1/cache/export", "/v1/cache/stats", f"/v1/models/{tenant.model}")
    plain = (
        "/healthz",
        "/readyz",
        "/welcome",
        "/openapi.json",
        "/metrics",
        f"/v1/{tenant.secrets['path']}",
        f"/{tenant.secrets['path']}?a",
    )
    entry = f"/v1/cache/entries/{tenant.id_of('entry', rng)}"
    path = rng.choice((*lists, *lists, *things, *more, *plain, entry))
    return "GET", path + (_page(rng) if path in lists and rng.random() < 0.6 else ""), None


def _change_store(tenant: Tenant, rng: random.Random) -> Made:
    """A new collection, or a change of one that is there."""
    body = {"name": tenant.secrets["store"], "metadata": {"m": tenant.secrets["store"]}}
    return "POST", "/v1/vector_stores" if rng.random() < 0.1 else f"/v1/vector_stores/{tenant.id_of('store', rng)}", body


def _attach(tenant: Tenant, rng: random.Random) -> Made:
    store, file = f"/v1/vector_stores/{tenant.id_of('store', rng)}", tenant.id_of("file", rng)
    made: tuple[tuple[str, dict[str, Any]], ...] = (
        ("files", {"file_id": file, "attributes": {"kind": tenant.secrets["attribute"]}}),
        (f"files/{file}", {"attributes": {"kind": tenant.secrets["attribute"], "x": 1.5, "y": True}}),
        ("file_batches", {"file_ids": [file]}),
        (f"file_batches/{tenant.id_of('batch', rng)}/cancel", {}),
    )
    path, body = rng.choice(made)
    return "POST", f"{store}/{path}", body


def _delete(tenant: Tenant, rng: random.Random) -> Made:
    """Of what nobody needs, or of another's."""
    store = f"/v1/vector_stores/{tenant.id_of('spare', rng)}"
    gone = (store, f"{store}/documents/d1", f"{store}/files/none", "/v1/files/file-none", "/v1/cache/entries/none")
    return "DELETE", rng.choice(gone), None


def form(secret: str, name: str, text: str) -> bytes:
    parts = (
        'content-disposition: form-data; name="purpose"\r\n\r\nassistants',
        f'content-disposition: form-data; name="file"; filename="{name}-{secret}.txt"\r\ncontent-type: text/plain\r\n\r\n{text} {secret}',
    )
    return "".join(f"--{BOUNDARY}\r\n{part}\r\n" for part in parts).encode() + f"--{BOUNDARY}--\r\n".encode()


def _upload(tenant: Tenant, rng: random.Random) -> Made:
    return "POST", "/v1/files", form(tenant.secrets["file"], "notes", "Notes. " * rng.choice((1, 200)))


def _import(tenant: Tenant, rng: random.Random) -> Made:
    line = {"model": tenant.model, "text": f"{tenant.secrets['prompt']} {rng.randrange(9)}", "answer": tenant.secrets["answer"]}
    return "POST", "/v1/cache/import", b"\n".join([json.dumps(line | {"tags": [tenant.secrets["tag"]]}).encode()] * rng.randrange(1, 3))


def _cache(tenant: Tenant, rng: random.Random) -> Made:
    made: tuple[tuple[str, dict[str, Any]], ...] = (
        ("invalidate", rng.choice(({"tag": tenant.secrets["tag"]}, {"model": tenant.model}, {"all": True}))),
        ("feedback", {"entry_id": tenant.id_of("entry", rng), "question": tenant.secrets["prompt"], "correct": rng.random() < 0.5}),
    )
    path, body = rng.choice(made)
    return "POST", f"/v1/cache/{path}", body


def modelcache(tenant: Tenant, rng: random.Random) -> dict[str, Any]:
    question = [{"role": "user", "content": f"{tenant.secrets['modelcache']} {rng.randrange(9)}"}]
    made: tuple[dict[str, Any], ...] = (
        {"type": "query", "query": question},
        {"type": "insert", "chat_info": [{"query": question, "answer": tenant.secrets["answer"]}]},
        {"type": "remove", "remove_type": "delete_by_id", "id_list": [tenant.id_of("entry", rng), 5]},
        {"type": "remove", "remove_type": "truncate_by_model"},
        {"type": "register"},
    )
    return {"scope": {"model": f"m-{tenant.secrets['modelcache']}"}, **rng.choice(made)}


def _modelcache(tenant: Tenant, rng: random.Random) -> Made:
    return "POST", "/modelcache", modelcache(tenant, rng)


def _keys(tenant: Tenant, rng: random.Random) -> Made:
    key, limits = f"/v1/admin/keys/{tenant.ids.get('key', 'none')}", {"requests_per_minute": 5}
    made: tuple[Made, ...] = (
        ("GET", f"/v1/admin/{rng.choice(('keys', 'tenants', 'audit'))}{_page(rng)}", None),
        ("GET", key, None),
        ("POST", key, {"name": tenant.secrets["store"], "limits": limits}),
        ("POST", f"{key}/rotate", {"keep_old_s": 1}),
        ("GET", "/v1/admin/tenants/nobody", None),
        ("POST", "/v1/admin/tenants/nobody", {"weight": 2, "limits": limits}),
        ("POST", "/v1/admin/keys", {"tenant": "nobody", "name": tenant.secrets["store"], "expires_at": 10**10, "models": [tenant.model]}),
    )
    return rng.choice(made)


_KINDS: tuple[Callable[[Tenant, random.Random], Made], ...] = (
    *(_chat, _chat, _chat, _completion, _embedding, _search, _documents, _get, _get, _get, _get, _change_store, _attach),
    *(_delete, _upload, _upload, _import, _cache, _modelcache, _modelcache),
)
_ADMIN = (_keys, _keys)
