"""Counting a response's prompt, over HTTP with fakes behind it."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from tests.serve_app.clients import client_of, error_of
from tests.serve_app.fakes import MODEL, World, make_world

COUNT = "/v1/responses/input_tokens"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = make_world(limits={"requests_per_minute": 5}, llm={"model": {"name": MODEL, "aliases": ["alias"]}})
    yield world
    await world.keeper.stop()


@pytest.fixture
async def http(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(world) as http:
        yield http


@pytest.fixture
def rendered(world: World, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Bodies that the engine was asked to make prompts of: one token for each character, but for what is too long."""
    bodies: list[dict[str, Any]] = []

    async def tokens(call: Any) -> Any:
        bodies.append({"path": call.path, **msgspec.json.decode(call.body)})
        return np.arange(len(bodies[-1]["input"]), dtype=np.uint32) if len(bodies[-1]["input"]) < 100 else None

    monkeypatch.setattr(world.pipeline.routing, "tokens", tokens)
    return bodies


async def test_it_is_what_the_engine_would_read(http: httpx.AsyncClient, rendered: list[dict[str, Any]]) -> None:
    for number, model in enumerate((MODEL, "alias", None)):
        answer = await http.post(COUNT, json={"model": model, "input": "four", "instructions": "Be brief."})
        assert answer.json() == {"object": "response.input_tokens", "input_tokens": 4}
        assert answer.headers["x-ratelimit-remaining-requests"] == str(4 - number)
    assert [(body["path"], body["model"], body["instructions"]) for body in rendered] == [("/v1/responses", MODEL, "Be brief.")] * 3


async def test_what_cannot_be_read_has_no_length(http: httpx.AsyncClient, rendered: list[dict[str, Any]]) -> None:
    error = error_of(await http.post(COUNT, json={"model": MODEL, "input": "x" * 100}))
    assert (error["code"], error["param"]) == ("invalid_prompt", "input")


async def test_what_is_not_counted_in_time_is_not_said_to_be_wrong(
    http: httpx.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late(*args: Any) -> Any:
        raise TimeoutError

    monkeypatch.setattr(world.replicas, "probe", late)
    answer = await http.post(COUNT, json={"model": MODEL, "input": "four"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


@pytest.mark.usefixtures("rendered")
@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"input": "x", "model": "other"}, 404, "model"),
        ({"model": MODEL}, 400, "input"),
        ({"input": "x", "previous_response_id": "resp_1"}, 400, "previous_response_id"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://10.0.0.1/"}]}]}, 400, None),
    ],
)
async def test_refusals_are_those_of_responses(http: httpx.AsyncClient, body: dict[str, Any], status: int, param: str | None) -> None:
    answer = await http.post(COUNT, json=body)
    assert answer.status_code == status
    assert param is None or error_of(answer)["param"] == param


async def test_without_a_replica_it_is_unavailable(http: httpx.AsyncClient, world: World) -> None:
    world.directory.replace([])
    answer = await http.post(COUNT, json={"input": "x"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
