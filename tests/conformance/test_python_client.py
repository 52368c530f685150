"""OpenAI's official Python client: what it can do beyond a request and its answer (see also tests/e2e/test_openai_client.py)."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any, Literal

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from tests.conformance.conftest import ENCODER
from tests.e2e.system import System, poll


class Colour(BaseModel):
    colour: Literal["red", "green", "blue"]
    bright: bool


class GetWeather(BaseModel):
    """The weather in a city."""

    city: Literal["Paris", "Rome"]


LONG: dict[str, Any] = {"max_tokens": 4000, "extra_body": {"ignore_eos": True, "cache": {"mode": "off"}}}


@pytest.fixture
async def async_client(system: System, tenant: dict[str, str]) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{system.url}/v1", api_key="unused", max_retries=0, timeout=60, default_headers=tenant
    ) as client:
        yield client


async def test_async_chat(async_client: openai.AsyncOpenAI, chat: dict[str, Any]) -> None:
    answer = await async_client.chat.completions.create(**chat)
    assert isinstance(answer, ChatCompletion)
    assert answer.choices[0].message.content


async def test_async_chats_at_once(async_client: openai.AsyncOpenAI, chat: dict[str, Any]) -> None:
    answers = await asyncio.gather(*(async_client.chat.completions.create(**{**chat, "seed": seed}) for seed in range(8)))
    assert len({answer.id for answer in answers}) == 8


async def test_async_stream(async_client: openai.AsyncOpenAI, chat: dict[str, Any]) -> None:
    text = ""
    async for chunk in await async_client.chat.completions.create(**chat, stream=True):
        text += chunk.choices[0].delta.content or ""
    assert text == (await async_client.chat.completions.create(**chat)).choices[0].message.content


async def test_async_embeddings_and_models(async_client: openai.AsyncOpenAI, system: System) -> None:
    vectors = await async_client.embeddings.create(model=ENCODER, input=["a", "b"])
    assert len(vectors.data) == 2
    assert [model.id async for model in async_client.models.list()] == [system.model, ENCODER]


async def test_an_async_call_that_is_cancelled_frees_the_engine(
    async_client: openai.AsyncOpenAI, chat: dict[str, Any], system: System
) -> None:
    call = asyncio.ensure_future(async_client.chat.completions.create(**{**chat, **LONG}))
    await asyncio.to_thread(poll, "it runs", 20, lambda: system.ongoing() == 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.to_thread(poll, "no running requests", 10, lambda: system.ongoing() == 0)


def test_stream_helper_gathers_the_answer(client: openai.OpenAI, chat: dict[str, Any]) -> None:
    with client.chat.completions.stream(**{**chat, "max_tokens": 500}, stream_options={"include_usage": True}) as stream:
        seen = [event.type for event in stream]
        final = stream.get_final_completion()
    assert seen[0] == "chunk"
    assert {"content.delta", "content.done"} <= set(seen)
    assert final.choices[0].message.content == client.chat.completions.create(**{**chat, "max_tokens": 500}).choices[0].message.content
    assert final.usage
    assert final.usage.completion_tokens > 0


async def test_async_stream_helper(async_client: openai.AsyncOpenAI, chat: dict[str, Any]) -> None:
    async with async_client.chat.completions.stream(**{**chat, "max_tokens": 500}) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.content


def test_stream_helper_gives_the_snapshot_of_each_delta(client: openai.OpenAI, chat: dict[str, Any]) -> None:
    text = ""
    with client.chat.completions.stream(**{**chat, "max_tokens": 500}) as stream:
        for event in stream:
            if event.type == "content.delta":
                text += event.delta
                assert event.snapshot == text
    assert text


def test_stream_helper_with_logprobs(client: openai.OpenAI, chat: dict[str, Any], real: System) -> None:
    with client.chat.completions.stream(**{**chat, "max_tokens": 500}, logprobs=True, top_logprobs=1) as stream:
        seen = {event.type for event in stream}
        logprobs = stream.get_final_completion().choices[0].logprobs
    assert {"logprobs.content.delta", "logprobs.content.done"} <= seen
    assert logprobs
    assert logprobs.content


def test_parse_gives_an_object_of_the_callers_type(client: openai.OpenAI, chat: dict[str, Any], real: System) -> None:
    answer = client.chat.completions.parse(**{**chat, "max_tokens": 200}, response_format=Colour)
    assert isinstance(answer.choices[0].message.parsed, Colour)


def test_parse_of_an_answer_that_is_cut_off(client: openai.OpenAI, chat: dict[str, Any], real: System) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(**{**chat, "max_tokens": 2}, response_format=Colour)


def test_parse_of_a_stream(client: openai.OpenAI, chat: dict[str, Any], real: System) -> None:
    with client.chat.completions.stream(**{**chat, "max_tokens": 200}, response_format=Colour) as stream:
        parsed = stream.get_final_completion().choices[0].message.parsed
    assert isinstance(parsed, Colour)


def test_parse_of_a_tools_arguments(client: openai.OpenAI, chat: dict[str, Any], real: System) -> None:
    tool = openai.pydantic_function_tool(GetWeather)
    answer = client.chat.completions.parse(**{**chat, "max_tokens": 200}, tools=[tool], tool_choice="required", parallel_tool_calls=False)
    calls = answer.choices[0].message.tool_calls
    assert calls
    assert isinstance(calls[0].function.parsed_arguments, GetWeather)


def test_stream_helper_with_a_tool(client: openai.OpenAI, chat: dict[str, Any], real: System) -> None:
    tool = openai.pydantic_function_tool(GetWeather)
    choice: Any = {"type": "function", "function": {"name": "GetWeather"}}
    with client.chat.completions.stream(**{**chat, "max_tokens": 200}, tools=[tool], tool_choice=choice) as stream:
        seen = [event.type for event in stream]
        calls = stream.get_final_completion().choices[0].message.tool_calls
    assert {"tool_calls.function.arguments.delta", "tool_calls.function.arguments.done"} <= set(seen)
    assert calls
    assert set(json.loads(calls[0].function.arguments)) == {"city"}


def test_raw_response_has_headers_and_the_answer(client: openai.OpenAI, chat: dict[str, Any]) -> None:
    raw = client.chat.completions.with_raw_response.create(**chat, extra_headers={"x-request-id": "raw-1"})
    assert raw.headers["x-request-id"] == raw.request_id == "raw-1"
    answer = raw.parse()
    assert isinstance(answer, ChatCompletion)
    assert answer._request_id == "raw-1"


def test_streaming_response_gives_lines(client: openai.OpenAI, chat: dict[str, Any]) -> None:
    with client.chat.completions.with_streaming_response.create(**chat, stream=True) as response:
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"


def test_a_timeout_is_the_clients_own_error_and_frees_the_engine(client: openai.OpenAI, chat: dict[str, Any], system: System) -> None:
    began = time.monotonic()
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=1.0).chat.completions.create(**{**chat, **LONG})
    assert time.monotonic() - began < 5
    poll("no running requests", 10, lambda: system.ongoing() == 0)


def test_a_stream_that_is_closed_frees_the_engine(client: openai.OpenAI, chat: dict[str, Any], system: System) -> None:
    stream: openai.Stream[ChatCompletionChunk] = client.chat.completions.create(**{**chat, **LONG}, stream=True)
    next(iter(stream))
    poll("it runs", 10, lambda: system.ongoing() == 1)
    stream.close()
    poll("no running requests", 10, lambda: system.ongoing() == 0)


@pytest.mark.parametrize(
    ("fields", "error", "param"),
    [
        ({"temperature": 9}, openai.BadRequestError, "temperature"),
        ({"model": "gpt-none"}, openai.NotFoundError, "model"),
        ({"messages": []}, openai.BadRequestError, "messages"),
    ],
    ids=["bad value", "unknown model", "no messages"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_errors_say_what_is_wrong(
    client: openai.OpenAI, chat: dict[str, Any], fields: dict[str, Any], error: type[openai.APIStatusError], param: str, stream: bool
) -> None:
    with pytest.raises(error) as raised:
        client.chat.completions.create(**{**chat, **fields}, stream=stream)
    assert raised.value.param == param
    assert raised.value.request_id
    assert raised.value.type == "invalid_request_error"


def test_embeddings_are_floats_though_the_client_asks_for_base64(client: openai.OpenAI) -> None:
    plain, asked = (
        client.embeddings.create(model=ENCODER, input="a"),
        client.embeddings.create(model=ENCODER, input="a", encoding_format="float"),
    )
    assert plain.data[0].embedding == pytest.approx(asked.data[0].embedding, abs=1e-6)


def test_files_are_listed_over_all_pages(client: openai.OpenAI) -> None:
    made = {client.files.create(file=(f"{number}.txt", b"text"), purpose="assistants").id for number in range(5)}
    assert {file.id for file in client.files.list(limit=2)} == made
    assert client.files.wait_for_processing(next(iter(made))).status == "processed"


def test_vector_store_files_are_read_in_a_batch(client: openai.OpenAI) -> None:
    store = client.vector_stores.create(name="notes")
    batch = client.vector_stores.file_batches.upload_and_poll(
        store.id, files=[("a.txt", b"Tea is green."), ("b.txt", b"The moon is far.")], poll_interval_ms=200
    )
    assert (batch.status, batch.file_counts.completed) == ("completed", 2)
    assert {file.status for file in client.vector_stores.files.list(store.id)} == {"completed"}
    assert client.vector_stores.search(store.id, query="How far is the moon?").data[0].filename == "b.txt"
    assert client.vector_stores.delete(store.id).deleted


def test_completions_stream(client: openai.OpenAI, system: System) -> None:
    chunks = list(client.completions.create(model=system.model, prompt=["A cache", "A key"], max_tokens=4, stream=True))
    assert {choice.index for chunk in chunks for choice in chunk.choices} == {0, 1}
