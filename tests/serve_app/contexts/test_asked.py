"""What requests may say of kept contexts, and what is left of them then."""

from typing import Any

import msgspec
import pytest

from serve_app.anthropic.requests import parse_message
from serve_app.contexts.asked import MAX_TTL_S, Mark, Reference, seconds_of
from serve_app.errors import InvalidRequestError
from serve_app.openai.keys import key_material
from serve_app.openai.requests import Generation, parse_chat

EPHEMERAL = {"type": "ephemeral"}


def parsed(messages: Any, **fields: Any) -> Generation:
    return parse_chat(msgspec.json.encode({"model": "m", "messages": messages, **fields}))


def part(text: str, **fields: Any) -> dict[str, Any]:
    return {"type": "text", "text": text, **fields}


@pytest.mark.parametrize(("ttl", "seconds"), [(None, 300), (1, 1), ("300s", 300), ("5m", 300), ("1h", 3600), (MAX_TTL_S, MAX_TTL_S)])
def test_times(ttl: str | int | None, seconds: float) -> None:
    assert seconds_of(ttl, "ttl") == seconds


@pytest.mark.parametrize("ttl", [0, -1, MAX_TTL_S + 1, "0s", "5", "5 m", "m", "1d", "-1s", "5m\n", "", "9" * 50 + "s"])
def test_what_is_no_time(ttl: str | int) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        seconds_of(ttl, "ttl")
    assert caught.value.param == "ttl"


def test_marks_are_taken_from_tools_messages_and_their_parts() -> None:
    request = parsed(
        [
            {"role": "system", "content": [part("a", cache_control={"type": "ephemeral", "ttl": "1h"}), part("b")]},
            {"role": "user", "content": "c", "cache_control": EPHEMERAL},
        ],
        tools=[{"type": "function", "function": {"name": "f"}, "cache_control": EPHEMERAL}],
    )
    assert request.marks == (Mark("tools", 0, None, 300), Mark("messages", 0, 0, 3600), Mark("messages", 1, None, 300))
    assert b"cache_control" not in msgspec.json.encode(request.body)


def test_marks_of_anthropics_requests() -> None:
    body = {
        "model": "m",
        "max_tokens": 1,
        "system": [part("a", cache_control=EPHEMERAL), part("b")],
        "messages": [
            {"role": "user", "content": [part("c"), part("d", cache_control=EPHEMERAL), part("e")]},
            {"role": "user", "content": "f"},
        ],
        "cache_control": {"type": "ephemeral", "ttl": "1h"},
    }
    request = parse_message(msgspec.json.encode(body))
    assert request.marks == (Mark("system", 0, 0, 300), Mark("messages", 0, 1, 300), Mark("messages", 1, None, 3600))
    assert b"cache_control" not in msgspec.json.encode(request.body)
    behind = {"role": "user", "content": "."}
    assert [mark.beginning(request.body, behind) for mark in request.marks] == [
        {"system": [part("a")], "messages": [behind]},
        {"messages": [{"role": "user", "content": [part("c"), part("d")]}]},
        {"messages": request.body["messages"]},
    ]


def test_marks_do_not_change_what_is_asked() -> None:
    marked = parsed([{"role": "user", "content": [part("a", cache_control=EPHEMERAL)]}])
    assert key_material(marked) == key_material(parsed([{"role": "user", "content": [part("a")]}]))


@pytest.mark.parametrize(
    "control", [{"type": "persistent"}, {}, "ephemeral", 1, [], {"type": "ephemeral", "ttl": "soon"}, {"type": "ephemeral", "size": 1}]
)
def test_what_is_no_mark(control: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parsed([{"role": "user", "content": [part("a"), part("b", cache_control=control)]}])
    assert str(caught.value.param).startswith("messages[0].content[1].cache_control")


def test_a_mark_that_is_null_is_none() -> None:
    assert parsed([{"role": "user", "content": [part("a", cache_control=None)]}]).marks == ()


def test_more_marks_than_four() -> None:
    parts = [part(str(number), cache_control=EPHEMERAL) for number in range(5)]
    with pytest.raises(InvalidRequestError, match="At most 4"):
        parsed([{"role": "user", "content": parts}])


@pytest.mark.parametrize(
    ("content", "reference"),
    [
        ("cache_id=cache-1", Reference(id="cache-1")),
        ("cache_id=cache-1;reset_ttl=60", Reference(id="cache-1", reset_ttl_s=60)),
        ("tag=my-tag.2;reset_ttl=1", Reference(tag="my-tag.2", reset_ttl_s=1)),
    ],
)
def test_a_chat_may_begin_with_a_context(content: str, reference: Reference) -> None:
    request = parsed([{"role": "cache", "content": content}, {"role": "user", "content": "And?"}])
    assert request.context == reference
    assert request.body["messages"] == [{"role": "user", "content": "And?"}]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "cache-1",
        "cache_id=",
        "cache_id=a b",
        "cache_id=a;reset_ttl=x",
        "cache_id=a;",
        "cache_id=a;tag=b",
        "tag=1a",
        "cache_id=a;reset_ttl=0",
        "cache_id=a\n",
        "dry_run=1",
        None,
        [part("cache_id=a")],
    ],
)
def test_what_names_no_context(content: Any) -> None:
    with pytest.raises(InvalidRequestError):
        parsed([{"role": "cache", "content": content}, {"role": "user", "content": "And?"}])


def test_a_context_is_the_beginning_and_not_all_of_a_chat() -> None:
    reference = {"role": "cache", "content": "cache_id=a"}
    with pytest.raises(InvalidRequestError) as caught:
        parsed([{"role": "user", "content": "And?"}, reference])
    assert caught.value.param == "messages[1].role"
    with pytest.raises(InvalidRequestError) as caught:
        parsed([reference])
    assert caught.value.param == "messages"
    with pytest.raises(InvalidRequestError) as caught:
        parsed([reference, {"role": "user", "content": "And?"}], tools=[])
    assert caught.value.param == "tools"
