"""OpenAI's and Anthropic's own clients, before the whole application in this process, with a simulated engine behind it."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest

from deployments.config import ModelConfig, SimulatedEngineConfig
from deployments.engines.simulated import SimulatedEngine
from deployments.replica_client import Answer, Asking, Call
from deployments.replicas import Replica
from tests.serve_app.clients import app_of
from tests.serve_app.fakes import MODEL, FakeAnswer, World, make_world

OFF = {"cache-control": "no-store"}
FORMS = [(OFF, "bypass"), ({}, "miss"), ({}, "exact")]
"""Headers, one after the other, and where the answer comes from then."""


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = make_world()
    config = SimulatedEngineConfig(prefill_tokens_per_s=1e6, decode_step_s=1e-4, decode_step_per_request_s=0, default_max_tokens=16)
    engine = SimulatedEngine(config, ModelConfig(name=MODEL), host="127.0.0.1")
    await engine.start()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(engine.app), base_url="http://engine") as http:

        async def send(call: Call, ranked: Sequence[Replica], asking: Asking = lambda replica: {}) -> Answer:
            answer = await http.request(call.method, call.path, content=call.body, headers=dict(call.headers))
            return FakeAnswer([answer.content], answer.status_code)

        world.replicas.send = send  # type: ignore[method-assign]
        yield world
    await world.keeper.stop()
    await engine.stop()


@pytest.fixture
async def gpt(world: World) -> AsyncIterator[openai.AsyncOpenAI]:
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app_of(world)))
    async with openai.AsyncOpenAI(base_url="http://test/v1", api_key="unused", max_retries=0, http_client=http) as client:
        yield client


@pytest.fixture
async def claude(world: World) -> AsyncIterator[anthropic.AsyncAnthropic]:
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app_of(world)))
    async with anthropic.AsyncAnthropic(base_url="http://test", api_key="unused", max_retries=0, http_client=http) as client:
        yield client


async def test_responses(gpt: openai.AsyncOpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "input": "What is a cache?", "metadata": {"a": "1"}}
    texts = set()
    for headers, outcome in FORMS:
        raw = await gpt.responses.with_raw_response.create(**asked, extra_headers=headers)
        response = raw.parse()
        assert (raw.headers["x-mygo-cache"], response.status, response.metadata) == (outcome, "completed", {"a": "1"})
        texts.add(response.output_text)
        assert response.usage
    for headers, outcome in (FORMS[0], FORMS[2]):
        async with gpt.responses.stream(**asked, extra_headers=headers) as stream:
            assert stream._response.headers["x-mygo-cache"] == outcome
            said = [event.delta async for event in stream if event.type == "response.output_text.delta"]
            final = await stream.get_final_response()
        assert "".join(said) == final.output_text
        texts.add(final.output_text)
        assert final.usage == response.usage
    assert len(texts) == 1


async def test_messages(claude: anthropic.AsyncAnthropic) -> None:
    asked: dict[str, Any] = {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": "What is a cache?"}]}
    messages = []
    for headers, outcome in FORMS:
        raw = await claude.messages.with_raw_response.create(**asked, extra_headers=headers)
        messages.append(await raw.parse())
        assert raw.headers["x-mygo-cache"] == outcome
    for headers, outcome in (FORMS[0], FORMS[2]):
        async with claude.messages.stream(**asked, extra_headers=headers) as stream:
            assert stream.response.headers["x-mygo-cache"] == outcome
            said = "".join([text async for text in stream.text_stream])
            messages.append(await stream.get_final_message())
        assert messages[-1].content[0].type == "text"
        assert messages[-1].content[0].text == said
    contents = [message.model_dump(exclude={"id", "usage"}) for message in messages]
    assert all(content == contents[0] for content in contents)
    assert len({message.usage.output_tokens for message in messages}) == 1
    counted = await claude.messages.count_tokens(model=MODEL, messages=asked["messages"])
    usage = messages[0].usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


async def test_errors_are_the_clients_own_types(gpt: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await gpt.responses.create(model=MODEL, input="x", previous_response_id="resp_1")
    assert refused.value.param == "previous_response_id"
    with pytest.raises(openai.NotFoundError):
        await gpt.responses.retrieve("resp_1")
    with pytest.raises(anthropic.NotFoundError):
        await claude.messages.create(model="claude", max_tokens=1, messages=[{"role": "user", "content": "x"}])
