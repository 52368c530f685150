"""`/v1/responses` and `/v1/messages` of the simulated engine, over ASGI without a server."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from deployments.config import ModelConfig, SimulatedEngineConfig
from deployments.engines.simulated import SimulatedEngine
from deployments.engines.simulated.tokenizer import decode

CONFIG = SimulatedEngineConfig(
    prefill_tokens_per_s=1e6, decode_step_s=1e-4, decode_step_per_request_s=0, max_model_len=300, default_max_tokens=24, max_running=8
)
TEXT = "Where does the cache tier keep its answers? " * 4
CHAT = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": TEXT}]}
RESPONSE = {"instructions": "Be brief.", "input": TEXT}
MESSAGE = {"system": "Be brief.", "messages": [{"role": "user", "content": TEXT}], "max_tokens": 100}


@pytest.fixture
async def engine() -> AsyncIterator[SimulatedEngine]:
    engine = SimulatedEngine(CONFIG, ModelConfig(name="demo"), host="127.0.0.1")
    await engine.start()
    yield engine
    assert engine.load().ongoing == 0
    await engine.stop()


@pytest.fixture
async def http(engine: SimulatedEngine) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(engine.app), base_url="http://engine") as client:
        yield client


async def post(http: httpx.AsyncClient, path: str, body: dict[str, Any], **changes: Any) -> Any:
    response = await http.post(path, json={**body, **changes})
    assert response.status_code == 200, response.text
    return response.json()


async def events(http: httpx.AsyncClient, path: str, body: dict[str, Any], **changes: Any) -> list[dict[str, Any]]:
    response = await http.post(path, json={**body, **changes, "stream": True})
    return [msgspec.json.decode(each.partition("\ndata: ")[2]) for each in response.text.split("\n\n")[:-1]]


async def test_all_kinds_of_requests_have_one_prompt_and_one_answer(engine: SimulatedEngine, http: httpx.AsyncClient) -> None:
    chat = await post(http, "/v1/chat/completions", CHAT, cache_salt="a")
    response = await post(http, "/v1/responses", RESPONSE, cache_salt="a")
    message = await post(http, "/v1/messages", MESSAGE, cache_salt="b")
    assert chat["choices"][0]["message"]["content"] == response["output"][0]["content"][0]["text"] == message["content"][0]["text"]
    prompt = chat["usage"]["prompt_tokens"]
    assert (response["usage"]["input_tokens"], response["usage"]["input_tokens_details"]["cached_tokens"]) == (prompt, 32)
    assert (message["usage"]["input_tokens"], message["usage"]["cache_read_input_tokens"]) == (prompt, 0)
    assert await post(http, "/v1/messages/count_tokens", {**MESSAGE, "max_tokens": None}) == {"input_tokens": prompt}
    paths = {"/v1/chat/completions": CHAT, "/v1/responses": RESPONSE, "/v1/messages": MESSAGE}
    rendered = [await engine.render(path, msgspec.json.encode(body)) for path, body in paths.items()]
    assert rendered[0] == rendered[1] == rendered[2]
    assert len(rendered[0] or ()) == prompt


async def test_streams_say_what_whole_answers_do(http: httpx.AsyncClient) -> None:
    whole = await post(http, "/v1/responses", RESPONSE)
    *parts, last = await events(http, "/v1/responses", RESPONSE)
    text = "".join(part["delta"] for part in parts if part["type"] == "response.output_text.delta")
    assert text == whole["output"][0]["content"][0]["text"] == last["response"]["output"][0]["content"][0]["text"]
    assert last["response"]["usage"]["output_tokens"] == whole["usage"]["output_tokens"]
    whole = await post(http, "/v1/messages", MESSAGE)
    parts = await events(http, "/v1/messages", MESSAGE)
    text = "".join(part["delta"]["text"] for part in parts if part["type"] == "content_block_delta")
    assert text == whole["content"][0]["text"]
    assert (parts[-2]["delta"]["stop_reason"], parts[-2]["usage"]) == (whole["stop_reason"], whole["usage"])


async def test_answers_end_as_they_were_asked_to(http: httpx.AsyncClient) -> None:
    assert (await post(http, "/v1/messages", MESSAGE, max_tokens=2))["stop_reason"] == "max_tokens"
    stopped = await post(http, "/v1/messages", MESSAGE, stop_sequences=["answer"])
    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", "answer")
    cut = await post(http, "/v1/responses", RESPONSE, max_output_tokens=2)
    assert (cut["status"], cut["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


async def test_all_that_is_said_is_in_the_prompt(engine: SimulatedEngine) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "one"}
    items = [{"role": "user", "content": [{"type": "input_text", "text": "zero"}]}, call, {"type": "function_call_output", "output": "two"}]
    rendered = await engine.render("/v1/responses", msgspec.json.encode({"input": items, "tools": [{"name": "three"}]}))
    assert decode(rendered or ()).split("|>")[1].startswith('[{"name":"three"}]')
    assert decode(rendered or ()).count("<|end|>") == 4
    assert "zero<|end|><|assistant|>one<|end|><|tool|>two" in decode(rendered or ())
    turns = [
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "two"}]}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {"a": "one"}}]},
    ]
    rendered = await engine.render("/v1/messages", msgspec.json.encode({"messages": turns, "max_tokens": 1}))
    assert decode(rendered or ()).startswith('<|user|>two<|end|><|assistant|>{"a":"one"}<|end|>')
