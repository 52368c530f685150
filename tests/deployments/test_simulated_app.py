"""The HTTP API of the simulated engine, over ASGI without a server."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from deployments.config import ModelConfig, SimulatedEngineConfig
from deployments.engines.simulated import SimulatedEngine

CONFIG = SimulatedEngineConfig(
    prefill_tokens_per_s=1e6, decode_step_s=1e-4, decode_step_per_request_s=0, max_model_len=300, default_max_tokens=24, max_running=8
)
USER = {"messages": [{"role": "user", "content": "Where does the cache tier keep its answers? " * 4}]}


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    engine = SimulatedEngine(CONFIG, ModelConfig(name="demo"), host="127.0.0.1")
    await engine.start()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(engine.app), base_url="http://engine") as client:
        yield client
    assert engine.load().ongoing == 0
    assert engine.load().kv_usage == 0
    await engine.stop()


async def chat(http: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    response = await http.post("/v1/chat/completions", json={**USER, **changes})
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def complete(http: httpx.AsyncClient, prompt: Any, **changes: Any) -> dict[str, Any]:
    response = await http.post("/v1/completions", json={"prompt": prompt, **changes})
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def events(http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    response = await http.post(path, json={**body, "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    *chunks, done, rest = response.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [msgspec.json.decode(chunk.removeprefix("data: ")) for chunk in chunks]


async def test_models(http: httpx.AsyncClient) -> None:
    (model,) = (await http.get("/v1/models")).json()["data"]
    assert model["created"] > 0
    assert {key: model[key] for key in ("id", "object", "owned_by", "max_model_len", "mygo")} == {
        "id": "demo",
        "object": "model",
        "owned_by": "mygo-simulated",
        "max_model_len": 300,
        "mygo": {"engine": "simulated"},
    }


async def test_chat(http: httpx.AsyncClient) -> None:
    response = await http.post("/v1/chat/completions", json={**USER, "model": "demo"}, headers={"x-request-id": "r-1"})
    body = response.json()
    (choice,) = body["choices"]
    assert (body["id"], body["object"], body["model"]) == ("chatcmpl-r-1", "chat.completion", "demo")
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"].startswith("Simulated answer ")
    assert choice["finish_reason"] == "stop"
    usage = body["usage"]
    assert 1 <= usage["completion_tokens"] <= 24
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0}


async def test_the_same_request_has_the_same_answer_and_finds_its_prefix(http: httpx.AsyncClient) -> None:
    first, second = await chat(http), await chat(http)
    assert first["choices"] == second["choices"]
    assert first["id"] != second["id"]
    cached = second["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached == (first["usage"]["prompt_tokens"] - 1) // 32 * 32 > 0
    assert (await chat(http, seed=5))["choices"] != first["choices"]


async def test_the_next_turn_finds_question_and_answer(http: httpx.AsyncClient) -> None:
    first = await chat(http, max_tokens=40, ignore_eos=True)
    messages = [*USER["messages"], first["choices"][0]["message"], {"role": "user", "content": "And then?"}]
    second = await chat(http, messages=messages)
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] == (first["usage"]["total_tokens"] - 1) // 32 * 32


async def test_a_salt_separates_caches_but_not_answers(http: httpx.AsyncClient) -> None:
    first, second = await chat(http, cache_salt="a"), await chat(http, cache_salt="b")
    assert first["choices"] == second["choices"]
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


async def test_reset_prefix_cache(http: httpx.AsyncClient) -> None:
    await chat(http)
    assert (await http.post("/reset_prefix_cache")).json() == {"success": True}
    assert (await chat(http))["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


@pytest.mark.parametrize("include_usage", [True, False])
async def test_a_chat_stream_says_the_same_as_the_whole_answer(http: httpx.AsyncClient, include_usage: bool) -> None:
    whole = await chat(http, n=2, max_tokens=9)
    chunks = await events(
        http, "/v1/chat/completions", {**USER, "n": 2, "max_tokens": 9, "stream_options": {"include_usage": include_usage}}
    )
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    if include_usage:
        *chunks, last = chunks
        assert last["choices"] == []
        assert last["usage"].items() >= {"prompt_tokens": whole["usage"]["prompt_tokens"], "completion_tokens": 18}.items()
        assert all(chunk["usage"] is None for chunk in chunks)
    assert [chunk["choices"][0]["delta"] for chunk in chunks[:2]] == [{"role": "assistant", "content": ""}] * 2
    assert all(("usage" in chunk) == include_usage for chunk in chunks)
    for choice in whole["choices"]:
        mine = [chunk["choices"][0] for chunk in chunks[2:] if chunk["choices"][0]["index"] == choice["index"]]
        assert "".join(chunk["delta"]["content"] for chunk in mine) == choice["message"]["content"]
        assert [chunk["finish_reason"] for chunk in mine] == [None] * 8 + ["length"]


async def test_a_completion_stream_says_the_same_as_the_whole_answer(http: httpx.AsyncClient) -> None:
    body = {"prompt": ["one", "two"], "max_tokens": 9, "stop": ["answer", "never"]}
    whole = await complete(http, **body)
    chunks = await events(http, "/v1/completions", body)
    assert {chunk["object"] for chunk in [whole, *chunks]} == {"text_completion"}
    for choice in whole["choices"]:
        mine = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == choice["index"]]
        assert "".join(chunk["text"] for chunk in mine) == choice["text"] == "Simulated "
        assert (mine[-1]["finish_reason"], mine[-1]["stop_reason"]) == ("stop", "answer")


async def test_completion_prompts_of_every_kind(http: httpx.AsyncClient) -> None:
    tokens = (await http.post("/tokenize", json={"prompt": "some text"})).json()["tokens"]
    text = (await complete(http, "some text"))["choices"][0]["text"]
    for prompt in (["some text"], tokens, [tokens]):
        assert (await complete(http, prompt))["choices"][0]["text"] == text
    both = await complete(http, ["some text", "another"], n=2)
    assert [choice["index"] for choice in both["choices"]] == [0, 1, 2, 3]
    assert both["choices"][0]["text"] == text
    assert len({choice["text"] for choice in both["choices"]}) == 4
    assert both["id"].startswith("cmpl-")


async def test_lengths(http: httpx.AsyncClient) -> None:
    for field in ("max_tokens", "max_completion_tokens"):
        body = await chat(http, **{field: 3})
        assert (body["usage"]["completion_tokens"], body["choices"][0]["finish_reason"]) == (3, "length")
    exact = await chat(http, max_tokens=100, ignore_eos=True)
    assert (exact["usage"]["completion_tokens"], exact["choices"][0]["finish_reason"]) == (100, "length")
    assert (await chat(http, max_tokens=100, min_tokens=50))["usage"]["completion_tokens"] == 50
    assert (await chat(http, max_tokens=100))["usage"]["completion_tokens"] <= 24
    full = await chat(http, max_tokens=299, ignore_eos=True)
    assert full["usage"]["total_tokens"] == 300


async def test_content_parts_tools_and_tool_calls_are_part_of_the_prompt(http: httpx.AsyncClient) -> None:
    text = str(USER["messages"][0]["content"])
    parts = [{"role": "user", "content": [{"type": "text", "text": text}]}]
    assert (await chat(http, messages=parts))["choices"] == (await chat(http))["choices"]
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}
    answers = [await chat(http), await chat(http, tools=[tool]), await chat(http, messages=[*parts, call])]
    assert len({answer["choices"][0]["message"]["content"] for answer in answers}) == 3


async def test_tokenize_and_back(http: httpx.AsyncClient) -> None:
    body = (await http.post("/tokenize", json={"prompt": "Übung macht den Meister\n", "return_token_strs": True})).json()
    assert (body["count"], body["max_model_len"]) == (len(body["tokens"]), 300)
    assert "".join(body["token_strs"]) == "Übung macht den Meister\n"
    assert (await http.post("/detokenize", json={"tokens": body["tokens"]})).json() == {"prompt": "Übung macht den Meister\n"}
    rendered = (await http.post("/tokenize", json=USER)).json()["count"]
    assert rendered == (await chat(http))["usage"]["prompt_tokens"]


async def test_health_and_load(http: httpx.AsyncClient) -> None:
    assert (await http.get("/health")).status_code == 200
    assert (await http.get("/load")).json() == {"server_load": 0}


VALUE = "secret-value"
BAD: list[tuple[Any, str | None]] = [
    ({"messages": []}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": [{"content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": VALUE, "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": [{"type": VALUE}]}]}, "messages[0].content[0].type"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": VALUE}, "max_tokens"),
    ({"max_tokens": 301}, "max_tokens"),
    ({"max_completion_tokens": 10**30}, "max_completion_tokens"),
    ({"max_tokens": 5, "min_tokens": 6}, "min_tokens"),
    ({"n": 0}, "n"),
    ({"n": 129}, "n"),
    ({"seed": 2**63}, "seed"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"stop": ""}, "stop"),
    ({"stop": [VALUE, ""]}, "stop[1]"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"cache_salt": ""}, "cache_salt"),
    ({"cache_salt": f"{VALUE}/x"}, "cache_salt"),
    ({"cache_salt": "x" * 129}, "cache_salt"),
    ({"kv_transfer_params": [VALUE]}, "kv_transfer_params"),
]


@pytest.mark.parametrize(("changes", "param"), BAD, ids=lambda value: str(value)[:40])
async def test_bad_fields(http: httpx.AsyncClient, changes: dict[str, Any], param: str) -> None:
    response = await http.post("/v1/chat/completions", json={**USER, **changes})
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["type"], error["param"]) == (400, 400, "BadRequestError", param)
    assert VALUE not in response.text


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff", b'{"messages":[{"role":"user","content":"\xff"}]}', b'{"temperature":NaN}', b'{"x":' + b"[" * 10**5]
)
async def test_bad_bodies(http: httpx.AsyncClient, body: bytes) -> None:
    response = await http.post("/v1/chat/completions", content=body)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "BadRequestError"


@pytest.mark.parametrize("prompt", ["", [], [""], [[]], ["x", 1], [[1], "x"], [-1], [2**40], None, {"a": 1}, [[1]] * 1025])
async def test_bad_prompts(http: httpx.AsyncClient, prompt: Any) -> None:
    response = await http.post("/v1/completions", json={"prompt": prompt})
    assert response.status_code == 400


async def test_too_long_a_prompt_names_both_lengths(http: httpx.AsyncClient) -> None:
    response = await http.post("/v1/completions", json={"prompt": [1] * 300})
    error = response.json()["error"]
    assert response.status_code == 400
    assert "maximum context length is 300 tokens" in error["message"]
    assert "contains 300 input tokens" in error["message"]


async def test_unknown_model_route_and_method(http: httpx.AsyncClient) -> None:
    response = await http.post("/v1/chat/completions", json={**USER, "model": "other"})
    assert (response.status_code, response.json()["error"]["type"]) == (404, "NotFoundError")
    assert (await http.get("/v1/nothing")).json()["error"]["code"] == 404
    wrong = await http.get("/v1/completions")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert wrong.json()["error"]["type"] == "Method Not Allowed"
