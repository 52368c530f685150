"""Citations in whole answers, in streams and in replays."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from retrieval.documents import Chunk, SearchHit
from retrieval.prompt import labels
from serve_app.openai import sse
from serve_app.openai.citing import Style, cited
from serve_app.replies import JSON_TYPE, SSE_TYPE, Reply
from tests.serve_app.fakes import streamed, whole

HITS = (SearchHit(Chunk("bees", 2, "Bees hum."), 0.9), SearchHit(Chunk("ants", 0, "Ants walk."), 0.8))
BEES, ANTS = labels(HITS)
TEXT = f"Ants walk [{ANTS}], bees hum [{BEES}, {ANTS}]."


def answered(style: Style = "numbers", text: str = TEXT) -> dict[str, Any]:
    reply = cited(Reply(200, {}, JSON_TYPE, whole(text)), HITS, style)
    assert isinstance(reply.body, bytes)
    message: dict[str, Any] = json.loads(reply.body)["choices"][0]["message"]
    return message


async def said(body: bytes | AsyncIterator[bytes]) -> tuple[str, list[dict[str, Any]]]:
    """The text of a stream, and its annotations."""
    raw = body if isinstance(body, bytes) else b"".join([chunk async for chunk in body])
    text = ""
    annotations: list[dict[str, Any]] = []
    for payload in sse.payloads(raw):
        if payload != b"[DONE]":
            for choice in json.loads(payload)["choices"]:
                text += choice["delta"].get("content") or ""
                annotations += choice["delta"].get("annotations") or []
    return text, annotations


async def pieces(raw: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(raw), size):
        yield raw[at : at + size]


def test_a_whole_answer_is_numbered_and_says_where_each_number_points() -> None:
    message = answered()
    assert message["content"] == "Ants walk [1], bees hum [2][1]."
    assert message["annotations"][0] == {
        "type": "file_citation",
        "index": 10,
        "number": 1,
        "file_id": "ants",
        "filename": "ants",
        "chunk_id": "ants#0",
    }
    assert [(each["number"], each["chunk_id"]) for each in message["annotations"]] == [(1, "ants#0"), (2, "bees#2"), (1, "ants#0")]


def test_other_styles() -> None:
    assert answered("ids")["content"] == "Ants walk [ants#0], bees hum [bees#2][ants#0]."
    assert answered("labels")["content"] == TEXT
    assert "annotations" not in answered("numbers", "Nobody knows.")


@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_a_stream_is_numbered_wherever_it_is_cut(size: int) -> None:
    words = b"".join(streamed(TEXT))
    reply = cited(Reply(200, {}, SSE_TYPE, pieces(words, size)), HITS, "numbers")
    text, annotations = await said(reply.body)
    assert text == "Ants walk [1], bees hum [2][1]."
    assert [text[each["index"] : each["index"] + 3] for each in annotations] == ["[1]", "[2]", "[1]"]


async def test_what_was_held_back_comes_with_the_end() -> None:
    reply = cited(Reply(200, {}, SSE_TYPE, b"".join(streamed(f"Ants walk [{ANTS[:3]}"))), HITS, "numbers")
    assert (await said(reply.body))[0] == f"Ants walk [{ANTS[:3]}"


async def test_usage_and_end_of_a_stream_stay() -> None:
    reply = cited(Reply(200, {}, SSE_TYPE, b"".join(streamed(TEXT))), HITS, "numbers")
    assert isinstance(reply.body, bytes)
    assert reply.body.endswith(sse.DONE)
    assert b'"usage":{' in reply.body


def test_errors_and_what_is_no_answer_stay() -> None:
    refused = Reply(400, {}, JSON_TYPE, b'{"error":{}}')
    assert cited(refused, HITS, "numbers") is refused
    assert cited(Reply(200, {}, JSON_TYPE, b"no json"), HITS, "numbers").body == b"no json"


def test_choices_are_numbered_apart() -> None:
    raw = json.loads(whole(f"[{ANTS}]"))
    raw["choices"].append({**raw["choices"][0], "index": 1, "message": {"role": "assistant", "content": f"[{BEES}]"}})
    reply = cited(Reply(200, {}, JSON_TYPE, json.dumps(raw).encode()), HITS, "numbers")
    assert isinstance(reply.body, bytes)
    choices = json.loads(reply.body)["choices"]
    assert [choice["message"]["content"] for choice in choices] == ["[1]", "[1]"]
    assert [choice["message"]["annotations"][0]["file_id"] for choice in choices] == ["ants", "bees"]
