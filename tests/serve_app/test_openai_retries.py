"""OpenAI's Python client where the engine has too much to do: it tries again when it is told to (429: tests/conformance)."""

import time
from typing import Any

import openai
import pytest

from deployments.errors import NoReplicaError
from tests.serve_app.clients import CHAT, client_of
from tests.serve_app.fakes import FakeAnswer, World


def client(http: Any, retries: int) -> openai.AsyncOpenAI:
    """`http`: an `httpx.AsyncClient`; the type that the client names is a copy of it."""
    return openai.AsyncOpenAI(base_url="http://test/v1", api_key="unused", max_retries=retries, http_client=http)


@pytest.mark.parametrize(
    "unavailable", [NoReplicaError("none"), FakeAnswer([b"{}"], 503), FakeAnswer([b"{}"], 429)], ids=["none", "503", "429"]
)
async def test_it_waits_as_long_as_it_is_told_and_tries_again(world: World, unavailable: Any) -> None:
    world.replicas.script.append(unavailable)
    async with client_of(world) as http:
        began = time.monotonic()
        answer = await client(http, 1).chat.completions.create(**CHAT)
    assert answer.choices[0].message.content
    assert time.monotonic() - began >= 1, "Retry-After says a second"
    assert [status for _, status, _ in world.metrics.requests] == [503, 200]


async def test_without_retries_it_is_the_clients_own_error(world: World) -> None:
    world.replicas.script.append(NoReplicaError("none"))
    async with client_of(world) as http:
        with pytest.raises(openai.InternalServerError) as error:
            await client(http, 0).chat.completions.create(**CHAT)
    assert (error.value.status_code, error.value.code, error.value.type) == (503, "no_replica", "service_unavailable")
