"""Documents: a store, texts in it, search, and a chat that uses them."""

from typing import Any

import httpx
import pytest

from tests.e2e.system import System

FACTS = [
    {"id": "moon", "text": "The moon is about 384,000 kilometres away from the earth."},
    {"id": "tea", "text": "Green tea should be brewed with water of about 80 degrees."},
    {"id": "cache", "text": "A cache keeps answers so that they need not be computed again."},
]


@pytest.fixture
def store(http: httpx.Client) -> str:
    store_id: str = http.post("/v1/vector_stores", json={"name": "facts"}).raise_for_status().json()["id"]
    http.post(f"/v1/vector_stores/{store_id}/documents", json={"documents": FACTS}).raise_for_status()
    return store_id


def test_search_finds_what_was_added(http: httpx.Client, store: str) -> None:
    found = http.post(f"/v1/vector_stores/{store}/search", json={"query": "How far away is the moon?", "max_num_results": 2})
    hits = found.raise_for_status().json()["data"]
    assert hits[0]["file_id"] == "moon"
    assert hits[0]["content"][0]["text"] == FACTS[0]["text"]
    assert len(hits) == 2
    assert hits[0]["score"] > hits[1]["score"]


def test_a_deleted_document_is_not_found_again(http: httpx.Client, store: str) -> None:
    http.delete(f"/v1/vector_stores/{store}/documents/moon").raise_for_status()
    found = http.post(f"/v1/vector_stores/{store}/search", json={"query": "How far away is the moon?"}).json()["data"]
    assert {hit["file_id"] for hit in found} == {"tea", "cache"}


def test_another_tenant_does_not_see_the_store(http: httpx.Client, store: str) -> None:
    answer = http.post(f"/v1/vector_stores/{store}/search", json={"query": "moon"}, headers={"x-mygo-tenant": "other"})
    assert answer.status_code == 404
    assert all(each["id"] != store for each in http.get("/v1/vector_stores", headers={"x-mygo-tenant": "other"}).json()["data"])


def test_a_chat_gets_the_documents(http: httpx.Client, store: str, chat: dict[str, Any]) -> None:
    plain = http.post("/v1/chat/completions", json=chat).raise_for_status().json()
    chat["retrieval"] = {"vector_store_ids": [store], "top_k": 2}
    informed = http.post("/v1/chat/completions", json=chat).raise_for_status()
    assert informed.json()["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"] + 20
    assert informed.headers["x-mygo-cache"] == "miss"
    assert http.post("/v1/chat/completions", json=chat).headers["x-mygo-cache"] == "exact"


@pytest.mark.parametrize(("question", "document"), [("How far away is the moon?", "moon"), ("How hot is the water for green tea?", "tea")])
def test_the_demo_model_cites_the_document_that_answers(
    http: httpx.Client, store: str, system: System, question: str, document: str
) -> None:
    if system.is_simulated:
        pytest.skip("the simulated engine has no model")
    asked = {
        "model": system.model,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "retrieval": {"vector_store_ids": [store], "top_k": 3},
    }
    message = http.post("/v1/chat/completions", json=asked).raise_for_status().json()["choices"][0]["message"]
    assert message["content"].startswith("[1]")
    assert [annotation["file_id"] for annotation in message["annotations"]] == [document]


def test_a_changed_document_is_another_question(http: httpx.Client, store: str, chat: dict[str, Any]) -> None:
    chat["retrieval"] = {"vector_store_ids": [store], "top_k": 3}
    http.post("/v1/chat/completions", json=chat).raise_for_status()
    changed = {**FACTS[0], "text": "The moon is about 384,400 kilometres away from the earth."}
    http.post(f"/v1/vector_stores/{store}/documents", json={"documents": [changed]}).raise_for_status()
    assert http.post("/v1/chat/completions", json=chat).headers["x-mygo-cache"] == "miss"


def test_a_deleted_store_is_gone(http: httpx.Client, store: str) -> None:
    http.delete(f"/v1/vector_stores/{store}").raise_for_status()
    assert http.get(f"/v1/vector_stores/{store}").status_code == 404
    assert http.post(f"/v1/vector_stores/{store}/documents", json={"documents": FACTS}).status_code == 404
