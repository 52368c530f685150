"""/v1/vector_stores, their files and batches, and search."""

from typing import Any

import httpx
import pytest
from openai.types import VectorStore, VectorStoreDeleted, VectorStoreSearchResponse
from openai.types.vector_stores import VectorStoreFile, VectorStoreFileBatch, VectorStoreFileDeleted

from tests.conformance.shapes import checked, error_of
from tests.conformance.test_files import upload
from tests.e2e.system import poll

LIMIT_S = 60
STORES = "/v1/vector_stores"


def new_store(http: httpx.Client, **fields: Any) -> VectorStore:
    response = http.post(STORES, json=fields)
    assert response.status_code == 200, response.text
    return checked(response.json(), VectorStore)


def attached(http: httpx.Client, store: str, file: str, **fields: Any) -> VectorStoreFile:
    """Once it is read."""
    response = http.post(f"{STORES}/{store}/files", json={"file_id": file, **fields})
    assert response.status_code == 200, response.text
    checked(response.json(), VectorStoreFile)

    def read() -> VectorStoreFile | None:
        shown = checked(http.get(f"{STORES}/{store}/files/{file}").json(), VectorStoreFile)
        return None if shown.status == "in_progress" else shown

    found: VectorStoreFile = poll("the file is read", LIMIT_S, read)
    return found


@pytest.mark.parametrize("fields", [{}, {"name": "notes"}, {"metadata": {"team": "blue"}}, {"name": None, "metadata": None}], ids=str)
def test_create(http: httpx.Client, fields: dict[str, Any]) -> None:
    store = new_store(http, **fields)
    assert store.id.startswith("vs_")
    assert store.name == (fields.get("name") or "")
    assert (store.metadata or {}) == (fields.get("metadata") or {})
    assert (store.status, store.file_counts.total) == ("completed", 0)


def test_retrieve_says_what_create_did(http: httpx.Client) -> None:
    store = new_store(http, name="notes")
    assert checked(http.get(f"{STORES}/{store.id}").raise_for_status().json(), VectorStore).name == "notes"


def test_modify(http: httpx.Client) -> None:
    store = new_store(http, name="notes", metadata={"team": "blue"})
    changed = http.post(f"{STORES}/{store.id}", json={"name": "papers", "metadata": {"team": "red"}}).raise_for_status()
    assert checked(changed.json(), VectorStore).name == "papers"
    assert http.get(f"{STORES}/{store.id}").json()["metadata"] == {"team": "red"}


def test_delete(http: httpx.Client) -> None:
    store = new_store(http)
    assert checked(http.delete(f"{STORES}/{store.id}").raise_for_status().json(), VectorStoreDeleted).deleted
    error_of(http.get(f"{STORES}/{store.id}"), 404)
    error_of(http.delete(f"{STORES}/{store.id}"), 404)


def test_pages_go_forth_and_back(http: httpx.Client) -> None:
    ids = [new_store(http, name=str(number)).id for number in range(3)]
    first = http.get(STORES, params={"limit": 2, "order": "asc"}).raise_for_status().json()
    assert ([each["id"] for each in first["data"]], first["has_more"]) == (ids[:2], True)
    for each in first["data"]:
        checked(each, VectorStore)
    second = http.get(STORES, params={"limit": 2, "order": "asc", "after": first["last_id"]}).json()
    assert ([each["id"] for each in second["data"]], second["has_more"]) == (ids[2:], False)
    back = http.get(STORES, params={"limit": 2, "order": "asc", "before": second["first_id"]}).json()
    assert [each["id"] for each in back["data"]] == ids[:2]


def test_a_file_is_attached_listed_changed_and_detached(http: httpx.Client) -> None:
    store, file = new_store(http).id, upload(http).id
    shown = attached(http, store, file, attributes={"kind": "tea", "number": 3, "good": True})
    assert (shown.status, shown.last_error, shown.vector_store_id) == ("completed", None, store)
    assert shown.attributes == {"kind": "tea", "number": 3, "good": True}
    listed = http.get(f"{STORES}/{store}/files", params={"filter": "completed"}).raise_for_status().json()
    assert [checked(each, VectorStoreFile).id for each in listed["data"]] == [file]
    changed = http.post(f"{STORES}/{store}/files/{file}", json={"attributes": {"kind": "drink"}}).raise_for_status()
    assert checked(changed.json(), VectorStoreFile).attributes == {"kind": "drink"}
    content = http.get(f"{STORES}/{store}/files/{file}/content").raise_for_status().json()
    assert "80 degrees" in content["data"][0]["text"]
    gone = http.delete(f"{STORES}/{store}/files/{file}").raise_for_status()
    assert checked(gone.json(), VectorStoreFileDeleted).deleted
    error_of(http.get(f"{STORES}/{store}/files/{file}"), 404)
    assert http.get(f"/v1/files/{file}").status_code == 200, "the file itself stays"


def test_a_file_that_cannot_be_read_says_why(http: httpx.Client) -> None:
    shown = attached(http, new_store(http).id, upload(http, "a.pdf", b"no PDF").id)
    assert shown.status == "failed"
    assert shown.last_error
    assert shown.last_error.message


def test_a_batch(http: httpx.Client) -> None:
    store, files = new_store(http).id, [upload(http, f"{number}.txt").id for number in range(2)]
    response = http.post(f"{STORES}/{store}/file_batches", json={"file_ids": files}).raise_for_status()
    batch = checked(response.json(), VectorStoreFileBatch)
    assert (batch.vector_store_id, batch.file_counts.total) == (store, 2)
    path = f"{STORES}/{store}/file_batches/{batch.id}"
    poll("the batch is read", LIMIT_S, lambda: checked(http.get(path).json(), VectorStoreFileBatch).status == "completed")
    listed = http.get(f"{path}/files").raise_for_status().json()
    assert {checked(each, VectorStoreFile).id for each in listed["data"]} == set(files)
    checked(http.post(f"{path}/cancel").raise_for_status().json(), VectorStoreFileBatch)


@pytest.mark.parametrize("query", ["How hot is the water for green tea?", ["green tea", "water"]], ids=["text", "list"])
def test_search(http: httpx.Client, query: Any) -> None:
    store = new_store(http).id
    attached(http, store, upload(http).id, attributes={"kind": "tea"})
    filters = {"type": "eq", "key": "kind", "value": "tea"}
    found = http.post(f"{STORES}/{store}/search", json={"query": query, "max_num_results": 1, "filters": filters}).raise_for_status()
    body = found.json()
    assert body["object"] == "vector_store.search_results.page"
    assert body["search_query"] == ([query] if isinstance(query, str) else query)
    assert set(body) == {"object", "search_query", "data", "has_more", "next_page"}
    (hit,) = [checked(each, VectorStoreSearchResponse) for each in body["data"]]
    assert (hit.filename, hit.attributes) == ("tea.txt", {"kind": "tea"})
    assert 0 <= hit.score <= 1


REFUSED_STORES: list[tuple[str, dict[str, Any], str]] = [
    ("name number", {"name": 7}, "name"),
    ("metadata list", {"metadata": []}, "metadata"),
    ("metadata of numbers", {"metadata": {"a": 1}}, "metadata"),
    ("file_ids text", {"file_ids": "file-1"}, "file_ids"),
    ("chunking_strategy of no kind", {"chunking_strategy": {"type": "fine"}}, "chunking_strategy.type"),
    ("expires_after", {"expires_after": {"anchor": "last_active_at", "days": 1}}, "expires_after"),
    ("unknown field", {"colour": "blue"}, "colour"),
]


@pytest.mark.parametrize(("fields", "param"), [each[1:] for each in REFUSED_STORES], ids=[name for name, *_ in REFUSED_STORES])
def test_create_refuses(http: httpx.Client, fields: dict[str, Any], param: str) -> None:
    error_of(http.post(STORES, json=fields), 400, param)


REFUSED_SEARCHES: list[tuple[str, dict[str, Any], str]] = [
    ("query missing", {}, "query"),
    ("query empty", {"query": ""}, "query"),
    ("query number", {"query": 7}, "query"),
    ("max_num_results 0", {"query": "tea", "max_num_results": 0}, "max_num_results"),
    ("max_num_results 51", {"query": "tea", "max_num_results": 51}, "max_num_results"),
    ("filters of no kind", {"query": "tea", "filters": {"type": "like", "key": "a", "value": "b"}}, "filters.type"),
    ("score_threshold 2", {"query": "tea", "ranking_options": {"score_threshold": 2}}, "ranking_options.score_threshold"),
]


@pytest.mark.parametrize(("fields", "param"), [each[1:] for each in REFUSED_SEARCHES], ids=[name for name, *_ in REFUSED_SEARCHES])
def test_search_refuses(http: httpx.Client, fields: dict[str, Any], param: str) -> None:
    error_of(http.post(f"{STORES}/{new_store(http).id}/search", json=fields), 400, param)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "vs_none", None),
        ("POST", "vs_none", {"name": "x"}),
        ("DELETE", "vs_none", None),
        ("POST", "vs_none/search", {"query": "tea"}),
        ("GET", "vs_none/files", None),
        ("POST", "vs_none/files", {"file_id": "file-1"}),
        ("POST", "vs_none/file_batches", {"file_ids": ["file-1"]}),
    ],
)
def test_an_unknown_store(http: httpx.Client, method: str, path: str, body: Any) -> None:
    error_of(http.request(method, f"{STORES}/{path}", json=body), 404)


def test_an_unknown_file_and_batch_of_a_store(http: httpx.Client) -> None:
    store = new_store(http).id
    error_of(http.post(f"{STORES}/{store}/files", json={"file_id": "file-none"}), 404)
    error_of(http.get(f"{STORES}/{store}/files/file-none"), 404)
    error_of(http.get(f"{STORES}/{store}/file_batches/vsfb_none"), 404)
