"""Files and collections as the official client uses them, with the real retrieval tier in this process."""

import io
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from openai.types import StaticFileChunkingStrategyObjectParam

from tests.retrieval.tiers import make_tier
from tests.serve_app.clients import app_of
from tests.serve_app.fakes import LocalRetrieval, World

BEES = ("bees.md", b"# Bees\n\nBees make honey in a hive.")
TEA = ("tea.html", b"<html><body><p>Brew green tea at 80 degrees.</p></body></html>")
BROKEN = ("broken.pdf", b"not a PDF")


@pytest.fixture
async def client(world: World, tmp_path: Path) -> AsyncIterator[AsyncOpenAI]:
    tier = make_tier(tmp_path)
    tier.start()
    world.pipeline = replace(world.pipeline, documents=LocalRetrieval(tier))
    transport = httpx2.ASGITransport(app_of(world))
    async with (
        httpx2.AsyncClient(transport=transport) as http,
        AsyncOpenAI(base_url="http://test/v1", api_key="none", http_client=http, max_retries=0) as client,
    ):
        yield client
    tier.close()


async def test_a_file(client: AsyncOpenAI) -> None:
    made = await client.files.create(file=BEES, purpose="assistants")
    assert (made.object, made.filename, made.bytes, made.purpose) == ("file", "bees.md", len(BEES[1]), "assistants")
    assert await client.files.retrieve(made.id) == made
    assert (await client.files.content(made.id)).read() == BEES[1]
    again = await client.files.create(file=BEES, purpose="user_data")
    assert again.id != made.id
    assert [file.id async for file in client.files.list()] == [again.id, made.id]
    assert [file.id async for file in client.files.list(limit=1, order="asc")] == [made.id, again.id]
    assert [file.id async for file in client.files.list(purpose="user_data")] == [again.id]
    assert (await client.files.delete(made.id)).deleted
    assert (await client.files.content(again.id)).read() == BEES[1]
    with pytest.raises(NotFoundError):
        await client.files.retrieve(made.id)


async def test_a_file_of_several_parts(client: AsyncOpenAI) -> None:
    content = bytes(range(256)) * 10_000
    made = await client.files.create(file=io.BytesIO(content), purpose="assistants")
    assert (await client.files.content(made.id)).read() == content


async def test_upload_and_poll(client: AsyncOpenAI) -> None:
    store = await client.vector_stores.create(name="facts", metadata={"owner": "me"})
    file = await client.vector_stores.files.upload_and_poll(
        vector_store_id=store.id, file=BEES, attributes={"kind": "insect"}, poll_interval_ms=10
    )
    assert (file.status, file.last_error, file.attributes, file.vector_store_id) == ("completed", None, {"kind": "insect"}, store.id)
    assert file.usage_bytes > 2 * len(BEES[1])
    assert file.chunking_strategy
    assert file.chunking_strategy.to_dict() == {
        "type": "static",
        "static": {"max_chunk_size_tokens": 16, "chunk_overlap_tokens": 4},
    }
    assert file.to_dict()["progress"] == {"chunks_done": 1, "chunks_total": 1}
    page = await client.vector_stores.search(store.id, query=["honey", "wax"], max_num_results=3)
    assert [(hit.file_id, hit.filename, hit.attributes) for hit in page.data] == [(file.id, "bees.md", {"kind": "insect"})]
    content = await client.vector_stores.files.content(file.id, vector_store_id=store.id)
    assert [part.text for part in content.data] == [BEES[1].decode()]
    seen = await client.vector_stores.retrieve(store.id)
    assert (seen.status, seen.file_counts.completed, seen.file_counts.total) == ("completed", 1, 1)
    assert seen.usage_bytes == file.usage_bytes


def static(max_tokens: int) -> StaticFileChunkingStrategyObjectParam:
    return {"type": "static", "static": {"max_chunk_size_tokens": max_tokens, "chunk_overlap_tokens": 0}}


async def test_create_and_poll_with_its_own_chunks(client: AsyncOpenAI) -> None:
    store = await client.vector_stores.create()
    made = await client.files.create(file=("long.txt", b" ".join(b"word%d" % i for i in range(100))), purpose="assistants")
    file = await client.vector_stores.files.create_and_poll(
        made.id, vector_store_id=store.id, poll_interval_ms=10, chunking_strategy=static(100)
    )
    assert file.to_dict()["progress"] == {"chunks_done": 1, "chunks_total": 1}
    with pytest.raises(BadRequestError) as refused:
        await client.vector_stores.files.create(store.id, file_id=made.id, chunking_strategy=static(800))
    assert refused.value.param == "chunking_strategy.static.max_chunk_size_tokens"


async def test_a_batch(client: AsyncOpenAI) -> None:
    store = await client.vector_stores.create()
    batch = await client.vector_stores.file_batches.upload_and_poll(store.id, files=[BEES, TEA, BROKEN], poll_interval_ms=10)
    assert (batch.status, batch.file_counts.completed, batch.file_counts.failed, batch.file_counts.total) == ("completed", 2, 1, 3)
    assert await client.vector_stores.file_batches.retrieve(batch.id, vector_store_id=store.id) == batch
    files = [file async for file in client.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id, limit=2)]
    assert len({file.id for file in files}) == 3
    failed = [file async for file in client.vector_stores.files.list(store.id, filter="failed")]
    assert [(each.last_error.code, each.status) for each in failed if each.last_error] == [("invalid_file", "failed")]
    assert (await client.vector_stores.retrieve(store.id)).file_counts.failed == 1
    ids = [file.id for file in files]
    assert (await client.vector_stores.files.delete(ids[0], vector_store_id=store.id)).deleted
    assert len([file async for file in client.vector_stores.files.list(store.id)]) == 2
    with pytest.raises(NotFoundError):
        await client.vector_stores.files.retrieve(ids[0], vector_store_id=store.id)


async def test_a_batch_is_cancelled(client: AsyncOpenAI) -> None:
    store = await client.vector_stores.create()
    file = await client.files.create(file=BEES, purpose="assistants")
    batch = await client.vector_stores.file_batches.create(store.id, file_ids=[file.id])
    cancelled = await client.vector_stores.file_batches.cancel(batch.id, vector_store_id=store.id)
    assert cancelled.status in ("cancelled", "completed")
    assert cancelled.file_counts.in_progress == 0


async def test_a_collection_with_files_and_attributes_of_each(client: AsyncOpenAI) -> None:
    bees, tea = [await client.files.create(file=each, purpose="assistants") for each in (BEES, TEA)]
    store = await client.vector_stores.create(file_ids=[bees.id])
    assert store.file_counts.total == 1
    await client.vector_stores.file_batches.create_and_poll(
        store.id, files=[{"file_id": bees.id, "attributes": {"n": 1}}, {"file_id": tea.id, "attributes": {"n": 2}}], poll_interval_ms=10
    )
    page = await client.vector_stores.search(store.id, query="green tea honey", filters={"type": "gte", "key": "n", "value": 2})
    assert [hit.file_id for hit in page.data] == [tea.id]
    changed = await client.vector_stores.files.update(tea.id, vector_store_id=store.id, attributes={"n": 0})
    assert changed.attributes == {"n": 0}
    page = await client.vector_stores.search(store.id, query="green tea honey", filters={"type": "gte", "key": "n", "value": 2})
    assert page.data == []
    page = await client.vector_stores.search(store.id, query="green tea", ranking_options={"score_threshold": 0.3})
    assert [hit.file_id for hit in page.data] == [tea.id]


async def test_a_collection_is_changed_listed_and_deleted(client: AsyncOpenAI) -> None:
    stores = [await client.vector_stores.create(name=name) for name in ("first", "second")]
    changed = await client.vector_stores.update(stores[0].id, name="renamed", metadata={"a": "b"})
    assert (changed.name, changed.metadata) == ("renamed", {"a": "b"})
    assert [store.name async for store in client.vector_stores.list(limit=1)] == ["second", "renamed"]
    assert (await client.vector_stores.delete(stores[0].id)).deleted
    with pytest.raises(NotFoundError):
        await client.vector_stores.retrieve(stores[0].id)
    with pytest.raises(BadRequestError) as refused:
        await client.vector_stores.create(expires_after={"anchor": "last_active_at", "days": 1})
    assert refused.value.param == "expires_after"
