"""OpenAI's public API reference as cases over HTTP, against the application that the end-to-end tests have started."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import chat, client, http, tenant
from tests.e2e.system import System

__all__ = ["chat", "client", "http", "tenant"]

ENCODER = "all-MiniLM-L6-v2"

Post = Callable[..., httpx.Response]


@pytest.fixture
def ask(http: httpx.Client, chat: dict[str, Any]) -> Post:
    """Posts a chat of a few tokens, with these fields changed. A field that is None is left out."""

    def post(**fields: Any) -> httpx.Response:
        body = {key: value for key, value in {**chat, **fields}.items() if value is not None}
        return http.post("/v1/chat/completions", json=body)

    return post


@pytest.fixture
def complete(http: httpx.Client, system: System, chat: dict[str, Any]) -> Post:
    """The same for a text completion, whose prompt is no other test's."""

    def post(**fields: Any) -> httpx.Response:
        usual = {"model": system.model, "prompt": chat["messages"][0]["content"], "max_tokens": 8, "temperature": 0}
        return http.post("/v1/completions", json={key: value for key, value in {**usual, **fields}.items() if value is not None})

    return post


@pytest.fixture
def asked(chat: dict[str, Any]) -> str:
    """What no other test asks."""
    return str(chat["messages"][0]["content"])


@pytest.fixture
def respond(http: httpx.Client, system: System, asked: str) -> Post:
    """The same for a response."""

    def post(*, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        usual = {"model": system.model, "input": asked, "max_output_tokens": 16, "temperature": 0}
        body = {key: value for key, value in {**usual, **fields}.items() if value is not None}
        return http.post("/v1/responses", json=body, headers=headers)

    return post


@pytest.fixture
def say(http: httpx.Client, system: System, asked: str) -> Post:
    """The same for one of Anthropic's messages."""

    def post(*, path: str = "/v1/messages", headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        usual = {"model": system.model, "messages": [{"role": "user", "content": asked}], "max_tokens": 16, "temperature": 0}
        body = {key: value for key, value in {**usual, **fields}.items() if value is not None}
        return http.post(path, json=body, headers=headers)

    return post


@pytest.fixture
def embed(http: httpx.Client) -> Post:
    def post(**fields: Any) -> httpx.Response:
        return http.post("/v1/embeddings", json={"model": ENCODER, "input": "A cat sat on the mat.", **fields})

    return post


@pytest.fixture
def real(system: System) -> System:
    """For what the simulated engine, which has no model, does not do."""
    if system.is_simulated:
        pytest.skip("the simulated engine has no model")
    return system
