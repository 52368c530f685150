"""Moderation models over HTTP."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from serve_app.content.base import ModerationError
from serve_app.content.moderation_http import HttpModerator

CANARY = "canary_7f3a9"


def moderator(answer: Callable[[httpx.Request], Any], timeout_s: float = 5.0, model: str | None = None) -> HttpModerator:
    return HttpModerator("http://judge/v1/moderations", "a-key", model, timeout_s, httpx.MockTransport(answer))


async def judged(response: httpx.Response) -> list[str]:
    asked = moderator(lambda request: response)
    try:
        return list((await asked.judge(CANARY)).categories)
    finally:
        await asked.close()


async def test_it_asks_as_openai_is_asked() -> None:
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, json={"id": "x", "results": [{"flagged": False, "categories": {"hate": False}, "category_scores": {}}]})

    asked = moderator(answer, model="omni")
    assert not (await asked.judge("a text")).is_flagged
    await asked.close()
    (request,) = requests
    assert (request.method, str(request.url), request.headers["authorization"]) == ("POST", "http://judge/v1/moderations", "Bearer a-key")
    assert json.loads(request.content) == {"input": "a text", "model": "omni"}


async def test_categories_are_those_of_what_is_flagged() -> None:
    results = [
        {"flagged": True, "categories": {"violence": True, "hate": True, "other": False}},
        {"flagged": False, "categories": {"x": True}},
    ]
    assert await judged(httpx.Response(200, json={"results": results})) == ["hate", "violence"]
    assert await judged(httpx.Response(200, json={"results": [{"flagged": True}]})) == ["flagged"]


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(500),
        httpx.Response(401),
        httpx.Response(200, text="no"),
        httpx.Response(200, json={"results": []}),
        httpx.Response(302),
    ],
    ids=["error", "refused", "no JSON", "no result", "elsewhere"],
)
async def test_no_verdict_is_an_error_without_the_text(response: httpx.Response) -> None:
    with pytest.raises(ModerationError) as caught:
        await judged(response)
    assert CANARY not in str(caught.value)


async def test_a_verdict_that_does_not_come_is_not_waited_for() -> None:
    async def never(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    asked = moderator(never, timeout_s=0.01)
    with pytest.raises(ModerationError):
        await asyncio.wait_for(asked.judge("x"), 5)
    await asked.close()
