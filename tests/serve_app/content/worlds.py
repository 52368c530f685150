"""Pipelines with content rules, and what comes of requests to them."""

from typing import Any

import msgspec
import pytest

from serve_app.content.moderation_fake import FakeModerator
from serve_app.errors import InvalidRequestError
from serve_app.openai import sse
from tests.serve_app.asking import ask, caller, chat, text_of
from tests.serve_app.fakes import CANARY, FakeAnswer, World, make_world, streamed, whole

BLOCK = {"name": "banned", "words": [CANARY]}
MASK = {"name": "names", "action": "mask", "words": ["Bob"]}


def ruled(*rules: dict[str, Any], **content: Any) -> World:
    return make_world(content={"all": {"rules": list(rules)}, **content})


def moderated(**moderator: Any) -> tuple[World, FakeModerator]:
    fake = FakeModerator({"evil": "violence"})
    return make_world(fake, content={"all": {"moderated": True}, "moderator": moderator}), fake


async def refused(world: World, request: Any, **who: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        await world.pipeline.generate(request, caller(**who))
    return caught.value


async def answered(world: World, request: Any, *answers: FakeAnswer) -> tuple[str, str, str | None]:
    """How the cache was of use, what the answer says, and how it ended."""
    world.replicas.script += answers
    cache, body = await ask(world, request)
    if body.startswith(b"{"):
        return cache, text_of(body), msgspec.json.decode(body)["choices"][0]["finish_reason"]
    chunks = [msgspec.json.decode(payload) for payload in sse.payloads(body) if payload != b"[DONE]"]
    return cache, text_of(body), next(each["choices"][0]["finish_reason"] for each in reversed(chunks) if each["choices"])


def says(text: str, *, stream: bool = False, kind: Any = chat) -> FakeAnswer:
    is_chat = kind is chat
    return FakeAnswer(streamed(text, chat=is_chat) if stream else [whole(text, chat=is_chat)])
