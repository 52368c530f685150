"""What is refused: status, OpenAI's error JSON naming the field, and never the value."""

import json
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.e2e.system import System

CANARY = "canary-7f3a9"


@dataclass(frozen=True)
class Case:
    name: str
    status: int
    param: str | None
    change: dict[str, Any] = field(default_factory=dict)
    body: bytes | None = None


CASES = [
    Case("not JSON", 400, None, body=b'{"model": ' + CANARY.encode()),
    Case("not an object", 400, None, body=json.dumps([CANARY]).encode()),
    Case("empty body", 400, None, body=b""),
    Case("invalid UTF-8", 400, None, body=b'{"model": "\xff\xfe' + CANARY.encode() + b'"}'),
    Case("nested too deep", 400, None, body=b'{"model":' + b"[" * 500 + b"]" * 500 + b"}"),
    Case("messages is text", 400, "messages", {"messages": CANARY}),
    Case("messages is missing", 400, "messages", {"messages": None}),
    Case("no messages", 400, "messages", {"messages": []}),
    Case("message is text", 400, "messages[0]", {"messages": [CANARY]}),
    Case("unknown role", 400, "messages[0].role", {"messages": [{"role": CANARY, "content": "x"}]}),
    Case("content is a number", 400, "messages[0].content", {"messages": [{"role": "user", "content": 7}]}),
    Case("unknown model", 404, "model", {"model": CANARY}),
    Case("model is a number", 400, "model", {"model": 5}),
    Case("max_tokens 0", 400, "max_tokens", {"max_tokens": 0}),
    Case("max_tokens negative", 400, "max_tokens", {"max_tokens": -1}),
    Case("max_tokens huge", 400, "max_tokens", {"max_tokens": 10**9}),
    Case("max_tokens beyond 64 bits", 400, "max_tokens", {"max_tokens": 10**30}),
    Case("max_tokens is text", 400, "max_tokens", {"max_tokens": CANARY}),
    Case("n 0", 400, "n", {"n": 0}),
    Case("n too large", 400, "n", {"n": 1000}),
    Case("temperature NaN", 400, "temperature", {"temperature": float("nan")}),
    Case("temperature infinite", 400, "temperature", {"temperature": float("inf")}),
    Case("temperature too high", 400, "temperature", {"temperature": 2.5}),
    Case("temperature is text", 400, "temperature", {"temperature": CANARY}),
    Case("top_p negative", 400, "top_p", {"top_p": -0.1}),
    Case("stream is text", 400, "stream", {"stream": CANARY}),
    Case("stream options without a stream", 400, "stream_options", {"stream_options": {"include_usage": True}}),
    Case("unknown cache mode", 400, "cache.mode", {"cache": {"mode": CANARY}}),
    Case("unknown cache option", 400, "cache.tll_s", {"cache": {"tll_s": 1}}),
    Case("cache option that is no name", 400, "cache", {"cache": {f"{CANARY}!": 1}}),
    Case("unknown vector store", 404, "retrieval.vector_store_ids[0]", {"retrieval": {"vector_store_ids": [CANARY]}}),
    Case("top_k 0", 400, "retrieval.top_k", {"retrieval": {"vector_store_ids": ["vs_1"], "top_k": 0}}),
    Case("internal field", 400, "kv_transfer_params", {"kv_transfer_params": {"x": CANARY}}),
    Case("response format of no kind", 400, None, {"response_format": {"type": CANARY}}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_refused(http: httpx.Client, chat: dict[str, Any], system: System, case: Case) -> None:
    if case.name == "response format of no kind" and system.is_simulated:
        pytest.skip("the simulated engine does not read it")
    body = json.dumps({**chat, **case.change}).encode() if case.body is None else case.body
    response = http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == case.status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    if case.param or case.body is not None:
        assert error["param"] == case.param
    assert CANARY not in response.text
    assert response.headers["x-request-id"]


def test_a_prompt_longer_than_the_context_says_both_lengths(http: httpx.Client, chat: dict[str, Any]) -> None:
    chat["messages"] = [{"role": "user", "content": "cache hit " * 20_000}]
    response = http.post("/v1/chat/completions", json=chat)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert error["param"] == "messages"
    limit, length = (int(word) for word in error["message"].replace(".", "").split() if word.isdigit())
    assert limit == 8192
    assert length > 20_000


def test_a_body_over_the_limit(http: httpx.Client, chat: dict[str, Any]) -> None:
    chat["messages"] = [{"role": "user", "content": "x" * (17 * 1024 * 1024)}]
    response = http.post("/v1/chat/completions", json=chat)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "body_too_large"


def test_an_unknown_route_and_method(http: httpx.Client) -> None:
    missing = http.get("/v1/nothing")
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "invalid_request_error")
    wrong = http.get("/v1/chat/completions")
    assert (wrong.status_code, wrong.json()["error"]["type"]) == (405, "invalid_request_error")


def test_a_tenant_name_that_is_none(http: httpx.Client, chat: dict[str, Any]) -> None:
    response = http.post("/v1/chat/completions", json=chat, headers={"x-mygo-tenant": f"{CANARY} or 1=1"})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "x-mygo-tenant"
    assert CANARY not in response.text


def test_embeddings(http: httpx.Client) -> None:
    def post(**body: Any) -> tuple[int, Any]:
        response = http.post("/v1/embeddings", json={"model": "all-MiniLM-L6-v2", "input": "x", **body})
        return response.status_code, response.json().get("error", {}).get("param")

    assert post(input=[]) == (400, "input")
    assert post(input="") == (400, "input")
    assert post(input=["a", ""]) == (400, "input")
    assert post(input=7) == (400, "input")
    assert post(model="nope") == (404, "model")
    assert post(encoding_format="hex") == (400, "encoding_format")
    assert post(dimensions=7) == (400, "dimensions")


def test_nothing_of_a_prompt_is_logged(http: httpx.Client, chat: dict[str, Any], system: System) -> None:
    """Of none of the requests in this file, refused or not: prompts belong to their writers."""
    chat["messages"] = [{"role": "user", "content": f"Is {CANARY} kept out of logs?"}]
    assert http.post("/v1/chat/completions", json=chat).status_code == 200
    assert CANARY not in system.session_logs()
    assert CANARY not in system.log.read_text(errors="replace")
