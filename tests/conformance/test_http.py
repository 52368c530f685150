"""What is not of one route: errors, methods, headers, connections, clients that leave."""

import contextlib
import json
import socket
from typing import Any

import httpx
import pytest

from tests.conformance.conftest import ENCODER, Post
from tests.conformance.shapes import chat_answer, error_of, events
from tests.e2e.system import System, poll

POSTS = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/vector_stores"]


@pytest.mark.parametrize(
    "path", ["/v1", "/v1/", "/v1/nothing", "/v2/models", "/v1/chat", "/v1/chat/completions/none", "/v1/images/generations"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_route(http: httpx.Client, method: str, path: str) -> None:
    error = error_of(http.request(method, path), 404, code="unknown_url")
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", {"POST"}),
        ("PUT", "/v1/chat/completions", {"POST"}),
        ("DELETE", "/v1/completions", {"POST"}),
        ("GET", "/v1/embeddings", {"POST"}),
        ("POST", "/v1/models", {"GET", "HEAD"}),
        ("PATCH", "/v1/files", {"GET", "HEAD", "POST"}),
        ("PUT", "/v1/vector_stores", {"GET", "HEAD", "POST"}),
        ("OPTIONS", "/v1/chat/completions", {"POST"}),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(http: httpx.Client, method: str, path: str, allowed: set[str]) -> None:
    response = http.request(method, path)
    assert error_of(response, 405)["type"] == "invalid_request_error"
    assert {each.strip() for each in response.headers["allow"].split(",")} == allowed


def test_head_is_get_without_a_body(http: httpx.Client) -> None:
    head, got = http.head("/v1/models"), http.get("/v1/models")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == got.headers["content-type"]


BODIES: list[tuple[str, bytes]] = [
    ("empty", b""),
    ("cut off", b'{"model": "m", '),
    ("a list", b"[]"),
    ("a number", b"7"),
    ("null", b"null"),
    ("text", b"model=m&prompt=x"),
    ("two objects", b"{}{}"),
    ("UTF-16", '{"model": "m"}'.encode("utf-16")),
    ("bytes that are no UTF-8", b'{"model": "\xff"}'),
    ("a trailing comma", b'{"model": "m",}'),
]


@pytest.mark.parametrize("path", POSTS[:3])
@pytest.mark.parametrize("body", [body for _, body in BODIES], ids=[name for name, _ in BODIES])
def test_a_body_that_is_no_object(http: httpx.Client, path: str, body: bytes) -> None:
    response = http.post(path, content=body, headers={"content-type": "application/json"})
    assert error_of(response, 400, code="invalid_json")["type"] == "invalid_request_error"


def test_a_form_is_no_body(http: httpx.Client) -> None:
    error_of(http.post("/v1/chat/completions", data={"model": "m"}), 400)
    error_of(http.post("/v1/chat/completions", files={"file": ("a", b"a")}), 400)


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "APPLICATION/JSON", "text/plain", ""])
def test_json_is_read_whatever_its_type_is_said_to_be(http: httpx.Client, chat: dict[str, Any], kind: str) -> None:
    chat_answer(http.post("/v1/chat/completions", content=json.dumps(chat), headers={"content-type": kind} if kind else {}))


def test_a_body_in_chunks(http: httpx.Client, chat: dict[str, Any]) -> None:
    raw = json.dumps(chat).encode()
    chat_answer(http.post("/v1/chat/completions", content=iter([raw[:20], raw[20:]]), headers={"content-type": "application/json"}))


@pytest.mark.parametrize("path", POSTS)
def test_a_body_that_is_too_long(http: httpx.Client, path: str) -> None:
    body = b'{"model": "' + b"x" * (17 * 1024 * 1024) + b'"}'
    error_of(http.post(path, content=body), 413, code="body_too_large")


def test_the_prompt_is_too_long(ask: Post, complete: Post) -> None:
    words = "cache " * 12_000
    error_of(ask(messages=[{"role": "user", "content": words}]), 400, "messages", "context_length_exceeded")
    error_of(complete(prompt=words), 400, "prompt", "context_length_exceeded")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models", "/v1/files", "/v1/nothing"])
def test_every_answer_has_a_request_id(http: httpx.Client, path: str) -> None:
    ids = {http.get(path).headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2
    assert http.get(path, headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"


def test_an_answers_headers(ask: Post, embed: Post) -> None:
    for response in (ask(), embed()):
        assert response.headers["content-type"] == "application/json"
        assert int(response.headers["content-length"]) == len(response.content)
        assert int(response.headers["openai-processing-ms"]) >= 0


def test_a_streams_headers(ask: Post) -> None:
    response = ask(stream=True)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert "content-length" not in response.headers


@pytest.mark.parametrize("header", ["OpenAI-Organization", "OpenAI-Project", "OpenAI-Beta", "Idempotency-Key", "X-Stainless-Lang"])
def test_headers_of_openais_clients_are_taken(http: httpx.Client, chat: dict[str, Any], header: str) -> None:
    chat_answer(http.post("/v1/chat/completions", json=chat, headers={header: "assistants=v2"}))


def test_a_key_is_taken_where_there_are_none(http: httpx.Client, chat: dict[str, Any]) -> None:
    chat_answer(http.post("/v1/chat/completions", json=chat, headers={"authorization": "Bearer sk-anything"}))


def test_one_connection_serves_many_requests(system: System, tenant: dict[str, str]) -> None:
    """Errors among them: each reply says how long it is."""
    asked = b"".join(
        f"{method} {path} HTTP/1.1\r\nhost: x\r\n{'connection: close' if is_last else 'accept: */*'}\r\ncontent-length: 0\r\n\r\n".encode()
        for method, path, is_last in [
            ("GET", "/v1/models", False),
            ("GET", "/v1/nothing", False),
            ("POST", "/v1/chat/completions", False),
            ("HEAD", "/v1/models", False),
            ("PUT", "/v1/files", False),
            ("GET", f"/v1/models/{ENCODER}", True),
        ]
    )
    with socket.create_connection(("127.0.0.1", system.port), 20) as connection:
        connection.sendall(asked)
        received = b""
        while piece := connection.recv(65536):
            received += piece
    statuses = [int(each[:3]) for each in received.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [200, 404, 400, 200, 405, 200]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_the_engine_is_free_when_its_client_has_left(system: System, tenant: dict[str, str], chat: dict[str, Any], stream: bool) -> None:
    body = {**chat, "max_tokens": 4000, "ignore_eos": True, "stream": stream}
    for number in range(8):  # a proxy between may see some of them leave, and not others
        expected = contextlib.nullcontext() if stream else pytest.raises(httpx.ReadTimeout)
        asked = {**body, "seed": number}
        with expected, httpx.stream("POST", f"{system.url}/v1/chat/completions", json=asked, headers=tenant, timeout=1) as response:
            next(response.iter_bytes())
    poll("no running requests", 10, lambda: system.ongoing() == 0)


def test_a_stream_comes_as_it_is_made(system: System, tenant: dict[str, str], chat: dict[str, Any]) -> None:
    body = {**chat, "max_tokens": 200, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{system.url}/v1/chat/completions", json=body, headers=tenant, timeout=60) as response:
        pieces = list(response.iter_raw())
    assert len(pieces) > 10
    assert len(events(b"".join(pieces).decode())) > 50


def test_numbers_beyond_all_bounds(http: httpx.Client, chat: dict[str, Any]) -> None:
    for number in ("1e999", "-1e999", "1" * 400, "NaN"):
        raw = json.dumps(chat).replace('"temperature": 0', f'"temperature": {number}')
        error_of(http.post("/v1/chat/completions", content=raw), 400)
