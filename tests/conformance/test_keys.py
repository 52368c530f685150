"""Where keys are needed: 401 in OpenAI's shape, limits and their headers, and the official client's retries."""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest

from tests.conformance.shapes import chat_answer, error_of
from tests.e2e.system import ROOT, System, report

ROUTES = [
    ("GET", "/v1/models"),
    ("GET", "/v1/models/mygo-sim"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("GET", "/v1/files"),
    ("POST", "/v1/files"),
    ("GET", "/v1/vector_stores"),
]
A_MINUTE = 20
"""Requests that a limited key may make. The next one is let in 3 s after the last of these."""
CHAT: dict[str, Any] = {"model": "mygo-sim", "messages": [{"role": "user", "content": "What is a key?"}], "max_tokens": 4}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    report("starting scripts/serve with config.sim.yaml and keys")
    system = System(ROOT / "config.sim.yaml", tmp_path_factory.mktemp("keys"), {"auth": {"mode": "keys"}})
    try:
        system.wait_ready()
        yield system
    finally:
        system.stop()


@pytest.fixture
def limited(system: System) -> dict[str, str]:
    """The headers of a key that has just used up what it may have in a minute."""
    headers = system.key(f"test-{secrets.token_hex(4)}", "--requests-per-minute", str(A_MINUTE))
    for _ in range(A_MINUTE):
        chat_answer(httpx.post(f"{system.url}/v1/chat/completions", json=CHAT, headers=headers))
    return headers


@contextmanager
def client_of(system: System, headers: dict[str, str], retries: int, statuses: list[int]) -> Iterator[openai.OpenAI]:
    """`statuses` gets those of all answers that the client sees."""
    hooks = {"response": [lambda response: statuses.append(response.status_code)]}
    with openai.OpenAI(
        base_url=f"{system.url}/v1",
        api_key=headers["authorization"].removeprefix("Bearer "),
        max_retries=retries,
        http_client=openai.DefaultHttpxClient(event_hooks=hooks),
    ) as client:
        yield client


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_no_key(system: System, method: str, path: str) -> None:
    error = error_of(httpx.request(method, f"{system.url}{path}", json={} if method == "POST" else None), 401, code="missing_api_key")
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("value", ["Bearer sk-wrong", "Bearer", "Basic dTpw", "sk-wrong", "Bearer mygo_AAAAAAAA_wrong"])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions"])
def test_a_wrong_key(system: System, value: str, path: str) -> None:
    method = "GET" if path == "/v1/models" else "POST"
    response = httpx.request(method, f"{system.url}{path}", headers={"authorization": value}, json=CHAT if method == "POST" else None)
    error = error_of(response, 401, code="invalid_api_key")
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert value == "Bearer" or value.split()[-1] not in error["message"]


def test_a_good_key(system: System) -> None:
    headers = system.key("acme")
    chat_answer(httpx.post(f"{system.url}/v1/chat/completions", json=CHAT, headers=headers))


def test_the_official_client_without_a_good_key(system: System) -> None:
    statuses: list[int] = []
    with client_of(system, {"authorization": "Bearer sk-wrong"}, 2, statuses) as client, pytest.raises(openai.AuthenticationError) as error:
        client.models.list()
    assert error.value.code == "invalid_api_key"
    assert statuses == [401], "it is not tried again"


def test_answers_say_what_is_left(system: System) -> None:
    headers = system.key("counted", "--requests-per-minute", "100", "--tokens-per-minute", "10000")
    answers = [
        httpx.post(f"{system.url}/v1/chat/completions", json={**CHAT, "seed": seed, "cache": {"mode": "off"}}, headers=headers)
        for seed in range(2)
    ]
    for answer in answers:
        chat_answer(answer)
        assert answer.headers["x-ratelimit-limit-requests"] == "100"
        assert answer.headers["x-ratelimit-limit-tokens"] == "10000"
        assert answer.headers["x-ratelimit-reset-requests"]
        assert answer.headers["x-ratelimit-reset-tokens"]
    left = [int(answer.headers["x-ratelimit-remaining-requests"]) for answer in answers]
    assert left[1] < left[0] < 100


def test_a_limit_is_429_with_retry_after(system: System, limited: dict[str, str]) -> None:
    response = httpx.post(f"{system.url}/v1/chat/completions", json=CHAT, headers=limited)
    error = error_of(response, 429, code="rate_limit_exceeded")
    assert error["type"] == "requests"
    assert 1 <= int(response.headers["retry-after"]) <= 60 / A_MINUTE + 1
    assert response.headers["x-ratelimit-remaining-requests"] == "0"


def test_the_official_client_waits_for_retry_after_and_tries_again(system: System, limited: dict[str, str]) -> None:
    statuses: list[int] = []
    began = time.monotonic()
    with client_of(system, limited, 2, statuses) as client:
        assert client.chat.completions.create(**CHAT).choices
    assert statuses[0] == 429
    assert statuses[-1] == 200
    assert time.monotonic() - began >= 1


def test_the_official_client_without_retries_raises(system: System, limited: dict[str, str]) -> None:
    statuses: list[int] = []
    with client_of(system, limited, 0, statuses) as client, pytest.raises(openai.RateLimitError) as error:
        client.chat.completions.create(**CHAT)
    assert error.value.code == "rate_limit_exceeded"
    assert statuses == [429]


def test_a_second_request_at_once_is_429_where_one_is_allowed(system: System) -> None:
    headers = system.key("busy", "--concurrency", "1")
    statuses: list[int] = []
    slow = {**CHAT, "max_tokens": 8000, "ignore_eos": True, "cache": {"mode": "off"}, "stream": True}
    with httpx.stream("POST", f"{system.url}/v1/chat/completions", json=slow, headers=headers, timeout=30) as running:
        assert running.status_code == 200
        pieces = running.iter_bytes()  # the answer is closed with it
        next(pieces)
        with client_of(system, headers, 1, statuses) as client, pytest.raises(openai.RateLimitError):
            client.chat.completions.create(**CHAT)
    assert statuses == [429, 429]


def test_a_model_that_the_key_may_not_ask_for_does_not_exist(system: System) -> None:
    headers = system.key("other", "--model", "all-MiniLM-L6-v2")
    error_of(httpx.post(f"{system.url}/v1/chat/completions", json=CHAT, headers=headers), 404, "model", "model_not_found")
    assert [each["id"] for each in httpx.get(f"{system.url}/v1/models", headers=headers).json()["data"]] == ["all-MiniLM-L6-v2"]
    error_of(httpx.get(f"{system.url}/v1/models/mygo-sim", headers=headers), 404, "model", "model_not_found")
