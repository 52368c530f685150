"""Uploads that are not as they should be, and who sees what."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from starlette.datastructures import Headers

from retrieval.documents import SearchRequest
from retrieval.files import MAX_PART_BYTES
from retrieval.tier import RetrievalTier
from serve_app.document_calls import DocumentCalls
from serve_app.endpoint import HttpRequest
from serve_app.files import FileRoutes
from serve_app.multipart import MAX_OVERHEAD_BYTES
from serve_app.tenants import Principal
from tests.retrieval.tiers import Clock, drain, make_tier
from tests.serve_app.clients import CANARY, CHAT, client_of, error_of
from tests.serve_app.fakes import LocalRetrieval, World, make_world

LIMIT = 2 * MAX_PART_BYTES
OTHER = {"x-mygo-tenant": "other"}
FORM = {"purpose": "assistants"}


@pytest.fixture
def world() -> World:
    return make_world(retrieval={"files": {"max_bytes": LIMIT}, "groups": {"team": ["default", "mate"]}})


@pytest.fixture
def tier(world: World, tmp_path: Path) -> RetrievalTier:
    tier = make_tier(tmp_path, files={"max_bytes": LIMIT, "max_uploads": 3})
    world.pipeline = replace(world.pipeline, documents=LocalRetrieval(tier))
    return tier


@pytest.fixture
async def http(world: World, tier: RetrievalTier) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(world) as http:
        yield http
    tier.close()


def left(tier: RetrievalTier) -> list[Path]:
    """Uploads that are not finished."""
    assert len(tier.files._uploads) == len(list(tier.files._uploads._directory.iterdir()))
    return list(tier.files._uploads._directory.iterdir())


async def create(http: httpx.AsyncClient, content: bytes = b"Bees make honey.", name: str = "bees.txt", **more: Any) -> str:
    response = await http.post("/v1/files", data=FORM, files={"file": (name, content)}, **more)
    return str(response.raise_for_status().json()["id"])


async def test_a_file_of_exactly_the_limit(http: httpx.AsyncClient) -> None:
    file_id = await create(http, bytes(LIMIT))
    content = await http.get(f"/v1/files/{file_id}/content")
    assert (content.content, content.headers["content-length"]) == (bytes(LIMIT), str(LIMIT))
    assert content.headers["content-disposition"] == "attachment; filename=\"bees.txt\"; filename*=UTF-8''bees.txt"


async def test_a_file_without_bytes(http: httpx.AsyncClient) -> None:
    file_id = await create(http, b"")
    content = await http.get(f"/v1/files/{file_id}/content")
    assert (content.status_code, content.content) == (200, b"")


@pytest.mark.parametrize("size", [LIMIT + 1, 200 * MAX_PART_BYTES])
async def test_a_file_that_is_too_long_is_refused_without_being_kept(http: httpx.AsyncClient, tier: RetrievalTier, size: int) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        yield form_start()
        for _ in range(0, size, 65536):
            read += 65536
            yield bytes(65536)

    declared = {} if size == LIMIT + 1 else {"content-length": str(size)}
    response = await http.post("/v1/files", content=body(), headers={"content-type": "multipart/form-data; boundary=b", **declared})
    assert response.status_code == 413
    assert error_of(response)["type"] == "invalid_request_error"
    assert error_of(response)["message"] == f"A file has at most {LIMIT} bytes (retrieval.files.max_bytes)."
    assert read <= (LIMIT + 2 * 65536 if not declared else 0)
    assert left(tier) == []


def form_start(name: str = "file") -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="a.txt"\r\n\r\n'.encode()


def field(name: str, value: str) -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


END = b"\r\n--b--\r\n"
PURPOSE = field("purpose", "assistants")
FORMS: list[tuple[bytes, str | None]] = [
    (PURPOSE + b"--b--\r\n", "file"),
    (form_start() + b"x" + END, "purpose"),
    (form_start() + b"x" + b"\r\n" + field("purpose", CANARY) + b"--b--\r\n", "purpose"),
    (PURPOSE + form_start("other") + b"x" + END, "file"),
    (PURPOSE + form_start() + b"x\r\n" + form_start() + b"y" + END, "file"),
    (PURPOSE + field(f"{CANARY} ", "x") + form_start() + b"x" + END, None),
    (PURPOSE + field("expires_after[anchor]", "created_at") + form_start() + b"x" + END, "expires_after"),
    (PURPOSE + form_start().replace(b"a.txt", b"") + b"x" + END, "file"),
    (PURPOSE + form_start().replace(b"a.txt", b"\x01.txt") + b"x" + END, "file"),
    (PURPOSE + form_start().replace(b"a.txt", b"x" * 300) + b"x" + END, "file"),
    (PURPOSE + form_start() + b"x", None),
    (PURPOSE, None),
    (b"", None),
    (CANARY.encode(), None),
    (field("purpose", "x" * 2000), None),
    (PURPOSE * 17, None),
    (b"--b\r\n" + b"A: b\r\n" * 1000 + b"\r\n", None),
    (b"--b\r\n" + b"A" * 100_000, None),
]


@pytest.mark.parametrize(("body", "param"), FORMS, ids=range(len(FORMS)))
@pytest.mark.parametrize("step", [1, 7, 100_000])
async def test_a_form_that_is_not_as_it_should_be(
    http: httpx.AsyncClient, tier: RetrievalTier, body: bytes, param: str | None, step: int
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), step):
            yield body[at : at + step]

    response = await http.post("/v1/files", content=pieces(), headers={"content-type": "multipart/form-data; boundary=b"})
    assert (response.status_code, error_of(response)["param"]) == (400, param)
    assert left(tier) == []


@pytest.mark.parametrize(
    ("start", "param"),
    [
        (PURPOSE + form_start().replace(b"a.txt", b"\x01.txt"), "file"),
        (field("purpose", CANARY) + form_start(), "purpose"),
    ],
)
async def test_a_file_that_cannot_be_kept_is_refused_before_its_bytes(http: httpx.AsyncClient, start: bytes, param: str) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield start
        raise AssertionError("nobody needs the bytes")

    response = await http.post("/v1/files", content=body(), headers={"content-type": "multipart/form-data; boundary=b"})
    assert (response.status_code, error_of(response)["param"], error_of(response)["code"]) == (400, param, "invalid_value")


async def test_a_file_keeps_its_name(http: httpx.AsyncClient) -> None:
    name = "資料\u3000👩\u200d🚀.txt"
    file_id = await create(http, name=name)
    assert (await http.get(f"/v1/files/{file_id}")).json()["filename"] == name
    content = await http.get(f"/v1/files/{file_id}/content")
    assert unquote(content.headers["content-disposition"].partition("UTF-8''")[2]) == name


async def test_fields_may_stand_behind_the_file(http: httpx.AsyncClient) -> None:
    body = form_start() + b"--b\r\n-" + b"\r\n" + PURPOSE + b"--b--\r\n"
    response = await http.post("/v1/files", content=body, headers={"content-type": "multipart/form-data; boundary=b"})
    assert response.json()["bytes"] == len(b"--b\r\n-")


@pytest.mark.parametrize("kind", [None, "application/json", "multipart/form-data", f"multipart/form-data; boundary={'b' * 300}"])
async def test_a_body_that_is_no_form(http: httpx.AsyncClient, kind: str | None) -> None:
    response = await http.post("/v1/files", content=b"{}", headers={"content-type": kind} if kind else {})
    assert response.status_code == 400
    error_of(response)


async def test_a_slow_client_is_no_silent_one(world: World, tmp_path: Path) -> None:
    clock = Clock()
    tier = make_tier(tmp_path, clock=clock)
    world.pipeline = replace(world.pipeline, documents=LocalRetrieval(tier))

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (PURPOSE + form_start(), b"12", b"34", b"56", b"78", END):
            yield piece
            clock.now += 25

    request = HttpRequest("/v1/files", {}, Headers({"content-type": "multipart/form-data; boundary=b"}), b"", "id")
    reply = await FileRoutes(DocumentCalls(world.pipeline), clock).create(request, pieces())
    assert isinstance(reply.body, bytes)
    assert tier.files.read_file(world.pipeline.namespaces.of("default"), json.loads(reply.body)["id"], 0, 100) == b"12345678"
    tier.close()


async def test_a_client_that_leaves_drops_its_upload(world: World, http: httpx.AsyncClient, tier: RetrievalTier) -> None:
    messages = [
        {"type": "http.request", "body": form_start() + bytes(MAX_PART_BYTES + 1000), "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent = []

    async def receive() -> Any:
        if len(messages) == 1:
            assert len(left(tier)) == 1
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/files",
        "raw_path": b"/v1/files",
        "query_string": b"",
        "headers": [(b"content-type", b"multipart/form-data; boundary=b")],
    }
    await http._transport.app(scope, receive, send)  # type: ignore[attr-defined]
    assert (sent, left(tier)) == ([], [])
    assert world.metrics.left == ["POST /v1/files"]


async def test_tenants_do_not_see_each_others_files(http: httpx.AsyncClient, tier: RetrievalTier) -> None:
    file_id = await create(http)
    store = (await http.post("/v1/vector_stores", json={})).json()["id"]
    theirs = (await http.post("/v1/vector_stores", json={}, headers=OTHER)).json()["id"]
    await http.post(f"/v1/vector_stores/{store}/files", json={"file_id": file_id})
    assert (await http.get("/v1/files", headers=OTHER)).json()["data"] == []
    refused = [
        await http.get(f"/v1/files/{file_id}", headers=OTHER),
        await http.get(f"/v1/files/{file_id}/content", headers=OTHER),
        await http.delete(f"/v1/files/{file_id}", headers=OTHER),
        await http.post(f"/v1/vector_stores/{theirs}/files", json={"file_id": file_id}, headers=OTHER),
        await http.post("/v1/vector_stores", json={"file_ids": [file_id]}, headers=OTHER),
        await http.get(f"/v1/vector_stores/{store}/files", headers=OTHER),
        await http.get(f"/v1/vector_stores/{store}/files/{file_id}", headers=OTHER),
        await http.post(f"/v1/vector_stores/{store}/files/{file_id}", json={"attributes": {}}, headers=OTHER),
        await http.delete(f"/v1/vector_stores/{store}/files/{file_id}", headers=OTHER),
        await http.get(f"/v1/vector_stores/{store}/files/{file_id}/content", headers=OTHER),
        await http.post(f"/v1/vector_stores/{store}/file_batches", json={"file_ids": [file_id]}, headers=OTHER),
        await http.post(f"/v1/vector_stores/{store}", json={"name": "mine"}, headers=OTHER),
    ]
    assert {(each.status_code, error_of(each)["code"]) for each in refused} == {(404, "not_found")}
    drain(tier)
    assert (await http.get(f"/v1/vector_stores/{store}/files/{file_id}")).json()["status"] == "completed"


async def test_a_group_shares_a_collection_and_nobody_else_sees_it(http: httpx.AsyncClient, tier: RetrievalTier) -> None:
    mate = {"x-mygo-tenant": "mate"}
    store = (await http.post("/v1/vector_stores", json={"group": "team"})).json()
    assert store["group"] == "team"
    path = f"/v1/vector_stores/{store['id']}"
    ours, mates = await create(http), await create(http, b"Ants carry leaves.", "ants.txt", headers=mate)
    await http.post(f"{path}/files", json={"file_id": ours})
    assert (await http.post(f"{path}/files", json={"file_id": mates}, headers=mate)).status_code == 200
    assert (await http.post(f"{path}/files", json={"file_id": mates})).status_code == 404
    drain(tier)
    for headers in ({}, mate):
        found = (await http.post(f"{path}/search", json={"query": "honey leaves"}, headers=headers)).json()["data"]
        assert {hit["filename"] for hit in found} == {"bees.txt", "ants.txt"}
        assert [each["id"] for each in (await http.get("/v1/vector_stores", headers=headers)).json()["data"]] == [store["id"]]
        assert (await http.get(f"{path}/files/{ours}/content", headers=headers)).status_code == 200
    assert (await http.get(path, headers=OTHER)).status_code == 404
    assert (await http.post(f"{path}/search", json={"query": "honey"}, headers=OTHER)).status_code == 404
    for headers, group in ((OTHER, "team"), ({}, CANARY)):
        response = await http.post("/v1/vector_stores", json={"group": group}, headers=headers)
        assert (response.status_code, error_of(response)["param"]) == (400, "group")
    await http.delete(f"/v1/files/{mates}", headers=mate)
    found = (await http.post(f"{path}/search", json={"query": "honey leaves"})).json()["data"]
    assert {hit["filename"] for hit in found} == {"bees.txt"}


async def test_the_scopes_of_a_search(http: httpx.AsyncClient, world: World, tier: RetrievalTier) -> None:
    shared = (await http.post("/v1/vector_stores", json={"group": "team"})).json()["id"]
    own = (await http.post("/v1/vector_stores", json={})).json()["id"]
    namespaces = world.pipeline.namespaces
    namespace = namespaces.of("default")
    assert world.pipeline.documents
    result = await world.pipeline.documents.search(namespaces.reach(Principal()), SearchRequest([own, shared], ["q"], 1))
    assert result.scopes == {own: namespace, shared: namespaces.group("team")}
    assert namespaces.group("team") not in (namespace, namespaces.of("team"))


async def test_a_chat_is_given_what_its_filters_let_through(http: httpx.AsyncClient, tier: RetrievalTier) -> None:
    store = (await http.post("/v1/vector_stores", json={})).json()["id"]
    for name, text in (("a.txt", b"Bees make honey."), ("b.txt", b"Bees make wax.")):
        file_id = await create(http, text, name)
        await http.post(f"/v1/vector_stores/{store}/files", json={"file_id": file_id, "attributes": {"name": name}})
    drain(tier)
    for asked, count in (
        ({}, 2),
        ({"filters": {"type": "eq", "key": "name", "value": "b.txt"}}, 1),
        ({"score_threshold": 1.0}, 0),
    ):
        body = {**CHAT, "retrieval": {"vector_store_ids": [store], **asked}}
        documents = (await http.post("/v1/chat/completions", json=body)).headers.get("x-mygo-documents", "")
        assert len([each for each in documents.split(",") if each]) == count
    body = {**CHAT, "retrieval": {"vector_store_ids": [store], "filters": {"type": "in", "key": "name", "value": CANARY}}}
    response = await http.post("/v1/chat/completions", json=body)
    assert (response.status_code, error_of(response)["param"]) == (400, "retrieval.filters.value")


async def test_a_deleted_file_breaks_off_its_answer(http: httpx.AsyncClient, tier: RetrievalTier) -> None:
    """The client sees that bytes are missing."""
    file_id = await create(http, bytes(LIMIT))
    sent: list[Any] = []

    async def receive() -> Any:
        if sent:
            return {"type": "http.disconnect"} if len(sent) > 50 else await forever()
        return {"type": "http.request", "body": b""}

    async def forever() -> Any:
        import asyncio

        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)
        if message.get("body"):
            await http.delete(f"/v1/files/{file_id}")

    path = f"/v1/files/{file_id}/content"
    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": []}
    await http._transport.app(scope, receive, send)  # type: ignore[attr-defined]
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert len(sent[1]["body"]) == MAX_PART_BYTES


async def test_too_many_uploads_at_once(world: World, http: httpx.AsyncClient, tier: RetrievalTier) -> None:
    for _ in range(2):
        tier.files.begin_upload(world.pipeline.namespaces.of("default"))
    response = await http.post("/v1/files", data=FORM, files={"file": ("a.txt", b"x")})
    assert (response.status_code, error_of(response)["code"]) == (503, "busy")
    assert response.headers["retry-after"]


async def test_an_upload_that_is_lost_on_its_way_may_be_tried_again(http: httpx.AsyncClient, tier: RetrievalTier) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield PURPOSE + form_start() + bytes(MAX_PART_BYTES)
        assert len(tier.files._uploads) == 1
        tier.files._uploads._open.clear()  # what another process knows of it
        yield bytes(MAX_PART_BYTES) + END

    response = await http.post("/v1/files", content=body(), headers={"content-type": "multipart/form-data; boundary=b"})
    assert (response.status_code, error_of(response)["code"]) == (503, "upload_lost")
    assert "Upload the file again" in error_of(response)["message"]
    assert response.headers["retry-after"]


async def test_pages_of_files(http: httpx.AsyncClient) -> None:
    ids = [await create(http) for _ in range(3)]
    first = (await http.get("/v1/files", params={"limit": 2})).json()
    assert ([each["id"] for each in first["data"]], first["has_more"]) == ([ids[2], ids[1]], True)
    rest = (await http.get("/v1/files", params={"limit": 2, "after": first["last_id"]})).json()
    assert ([each["id"] for each in rest["data"]], rest["has_more"]) == ([ids[0]], False)
    before = (await http.get("/v1/files", params={"before": ids[1]})).json()
    assert [each["id"] for each in before["data"]] == [ids[2]]
    near = (await http.get("/v1/files", params={"limit": 1, "before": ids[0]})).json()
    assert ([each["id"] for each in near["data"]], near["has_more"]) == ([ids[1]], True)
    both = (await http.get("/v1/files", params={"limit": 2, "before": ids[0]})).json()
    assert ([each["id"] for each in both["data"]], both["has_more"]) == ([ids[2], ids[1]], False)
    for query in ({"limit": 10_001}, {"limit": 0}, {"order": CANARY}, {"purpose": CANARY}):
        response = await http.get("/v1/files", params=query)
        assert (response.status_code, error_of(response)["param"]) == (400, next(iter(query)))


def test_the_form_around_the_largest_file_fits() -> None:
    assert len(form_start() + PURPOSE + END) < MAX_OVERHEAD_BYTES
