"""Content rules before Ray Serve's own layers, and over HTTP."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from deployments.engines.base import Message, Receive, Send
from serve_app.content.moderation_fake import FakeModerator
from serve_app.door import OpenDoor
from serve_app.exchanges import Exchanges
from serve_app.front import Front, HitPath
from serve_app.ingress import PARSERS
from tests.serve_app.clients import CHAT, app_of, error_of
from tests.serve_app.fakes import CANARY, World, make_world

PATH = "/v1/chat/completions"
RULES = {"rules": [{"name": "banned", "words": [CANARY]}, {"name": "names", "action": "mask", "words": ["Bob"]}]}
Client = Callable[[World], httpx.AsyncClient]


@pytest.fixture
def passed() -> list[str]:
    """The paths of requests that reached the application."""
    return []


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, passed: list[str]) -> Client:
    def make(world: World) -> httpx.AsyncClient:
        app = app_of(world)

        async def behind(scope: Message, receive: Receive, send: Send) -> None:
            passed.append(scope["path"])
            await app(scope, receive, send)

        monkeypatch.setattr(Front, "hit_path", HitPath(world.pipeline, Exchanges(world.metrics), PARSERS, OpenDoor()))
        return httpx.AsyncClient(transport=httpx.ASGITransport(Front(behind)), base_url="http://test")

    return make


def saying(text: str) -> dict[str, Any]:
    return {**CHAT, "messages": [{"role": "user", "content": text}]}


async def test_a_blocked_prompt_is_counted_once(client: Client) -> None:
    world = make_world(content={"all": RULES})
    response = await client(world).post(PATH, json=saying(CANARY))
    assert response.status_code == 400
    assert error_of(response)["code"] == "content_filter"
    assert world.metrics.content_matches == [("banned", "block")]
    assert world.steps == []


async def test_a_masked_prompts_answer_is_given_at_once(client: Client, passed: list[str]) -> None:
    world = make_world(content={"all": RULES})
    asking = client(world)
    answers = [await asking.post(PATH, json=saying("I am Bob")) for _ in range(3)]
    assert [each.headers["x-mygo-cache"] for each in answers] == ["miss", "exact", "exact"]
    assert passed == [PATH]


async def test_what_is_to_be_judged_goes_on_to_the_application(client: Client, passed: list[str]) -> None:
    judge = FakeModerator({"evil": "violence"})
    world = make_world(judge, content={"all": {"moderated": True}, "moderator": {"answers": False}})
    asking = client(world)
    answers = [await asking.post(PATH, json=CHAT) for _ in range(2)]
    assert [each.headers["x-mygo-cache"] for each in answers] == ["miss", "exact"]
    assert (await asking.post(PATH, json=saying("an evil plan"))).status_code == 400
    assert (len(passed), len(judge.judged)) == (3, 3)
