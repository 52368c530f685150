"""Work that is computed once for several callers is so within a tenant alone: who waits less, or longer, for it knows of others' work."""

import asyncio
from typing import Any

import pytest

from deployments.embedding import Embedded
from deployments.rendering import DocumentChat
from tests.serve_app.asking import ask, caller, chat
from tests.serve_app.fakes import FakeAnswer, World, eventually


async def test_equal_questions_of_two_tenants_are_embedded_apart(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """None waits for another's embedding, nor is told from it."""
    embed_one, asked, go_on = world.embedding.embed_one, list[str](), asyncio.Event()

    async def slow(text: str, whose: str) -> Embedded:
        asked.append(whose)
        await go_on.wait()
        return await embed_one(text, whose)

    monkeypatch.setattr(world.embedding, "embed_one", slow)
    answers = [asyncio.create_task(ask(world, chat("Why?", seed=seed), caller(tenant))) for tenant in ("ada", "bob") for seed in (1, 2)]
    namespaces = [world.pipeline.namespaces.of(tenant) for tenant in ("ada", "bob")]
    await eventually(lambda: len(asked) >= 2)
    assert sorted(asked) == sorted(namespaces)  # one each: those of one tenant are shared
    go_on.set()
    await asyncio.gather(*answers)


async def test_a_tenant_does_not_wait_for_anothers_equal_request(world: World) -> None:
    world.replicas.script.append(FakeAnswer([None]))  # the first one's engine never answers
    first = asyncio.create_task(world.pipeline.generate(chat(), caller("ada")))
    await eventually(lambda: len(world.replicas.bodies) == 1)
    assert (await ask(world, chat(), caller("bob")))[0] == "miss"
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


async def test_equal_requests_of_one_tenant_are_computed_once(world: World) -> None:
    """Lest the test above sees nothing."""
    world.replicas.script.append(FakeAnswer([None]))
    first = asyncio.create_task(world.pipeline.generate(chat(), caller("ada")))
    await eventually(lambda: len(world.replicas.bodies) == 1)
    second: asyncio.Task[Any] = asyncio.create_task(ask(world, chat(), caller("ada")))
    done, _ = await asyncio.wait([second], timeout=0.2)
    assert not done
    assert len(world.replicas.bodies) == 1
    for task in (first, second):
        task.cancel()
    await asyncio.gather(first, second, return_exceptions=True)


async def test_tokens_of_documents_are_remembered_for_their_scope(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    chats: list[Any] = []
    rank = world.pipeline.routing.rank

    async def seen(*args: Any, **more: Any) -> Any:
        chats.extend(each for each in args if isinstance(each, DocumentChat))
        return await rank(*args, **more)

    monkeypatch.setattr(world.pipeline.routing, "rank", seen)
    for tenant in ("ada", "bob"):
        await ask(world, chat(retrieval={"vector_store_ids": ["vs"]}), caller(tenant))
    assert [each.whose for each in chats] == [world.pipeline.namespaces.of(tenant) for tenant in ("ada", "bob")]
