"""Vector stores over HTTP, with the real retrieval tier."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.retrieval.tiers import Encoder, make_tier
from tests.serve_app.clients import CANARY, CHAT, client_of, error_of
from tests.serve_app.fakes import LocalRetrieval, World, make_world


@pytest.fixture
async def stores(world: World, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    tier = make_tier(tmp_path)
    world.pipeline = replace(world.pipeline, documents=LocalRetrieval(tier))
    async with client_of(world) as http:
        yield http
    tier.close()


DOCUMENTS: list[dict[str, Any]] = [
    {"id": "moon", "text": "The moon is far away."},
    {"id": "tea", "text": "Brew green tea at 80 degrees.", "attributes": {"hot": True}},
]


async def new_store(stores: httpx.AsyncClient) -> str:
    created = await stores.post("/v1/vector_stores", json={"name": "facts", "metadata": {"owner": "me"}})
    path = f"/v1/vector_stores/{created.json()['id']}"
    added = await stores.post(f"{path}/documents", json={"documents": DOCUMENTS})
    assert [each["id"] for each in added.json()["data"]] == ["moon", "tea"]
    return path


async def test_a_store_and_its_documents(stores: httpx.AsyncClient) -> None:
    path = await new_store(stores)
    store = (await stores.get(path)).json()
    assert (store["object"], store["name"], store["metadata"], store["status"]) == ("vector_store", "facts", {"owner": "me"}, "completed")
    assert store["file_counts"]["total"] == 2
    assert [each["id"] for each in (await stores.get("/v1/vector_stores")).json()["data"]] == [store["id"]]
    documents = (await stores.get(f"{path}/documents")).json()["data"]
    assert [(each["id"], each["attributes"]) for each in documents] == [("moon", {}), ("tea", {"hot": True})]


async def test_long_lists_come_in_pages(stores: httpx.AsyncClient) -> None:
    path = await new_store(stores)
    first = (await stores.get(f"{path}/documents", params={"limit": 1})).json()
    assert ([each["id"] for each in first["data"]], first["has_more"]) == (["moon"], True)
    second = (await stores.get(f"{path}/documents", params={"limit": 1, "after": first["last_id"]})).json()
    assert ([each["id"] for each in second["data"]], second["has_more"], second["first_id"]) == (["tea"], False, "tea")
    last = (await stores.get(f"{path}/documents", params={"after": second["last_id"]})).json()
    assert (last["data"], last["first_id"], last["last_id"], last["has_more"]) == ([], None, None, False)
    await stores.post("/v1/vector_stores", json={})
    assert (await stores.get("/v1/vector_stores", params={"limit": 1, "order": "asc"})).json()["has_more"]


@pytest.mark.parametrize("limit", ["0", "101", "-1", "1.5", CANARY, "9" * 5000, "\u00b2", "\u0663"])
async def test_a_page_of_no_size(stores: httpx.AsyncClient, limit: str) -> None:
    response = await stores.get("/v1/vector_stores", params={"limit": limit})
    assert (response.status_code, error_of(response)["param"]) == (400, "limit")


async def test_a_search_finds_the_nearest_text(stores: httpx.AsyncClient) -> None:
    path = await new_store(stores)
    page = (await stores.post(f"{path}/search", json={"query": "green tea", "max_num_results": 1})).json()
    assert (page["object"], page["search_query"], page["has_more"]) == ("vector_store.search_results.page", ["green tea"], False)
    (hit,) = page["data"]
    assert (hit["file_id"], hit["attributes"]) == ("tea", {"hot": True})
    assert hit["content"] == [{"type": "text", "text": DOCUMENTS[1]["text"]}]


@pytest.mark.parametrize(("count", "status"), [(60, 200), (61, 400)])
async def test_as_many_results_as_are_configured(count: int, status: int) -> None:
    async with client_of(make_world(retrieval={"max_top_k": 60})) as http:
        response = await http.post("/v1/vector_stores/vs/search", json={"query": "x", "max_num_results": count})
    assert response.status_code == status


async def test_integers_that_a_double_cannot_tell_apart_are_refused(stores: httpx.AsyncClient) -> None:
    path = await new_store(stores)
    for owner, status in ((2**53, 200), (2**53 + 1, 400), (-(2**53) - 1, 400), (10**30, 400)):
        document = {"id": "bees", "text": "Bees", "attributes": {"owner": owner}}
        added = await stores.post(f"{path}/documents", json={"documents": [document]})
        filters = {"type": "ne", "key": "owner", "value": owner}
        searched = await stores.post(f"{path}/search", json={"query": "Bees", "filters": filters})
        assert (added.status_code, searched.status_code) == (status, status)
    filters = {"type": "eq", "key": "owner", "value": 2**53}
    found = (await stores.post(f"{path}/search", json={"query": "Bees", "filters": filters})).json()["data"]
    assert [(hit["file_id"], hit["attributes"]) for hit in found] == [("bees", {"owner": 2**53})]


async def test_what_is_deleted_is_gone(stores: httpx.AsyncClient) -> None:
    path = await new_store(stores)
    assert (await stores.delete(f"{path}/documents/moon")).json()["deleted"]
    assert (await stores.delete(f"{path}/documents/moon")).status_code == 404
    found = (await stores.post(f"{path}/search", json={"query": "moon"})).json()["data"]
    assert [hit["file_id"] for hit in found] == ["tea"]
    assert (await stores.delete(path)).json()["deleted"]
    assert (await stores.get(path)).status_code == 404
    assert (await stores.post(f"{path}/search", json={"query": "moon"})).status_code == 404


async def test_tenants_do_not_see_each_others_stores(stores: httpx.AsyncClient) -> None:
    path = await new_store(stores)
    other = {"x-mygo-tenant": "other"}
    assert (await stores.get("/v1/vector_stores", headers=other)).json()["data"] == []
    seen = [
        await stores.get(path, headers=other),
        await stores.delete(path, headers=other),
        await stores.get(f"{path}/documents", headers=other),
        await stores.post(f"{path}/documents", json={"documents": DOCUMENTS}, headers=other),
        await stores.delete(f"{path}/documents/moon", headers=other),
        await stores.post(f"{path}/search", json={"query": "moon"}, headers=other),
        await stores.post(
            "/v1/chat/completions", json={**CHAT, "retrieval": {"vector_store_ids": [path.rsplit("/", 1)[1]]}}, headers=other
        ),
    ]
    assert [(each.status_code, error_of(each)["code"]) for each in seen] == [(404, "not_found")] * 7
    assert (await stores.get(path)).json()["file_counts"]["total"] == 2


async def test_a_chat_gets_the_documents_of_its_store(stores: httpx.AsyncClient, world: World) -> None:
    store_id = (await new_store(stores)).rsplit("/", 1)[1]
    response = await stores.post("/v1/chat/completions", json={**CHAT, "retrieval": {"vector_store_ids": [store_id], "top_k": 2}})
    assert response.headers["x-mygo-cache"] == "miss"
    assert len(response.headers["x-mygo-documents"].split(",")) == 2
    assert all(document["text"] in world.replicas.bodies[-1]["messages"][0]["content"] for document in DOCUMENTS)


@pytest.mark.parametrize(
    ("field", "document"),
    [("text", {"text": " "}), ("id", {"text": "x", "id": f"{CANARY}#"}), ("attributes", {"text": "x", "attributes": {"a": "x" * 1000}})],
)
async def test_a_document_that_cannot_be_kept(stores: httpx.AsyncClient, field: str, document: dict[str, Any]) -> None:
    path = await new_store(stores)
    response = await stores.post(f"{path}/documents", json={"documents": [{"text": "good"}, document]})
    assert (response.status_code, error_of(response)["param"]) == (400, f"documents[1].{field}")
    assert error_of(response)["message"].startswith(f"documents[1].{field}")
    assert (await stores.get(path)).json()["file_counts"]["total"] == 2


async def test_a_files_id_is_no_documents(stores: httpx.AsyncClient) -> None:
    path = await new_store(stores)
    file_id = (await stores.post("/v1/files", data={"purpose": "assistants"}, files={"file": ("a.txt", b"Bees make honey.")})).json()["id"]
    attached = await stores.post(f"{path}/files", json={"file_id": file_id})
    assert attached.status_code == 200
    replaced = await stores.post(f"{path}/documents", json={"documents": [{"text": "x"}, {"id": file_id, "text": "Something else."}]})
    error = error_of(replaced)
    assert (replaced.status_code, error["param"]) == (400, "documents[1].id")
    assert error["message"].startswith("documents[1].id begins with file-, as uploaded files' ids do")
    deleted = await stores.delete(f"{path}/documents/{file_id}")
    assert deleted.status_code == 404
    assert "/v1/vector_stores/{id}/files/{file_id}" in error_of(deleted)["message"]
    assert (await stores.get(f"{path}/files/{file_id}")).status_code == 200
    assert (await stores.delete(f"{path}/files/{file_id}")).json()["deleted"]


async def test_which_of_several_is_not_there_is_said(stores: httpx.AsyncClient) -> None:
    path = await new_store(stores)
    file_id = (await stores.post("/v1/files", data={"purpose": "assistants"}, files={"file": ("a.txt", b"Bees make honey.")})).json()["id"]
    for route, body in (
        (f"{path}/file_batches", {"file_ids": [file_id, "file-none"]}),
        ("/v1/vector_stores", {"file_ids": ["file-none", file_id]}),
    ):
        response = await stores.post(route, json=body)
        assert (response.status_code, error_of(response)["message"]) == (404, "There is no such file: file-none.")
    chat = {**CHAT, "retrieval": {"vector_store_ids": [path.rsplit("/", 1)[1], "vs_none"]}}
    response = await stores.post("/v1/chat/completions", json=chat)
    assert response.status_code == 404
    assert error_of(response)["param"] == "retrieval.vector_store_ids[1]"
    assert error_of(response)["message"] == "There is no such vector store: vs_none."


SEARCH_FIELDS = "allowed: query, max_num_results, filters, ranking_options, rewrite_query"


@pytest.mark.parametrize(
    ("field", "meant"), [("top_k", "max_num_results"), ("score_threshold", "ranking_options.score_threshold"), ("filter", "filters")]
)
async def test_what_a_search_calls_otherwise_than_a_chat(stores: httpx.AsyncClient, field: str, meant: str) -> None:
    response = await stores.post("/v1/vector_stores/vs/search", json={"query": "x", field: 1})
    assert response.status_code == 400
    assert error_of(response)["message"] == f"{field} is not known; {SEARCH_FIELDS}; did you mean {meant}?"


async def test_a_chat_that_found_nothing_says_that_it_asked(stores: httpx.AsyncClient, world: World) -> None:
    path = f"/v1/vector_stores/{(await stores.post('/v1/vector_stores', json={})).json()['id']}"
    chat = {**CHAT, "retrieval": {"vector_store_ids": [path.rsplit("/", 1)[1]]}}
    for cache in ("miss", "exact"):
        response = await stores.post("/v1/chat/completions", json=chat)
        assert (response.headers["x-mygo-cache"], response.headers.get("x-mygo-documents")) == (cache, "")
        await world.keeper.drain()
    assert "x-mygo-documents" not in (await stores.post("/v1/chat/completions", json=CHAT)).headers


async def test_a_form_where_a_files_id_belongs(stores: httpx.AsyncClient) -> None:
    path = await new_store(stores)
    response = await stores.post(f"{path}/files", files={"file": ("a.txt", b"Bees make honey.")})
    assert response.status_code == 400
    assert error_of(response)["message"].startswith("Upload the file to /v1/files first")


async def test_a_collection_of_another_encoder_says_so(stores: httpx.AsyncClient, world: World, tmp_path: Path) -> None:
    path = await new_store(stores)

    class Other(Encoder):
        name = "/a/path@2"

    encoder = Other()
    tier = make_tier(tmp_path, encoder)
    world.pipeline = replace(world.pipeline, documents=LocalRetrieval(tier))
    chat = {**CHAT, "retrieval": {"vector_store_ids": [path.split("/")[-1]]}}
    async with client_of(world) as http:
        for response, param in (
            (await http.post(f"{path}/search", json={"query": "tea"}), "vector_store_id"),
            (await http.post(f"{path}/documents", json={"documents": DOCUMENTS}), "vector_store_id"),
            (await http.post("/v1/chat/completions", json=chat), "retrieval.vector_store_ids"),
        ):
            error = error_of(response)
            assert (response.status_code, error["param"], error["code"]) == (400, param, "invalid_value")
            assert "add its documents to a new one" in error["message"]
            assert encoder.name not in error["message"]
        assert DOCUMENTS[0]["text"] not in encoder.encoded  # refused before the work
        assert len((await http.get(f"{path}/documents")).json()["data"]) == 2  # they can still be fetched
    tier.close()


async def test_routes_of_stores_without_retrieval() -> None:
    world = make_world(retrieval={"enabled": False})
    async with client_of(world) as http:
        assert (await http.get("/v1/vector_stores")).status_code == 404
        assert (await http.post("/v1/vector_stores", json={})).status_code == 404
