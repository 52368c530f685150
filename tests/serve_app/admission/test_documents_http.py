"""Searches and uploads take of the same limits as chats."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.retrieval.tiers import make_tier
from tests.serve_app.clients import CHAT, client_of, error_of
from tests.serve_app.fakes import LocalRetrieval, World, make_world

REMAINING = "x-ratelimit-remaining-requests"


@pytest.fixture
def limits() -> dict[str, int]:
    return {"requests_per_minute": 4}


@pytest.fixture
def world(limits: dict[str, int]) -> World:
    return make_world(limits=limits)


@pytest.fixture
async def http(world: World, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    tier = make_tier(tmp_path)
    world.pipeline = replace(world.pipeline, documents=LocalRetrieval(tier))
    async with client_of(world) as http:
        yield http
    tier.close()


async def store_of(http: httpx.AsyncClient) -> str:
    """Costs nothing."""
    return f"/v1/vector_stores/{(await http.post('/v1/vector_stores', json={})).json()['id']}"


async def upload(http: httpx.AsyncClient) -> httpx.Response:
    return await http.post("/v1/files", data={"purpose": "assistants"}, files={"file": ("bees.txt", b"Bees make honey.")})


async def test_each_of_them_is_a_request(http: httpx.AsyncClient) -> None:
    store = await store_of(http)
    file = await upload(http)
    calls: list[tuple[str, dict[str, Any]]] = [
        ("documents", {"documents": [{"id": "moon", "text": "The moon is far away."}]}),
        ("files", {"file_id": file.json()["id"]}),
        ("search", {"query": "moon"}),
    ]
    answers = [file, *[await http.post(f"{store}/{path}", json=body) for path, body in calls]]
    assert [(answer.status_code, answer.headers[REMAINING]) for answer in answers] == [(200, str(left)) for left in (3, 2, 1, 0)]
    refused = [
        await upload(http),
        *[await http.post(f"{store}/{path}", json=body) for path, body in calls],
        await http.post("/v1/chat/completions", json=CHAT),
    ]
    refused.append(await http.post(f"{store}/file_batches", json={"file_ids": [file.json()["id"]]}))
    for answer in refused:
        assert (answer.status_code, answer.headers["retry-after"], error_of(answer)["code"]) == (429, "15", "rate_limit_exceeded")
        assert answer.headers["x-ratelimit-limit-requests"] == "4"
    assert (await http.get(f"{store}/documents")).json()["data"][0]["id"] == "moon"  # to look costs nothing
    assert (await http.post(f"{store}/search", json={"query": "moon"}, headers={"x-mygo-tenant": "bob"})).status_code == 404


@pytest.mark.parametrize("limits", [{"tokens_per_minute": 100}])
async def test_texts_that_are_encoded_at_once_count_their_tokens(http: httpx.AsyncClient) -> None:
    store = await store_of(http)
    added = await http.post(f"{store}/documents", json={"documents": [{"text": "x" * 120}, {"text": "y" * 80}]})
    assert added.headers["x-ratelimit-remaining-tokens"] == "50"
    searched = await http.post(f"{store}/search", json={"query": ["z" * 60, "w" * 60]})
    assert searched.headers["x-ratelimit-remaining-tokens"] == "20"
    refused = await http.post(f"{store}/search", json={"query": "z" * 120})
    assert (refused.status_code, error_of(refused)["type"]) == (429, "tokens")
    assert (await http.post("/v1/vector_stores/none/search", json={"query": "z" * 40})).status_code == 404
    again = await http.post(f"{store}/search", json={"query": "z" * 80})  # what failed has cost no tokens
    assert again.headers["x-ratelimit-remaining-tokens"] == "0"


@pytest.mark.parametrize("limits", [{"concurrency": 0}])
async def test_where_nothing_may_run_nothing_is_read(http: httpx.AsyncClient, world: World) -> None:
    assert (await upload(http)).status_code == 429
    assert (await http.get("/v1/files")).json()["data"] == []
