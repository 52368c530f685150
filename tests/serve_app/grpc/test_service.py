"""Calls, through gRPC itself, of a pipeline with fakes around it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from deployments.errors import NoReplicaError, ReplicaLostError
from retrieval.documents import Chunk
from serve_app.door import KeyDoor
from serve_app.grpc import llm_service_pb2 as pb
from serve_app.grpc.service import is_of_this_machine
from serve_app.keyring.settings import KeySettings
from serve_app.keyring.store import open_keyring
from serve_app.keyring.watch import Keyring
from tests.serve_app import asking
from tests.serve_app.clients import ENCODER
from tests.serve_app.fakes import MODEL, TEXT, FakeAnswer, World, eventually, make_world, new_text, streamed
from tests.serve_app.grpc.served import chat, failed, served


@pytest.fixture
async def stub(world: World) -> AsyncIterator[Any]:
    async with served(world) as stub:
        yield stub


def begun(world: World, pieces: list[bytes | Exception | None]) -> FakeAnswer:
    """The engine's next answer."""
    answer = FakeAnswer(pieces)
    world.replicas.script.append(answer)
    return answer


# Answers


async def test_a_chat(stub: Any) -> None:
    response = await stub.Chat(chat(), metadata=[("x-request-id", "order-66")])
    [choice] = response.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", TEXT, "stop")
    assert (response.meta.request_id, response.meta.cache, response.meta.replica) == ("order-66", "miss", "r1")
    assert response.usage == pb.Usage(prompt_tokens=5, completion_tokens=4, total_tokens=9, cached_tokens=0)


async def test_a_stream_of_a_chat(stub: Any) -> None:
    chunks = [chunk async for chunk in stub.ChatStream(chat())]
    assert "".join(choice.delta.content for chunk in chunks for choice in chunk.choices) == TEXT
    assert [chunk.HasField("meta") for chunk in chunks] == [True, *[False] * (len(chunks) - 1)]
    assert chunks[0].meta.cache == "miss"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens == 4
    assert not chunks[-1].choices


async def test_pieces_come_as_the_engine_writes_them(world: World, stub: Any) -> None:
    events = streamed(TEXT)
    begun(world, [*events[:2], None])
    call = stub.ChatStream(chat())
    assert [(await call.read()).choices[0].delta.content for _ in range(2)] == ["", "A "]
    call.cancel()


async def test_a_completion(stub: Any) -> None:
    response = await stub.Complete(pb.CompleteRequest(model=MODEL, prompt="A cache is"))
    assert (response.choices[0].text, response.meta.cache) == (TEXT, "miss")
    chunks = [chunk async for chunk in stub.CompleteStream(pb.CompleteRequest(model=MODEL, prompt="A cache is"))]
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == TEXT
    assert (chunks[0].meta.cache, chunks[0].meta.similarity) == ("exact", 1.0)
    assert chunks[0].meta.entry


async def test_embeddings(world: World, stub: Any) -> None:
    response = await stub.Embed(pb.EmbedRequest(model=ENCODER, input=["a cache", "b"]))
    assert [list(each.values) for each in response.data] == [each.vector.tolist() for each in await world.embedding.embed(["a cache", "b"])]
    assert (response.model, response.usage.prompt_tokens) == (ENCODER, 3)


async def test_models(stub: Any) -> None:
    assert [model.id for model in (await stub.ListModels(pb.ListModelsRequest())).data] == [MODEL, ENCODER]


async def test_http_and_grpc_have_one_cache(world: World, stub: Any) -> None:
    await asking.ask(world, asking.chat(temperature=0.7, max_tokens=9))
    response = await stub.Chat(chat(temperature=0.7, max_tokens=9))
    assert (response.meta.cache, response.choices[0].message.content) == ("exact", TEXT)


async def test_documents(stub: Any) -> None:
    response = await stub.Chat(chat(retrieval=pb.RetrievalOptions(vector_store_ids=["vs_1"])))
    assert list(response.meta.documents) == [Chunk("doc_0", 0, "").id]


async def test_calls_are_counted_under_their_names(world: World, stub: Any) -> None:
    await stub.Chat(chat())
    await failed(stub.ChatStream(chat(model="other")))
    assert world.metrics.requests == [("gRPC Chat", 200, "miss"), ("gRPC ChatStream", 404, "")]


async def test_a_stream_is_read_to_its_end(world: World, stub: Any) -> None:
    begun(world, list(streamed(TEXT)))
    assert [chunk async for chunk in stub.ChatStream(chat(new_text()))]
    begun(world, [streamed(TEXT)[0], b'data: {"error": {"message": "Bad.", "code": 400}}\n\n'])
    await failed(stub.ChatStream(chat(new_text())))
    await eventually(lambda: len(world.metrics.requests) == 2)
    assert world.metrics.requests == [("gRPC ChatStream", 200, "miss")] * 2
    assert world.metrics.left == []


# Who may ask


async def test_tenants_without_keys(stub: Any) -> None:
    outcomes = [(await stub.Chat(chat(), metadata=[("x-mygo-tenant", name)])).meta.cache for name in ("ada", "bob", "ada")]
    assert outcomes == ["miss", "miss", "exact"]
    assert (await failed(stub.Chat(chat(), metadata=[("x-mygo-tenant", "no name")]))).code == "INVALID_ARGUMENT"


async def test_keys(world: World, tmp_path: Path) -> None:
    keyring = Keyring(open_keyring(f"sqlite:///{tmp_path}/keyring.db"), 60.0)
    _, key = keyring.store.create(KeySettings(tenant="ada", role="user"), "test", 1.0)
    async with served(world, KeyDoor(keyring)) as stub:
        for metadata in ([("authorization", f"Bearer {key}")], [("x-api-key", key)]):
            assert (await stub.Chat(chat(), metadata=metadata)).choices
        for metadata in ([], [("x-api-key", f"{key}x")]):
            refused = await failed(stub.ChatStream(chat(), metadata=metadata))
            assert (refused.code, "key" in refused.details) == ("UNAUTHENTICATED", True)
        other = [("x-api-key", key), ("x-mygo-tenant", "bob")]
        assert (await failed(stub.Chat(chat(), metadata=other))).code == "PERMISSION_DENIED"
    await keyring.close()


@pytest.mark.parametrize(
    ("peer", "is_here"),
    [
        ("ipv4:127.0.0.1:4711", True),
        ("ipv6:%5B::1%5D:4711", True),
        ("unix:", True),
        ("ipv4:192.0.2.2:4711", False),
        ("ipv6:%5Bfd00::2%5D:4711", False),
        ("", False),
    ],
)
def test_which_peers_are_of_this_machine(peer: str, is_here: bool) -> None:
    assert is_of_this_machine(peer) is is_here


async def test_what_is_for_this_machine_only(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(world, is_local=True) as stub:
        assert (await stub.Chat(chat())).choices
        monkeypatch.setattr("serve_app.grpc.service.is_of_this_machine", lambda peer: False)
        for call in (stub.Chat(chat()), stub.ChatStream(chat())):
            assert (await failed(call)).code == "PERMISSION_DENIED"


# Errors


@pytest.mark.parametrize("method", ["Chat", "ChatStream"])
async def test_an_error_says_what_it_says_over_http(method: str, stub: Any) -> None:
    refused = await failed(getattr(stub, method)(chat(model="other"), metadata=[("x-request-id", "r-7")]))
    assert (refused.code, refused.details) == ("NOT_FOUND", f"Could not find this model; the one that answers here is {MODEL}.")
    assert refused.trailers == {
        "x-request-id": "r-7",
        "x-mygo-error-type": "invalid_request_error",
        "x-mygo-error-code": "model_not_found",
        "x-mygo-error-param": "model",
    }


async def test_fields_are_checked_as_over_http(stub: Any) -> None:
    refused = await failed(stub.Chat(chat(temperature=3)))
    assert (refused.code, refused.details) == ("INVALID_ARGUMENT", "temperature must be at most 2.")
    assert (await failed(stub.Chat(chat(messages=[])))).details == "messages is required."
    assert (await failed(stub.Complete(pb.CompleteRequest(model=MODEL)))).details == "prompt is required."


async def test_without_a_replica_one_is_to_come_again(world: World, stub: Any) -> None:
    world.replicas.script.append(NoReplicaError("none"))
    refused = await failed(stub.Chat(chat()))
    assert (refused.code, refused.trailers["retry-after"]) == ("UNAVAILABLE", "1")


@pytest.mark.parametrize("method", ["Chat", "ChatStream"])
async def test_limits(method: str) -> None:
    async with served(make_world(limits={"requests_per_minute": 1})) as stub:
        taken = getattr(stub, method)(chat())
        assert [chunk async for chunk in taken] if method == "ChatStream" else await taken
        assert dict(await taken.trailing_metadata())["x-ratelimit-remaining-requests"] == "0"
        refused = await failed(getattr(stub, method)(chat()))
        assert (refused.code, refused.trailers["x-mygo-error-code"]) == ("RESOURCE_EXHAUSTED", "rate_limit_exceeded")
        assert 1 <= int(refused.trailers["retry-after"]) <= 60
        assert refused.trailers["x-ratelimit-limit-requests"] == "1"


async def test_a_place_is_free_again_when_a_client_has_left() -> None:
    world = make_world(limits={"concurrency": 1})
    async with served(world) as stub:
        begun(world, [*streamed(TEXT)[:2], None])
        call = stub.ChatStream(chat())
        await call.read()
        assert (await failed(stub.Chat(chat(new_text())))).code == "RESOURCE_EXHAUSTED"
        call.cancel()
        await eventually(lambda: bool(world.metrics.left))
        assert (await stub.Chat(chat(new_text()))).choices


async def test_an_error_of_the_applications_own(world: World, stub: Any) -> None:
    world.replicas.script.append(RuntimeError("secret"))
    refused = await failed(stub.Chat(chat()))
    assert (refused.code, refused.details) == ("INTERNAL", "The server had an error. The request id names it in the logs.")


async def test_a_request_that_is_too_long() -> None:
    world = make_world(ingress={"max_body_bytes": 1024})
    async with served(world) as stub:
        assert (await failed(stub.Chat(chat("x" * 1024)))).code == "RESOURCE_EXHAUSTED"
        longer_in_json = await failed(stub.Chat(chat("\1" * 500)))
        assert (longer_in_json.code, longer_in_json.trailers["x-mygo-error-code"]) == ("RESOURCE_EXHAUSTED", "body_too_large")
    assert world.steps == []


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (ReplicaLostError("gone"), "UNAVAILABLE"),
        (b'data: {"error": {"message": "Bad.", "code": 400}}\n\n', "INVALID_ARGUMENT"),
    ],
)
async def test_a_stream_that_ends_with_an_error(end: bytes | Exception, code: str, world: World, stub: Any) -> None:
    begun(world, [*streamed(TEXT)[:2], end])
    call = stub.ChatStream(chat())
    assert [(await call.read()).choices[0].delta.content for _ in range(2)] == ["", "A "]
    assert (await failed(call)).code == code


async def test_a_stream_without_its_end_is_no_answer(world: World, stub: Any) -> None:
    begun(world, list(streamed(TEXT, done=False)))
    assert (await failed(stub.ChatStream(chat()))).code == "INTERNAL"


# Clients that leave


@pytest.mark.parametrize("leaves", ["cancels", "has waited long enough"])
@pytest.mark.parametrize("method", ["Chat", "ChatStream"])
async def test_a_client_that_leaves_ends_the_work(method: str, leaves: str, world: World, stub: Any) -> None:
    pieces: list[bytes | Exception | None] = [*streamed(TEXT)[:2], None] if method == "ChatStream" else [b"{", None]
    answer = begun(world, pieces)
    call = getattr(stub, method)(chat(), timeout=None if leaves == "cancels" else 0.3)
    if method == "ChatStream":
        await call.read()
    await eventually(lambda: bool(world.replicas.answers))
    if leaves == "cancels":
        call.cancel()
    await eventually(lambda: answer.closed > 0)
    assert await call.code() is (grpc.StatusCode.CANCELLED if leaves == "cancels" else grpc.StatusCode.DEADLINE_EXCEEDED)
    await eventually(lambda: world.metrics.requests == [(f"gRPC {method}", 499, "miss" if method == "ChatStream" else "")])
    assert world.metrics.left == [f"gRPC {method}"]


async def test_a_client_that_does_not_read_holds_up_the_engine_and_may_still_leave(world: World, stub: Any) -> None:
    event = streamed("x" * 50_000)[1]
    sent: list[int] = []

    class Endless(FakeAnswer):
        async def chunks(self) -> AsyncIterator[bytes]:
            while True:
                sent.append(1)
                yield event
                await asyncio.sleep(0)

    answer = Endless([])
    world.replicas.script.append(answer)
    call = stub.ChatStream(chat())
    await call.read()
    before = 0

    def is_held_up() -> bool:
        nonlocal before
        held_up, before = len(sent) == before, len(sent)
        return held_up

    await eventually(is_held_up)
    call.cancel()
    await eventually(lambda: answer.closed > 0)
