"""What takes too long is ended: the client hears which limit it was, the engine stops, and nothing stays reserved."""

import asyncio
from typing import Any

import msgspec
import pytest

from deployments.errors import SilentReplicaError
from serve_app.errors import OverdueError, to_api_error
from serve_app.openai import sse
from tests.serve_app.asking import bytes_of, caller, chat, text_of
from tests.serve_app.fakes import TEXT, FakeAnswer, World, eventually, make_world, new_text, streamed, whole


def hurried(**limits: float) -> World:
    """One request at a time: the next one shows that the last one's place is free."""
    return make_world(ingress={"total_timeout_s": 0.03, **limits}, limits={"concurrency": 1})


async def is_free(world: World) -> bool:
    """Nothing is left of what was ended."""
    assert all(answer.closed for answer in world.replicas.answers)
    assert world.pipeline.routing.router.ledger("r1").ongoing == 0
    assert len(world.pipeline.routing.turnstile) == 0
    reply = await world.pipeline.generate(chat(new_text()), caller())
    answered = text_of(await bytes_of(reply)) == TEXT
    await reply.close()
    return answered


async def test_a_whole_answer_that_takes_too_long() -> None:
    world = hurried()
    world.replicas.script.append(FakeAnswer([whole(TEXT)[:20], None]))
    with pytest.raises(OverdueError) as late:
        await world.pipeline.generate(chat(), caller())
    assert (late.value.status, late.value.code) == (504, "total_timeout")
    assert await is_free(world)


async def test_a_stream_that_takes_too_long_ends_with_an_error_event() -> None:
    world = hurried()
    first = streamed(TEXT)[0]
    world.replicas.script.append(FakeAnswer([first, None]))
    reply = await world.pipeline.generate(chat(stream=True), caller())
    body = await bytes_of(reply)
    await reply.close()
    *_, last = [msgspec.json.decode(payload) for payload in sse.payloads(body)]
    assert body.startswith(first)
    assert (last["error"]["type"], last["error"]["code"]) == ("timeout_error", "total_timeout")
    assert sse.DONE not in body
    assert world.cache.entries == []
    assert await is_free(world)


async def test_a_stream_whose_reader_is_slow_leaves_the_engine_when_the_time_is_over() -> None:
    world = hurried()
    world.replicas.script.append(FakeAnswer(streamed(TEXT)))
    reply = await world.pipeline.generate(chat(stream=True), caller())
    assert not isinstance(reply.body, bytes)
    await anext(reply.body)
    await asyncio.sleep(0.05)  # the time that passes is what this is about
    last = await anext(reply.body)
    assert b'"total_timeout"' in last
    assert world.replicas.answers[0].closed
    await reply.close()
    assert await is_free(world)


async def test_a_stream_in_time_is_not_changed() -> None:
    world = make_world(ingress={"total_timeout_s": 5})
    world.replicas.script.append(FakeAnswer(streamed(TEXT)))
    reply = await world.pipeline.generate(chat(stream=True, stream_options={"include_usage": True}), caller())
    assert await bytes_of(reply) == b"".join(streamed(TEXT))


async def test_a_client_that_leaves_is_no_time_that_is_over() -> None:
    world = make_world(ingress={"total_timeout_s": 5})
    world.replicas.script.append(FakeAnswer([streamed(TEXT)[0], None]))
    reply = await world.pipeline.generate(chat(stream=True), caller())
    reading = asyncio.create_task(bytes_of(reply))
    await eventually(lambda: bool(world.replicas.answers))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])
    assert reading.cancelled()
    assert world.replicas.answers[0].closed


@pytest.mark.parametrize("stream", [False, True])
async def test_equal_requests_that_wait_for_one_that_takes_too_long_are_ended_too(stream: bool) -> None:
    world = make_world(ingress={"total_timeout_s": 0.05})
    world.replicas.script.extend(FakeAnswer([streamed(TEXT)[0] if stream else b"{", None]) for _ in range(3))

    async def ask() -> Any:
        try:
            reply = await world.pipeline.generate(chat(stream=stream), caller())
            body = await bytes_of(reply)
            await reply.close()
        except OverdueError as error:
            return error.code
        return msgspec.json.decode(list(sse.payloads(body))[-1])["error"]["code"]

    codes = await asyncio.wait_for(asyncio.gather(*(ask() for _ in range(3))), 5)
    assert codes == ["total_timeout"] * 3
    assert all(answer.closed for answer in world.replicas.answers)


async def test_a_first_token_that_does_not_come_is_a_504_and_frees_its_place() -> None:
    world = make_world(limits={"concurrency": 1})
    world.replicas.script.append(SilentReplicaError("silent"))
    with pytest.raises(SilentReplicaError) as silent:
        await world.pipeline.generate(chat(stream=True), caller())
    assert (to_api_error(silent.value).status, to_api_error(silent.value).code) == (504, "first_token_timeout")
    assert await is_free(world)


async def test_tokens_that_stop_end_a_stream_with_an_error_event() -> None:
    world = make_world(limits={"concurrency": 1})
    world.replicas.script.append(FakeAnswer([streamed(TEXT)[0], SilentReplicaError("silent", has_begun=True)]))
    reply = await world.pipeline.generate(chat(stream=True), caller())
    body = await bytes_of(reply)
    await reply.close()
    assert msgspec.json.decode(list(sse.payloads(body))[-1])["error"]["code"] == "between_tokens_timeout"
    assert await is_free(world)


async def test_an_engine_is_given_the_limits_that_are_configured() -> None:
    world = make_world(ingress={"first_token_timeout_s": 7, "between_tokens_timeout_s": 3, "total_timeout_s": 11})
    for stream in (True, False):
        await bytes_of(await world.pipeline.generate(chat(new_text(), stream=stream), caller()))
    patience = [call.patience for call in world.replicas.calls]
    assert [(each.first_s, each.between_s) for each in patience if each] == [(7, 3), (11, 3)]
