"""Kept answers of responses and messages: what is replayed is what was computed, in the form that is asked for."""

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from serve_app.anthropic.message_fields import complete_message
from serve_app.anthropic.requests import parse_message
from serve_app.content.moderation_fake import FakeModerator
from serve_app.openai.kept import KeptMessage, KeptResponse, from_json, from_stream, replayed
from serve_app.openai.requests import Generation
from serve_app.openai.response_fields import complete
from serve_app.openai.responses import parse_response
from serve_app.openai.sse import named
from tests.serve_app.asking import ask, caller, chat
from tests.serve_app.fakes import MODEL, TEXT, FakeAnswer, World, make_world
from tests.serve_app.formats import CALL, deltas_of, message, message_events, response, response_events, values_of

ARGUMENTS = '{"title":"a b"}'
TOOL = {"type": "tool_use", "id": "call_1", "name": "look_up", "input": {"title": "a b"}}
KINDS = ["response", "message"]


def asked(kind: str, **fields: Any) -> Generation:
    if kind == "response":
        return parse_response(json.dumps({"model": MODEL, "input": "Hi", **fields}).encode())
    turns = [{"role": "user", "content": "Hi"}]
    return parse_message(json.dumps({"model": MODEL, "max_tokens": 9, "messages": turns, **fields}).encode())


def computed(kind: str, *, stream: bool, text: str = TEXT) -> FakeAnswer:
    """With a call behind the text."""
    if stream:
        return FakeAnswer((response_events if kind == "response" else message_events)(text, ARGUMENTS))
    call = {**CALL, "arguments": ARGUMENTS}
    return FakeAnswer([response(text, call) if kind == "response" else message(text, TOOL)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", [False, True])
async def test_an_answer_is_replayed_in_both_forms(kind: str, first: bool) -> None:
    world = make_world()
    world.replicas.script.append(computed(kind, stream=first))
    assert (await ask(world, asked(kind, stream=first)))[0] == "miss"
    cache, whole = await ask(world, asked(kind))
    assert cache == "exact"
    answer = msgspec.json.decode(whole)
    fresh = msgspec.json.decode(response(TEXT, {**CALL, "arguments": ARGUMENTS}) if kind == "response" else message(TEXT, TOOL))
    now = int(world.clock())
    if kind == "response":
        assert answer == complete({**fresh, "id": "resp_r-1", "created_at": now}, asked(kind).body, now)
    else:
        assert answer == complete_message({**fresh, "id": "msg_r-1"})
    cache, raw = await ask(world, asked(kind, stream=True))
    assert cache == "exact"
    assert deltas_of(raw) == TEXT + ARGUMENTS
    kept = KeptResponse if kind == "response" else KeptMessage
    assert from_stream(raw, kept) == from_json(whole, kept)
    assert len(world.replicas.calls) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_replayed_stream_has_the_events_of_a_computed_one(kind: str) -> None:
    """But for the number of deltas, which says only how fast it was."""
    world = make_world()
    fresh = computed(kind, stream=True)
    world.replicas.script.append(fresh)
    raws = [(await ask(world, asked(kind, stream=True)))[1] for _ in range(2)]
    types = [
        list(dict.fromkeys((value["type"], value.get("index", value.get("output_index"))) for value in values_of(raw))) for raw in raws
    ]
    assert types[0] == types[1]
    if kind == "response":
        numbers = [value["sequence_number"] for value in values_of(raws[1])]
        assert numbers == list(range(len(numbers)))


async def test_no_kind_is_given_anothers_answer() -> None:
    world = make_world()
    world.replicas.script += [computed("message", stream=False), computed("response", stream=False)]
    outcomes = [(await ask(world, request))[0] for request in (asked("message"), asked("response"), chat("Hi", max_tokens=9))]
    assert outcomes == ["miss"] * 3
    raw = world.cache.entries[0].answer
    with pytest.raises(msgspec.DecodeError):
        replayed(raw, KeptResponse, {}, {}, stream=False)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("response", {"instructions": "Be brief."}),
        ("response", {"temperature": 0.5}),
        ("response", {"max_tool_calls": 1}),
        ("response", {"text": {"format": {"type": "json_object"}}}),
        ("message", {"system": "Be brief."}),
        ("message", {"thinking": {"type": "disabled"}}),
        ("message", {"messages": [{"content": "Hi", "role": "user"}]}),
    ],
)
async def test_what_decides_the_answer_or_is_repeated_in_it_is_part_of_the_key(kind: str, fields: dict[str, Any]) -> None:
    world = make_world()
    world.replicas.script += [computed(kind, stream=False), computed(kind, stream=False)]
    assert [(await ask(world, request))[0] for request in (asked(kind), asked(kind, **fields))] == ["miss", "miss"]
    for same in ({"stream": True}, {"priority": 1}, {"cache": {"ttl_s": 5}}, {"store": True} if kind == "response" else {}):
        assert (await ask(world, asked(kind, **same)))[0] == "exact"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_kept_response_repeats_what_the_request_says_and_nothing_of_the_first_one(stream: bool) -> None:
    world = make_world()
    first = {
        "metadata": {"order": "secret-1"},
        "user": "alice",
        "safety_identifier": "alice-1",
        "prompt_cache_key": "of-alice",
        "service_tier": "flex",
    }
    repeated = msgspec.json.encode({**msgspec.json.decode(response(TEXT)), **first})  # as vLLM does
    world.replicas.script.append(FakeAnswer([repeated]))
    outcome, raw = await ask(world, asked("response", **first))
    assert outcome == "miss"
    assert {key: msgspec.json.decode(raw)[key] for key in first} == first
    for value in first.values():
        assert msgspec.json.encode(value) not in world.cache.entries[0].answer
    others: dict[str, Any] = {"metadata": {"order": "2"}, "user": "bob", "safety_identifier": "bob-1", "service_tier": "auto"}
    unsaid: dict[str, Any] = {"metadata": {}, "user": None, "safety_identifier": None, "prompt_cache_key": None, "service_tier": "auto"}
    for fields in (others, {}):
        outcome, raw = await ask(world, asked("response", stream=stream, **fields))
        assert outcome == "exact"
        told = [value["response"] for value in values_of(raw) if "response" in value] if stream else [msgspec.json.decode(raw)]
        assert len(told) == (3 if stream else 1)
        for each in told:
            assert {key: each[key] for key in unsaid} == {**unsaid, **fields}
    assert len(world.replicas.calls) == 1


async def test_an_answer_that_an_older_version_kept_tells_nothing_of_its_request_either() -> None:
    world = make_world(cache={"exact": {"max_bytes": 0}})
    world.replicas.script.append(FakeAnswer([response(TEXT)]))
    await ask(world, asked("response"))
    old = {**msgspec.json.decode(world.cache.entries[0].answer), "user": "alice", "metadata": {"order": "secret-1"}}
    for name in ("completed_at", "store", "error", "text", "top_logprobs"):
        old.pop(name, None)
    change(world, msgspec.json.encode(old))
    outcome, raw = await ask(world, asked("response", user="bob"))
    answer = msgspec.json.decode(raw)
    assert (outcome, answer["user"], answer["metadata"]) == ("exact", "bob", {})
    assert (answer["completed_at"], answer["store"], answer["text"]) == (answer["created_at"], False, {"format": {"type": "text"}})


async def test_a_message_is_kept_for_whoever_asks_it() -> None:
    """`metadata` says who asks, and the answer repeats nothing of it."""
    world = make_world()
    world.replicas.script.append(computed("message", stream=False))
    outcomes = [(await ask(world, asked("message", metadata={"user_id": name})))[0] for name in ("alice", "bob")]
    assert outcomes == ["miss", "exact"]


@pytest.mark.parametrize("first", [False, True])
async def test_a_response_that_was_cut_off_is_replayed_as_one(first: bool) -> None:
    world = make_world()
    cut = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    raw = msgspec.json.encode({**msgspec.json.decode(response(TEXT)), **cut})
    ended = named({"type": "response.completed", "sequence_number": 9, "response": msgspec.json.decode(raw)})  # as vLLM ends it
    world.replicas.script.append(FakeAnswer([*response_events(TEXT)[:-1], ended] if first else [raw]))
    told = []
    for outcome, stream in (("miss", first), ("exact", False), ("exact", True)):
        cache, body = await ask(world, asked("response", stream=stream))
        assert cache == outcome
        if stream:
            last = values_of(body)[-1]
            assert last["type"] == "response.incomplete"
            told.append(last["response"])
        else:
            told.append(msgspec.json.decode(body))
    for answer in told:
        assert {key: answer[key] for key in cut} == cut
        assert answer["completed_at"] is None


@pytest.mark.parametrize("kind", KINDS)
async def test_tenants_do_not_share(kind: str) -> None:
    world = make_world()
    world.replicas.script += [computed(kind, stream=False), computed(kind, stream=False)]
    assert [(await ask(world, asked(kind), caller(tenant)))[0] for tenant in ("a", "b", "a")] == ["miss", "miss", "exact"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_not_complete_is_not_kept(kind: str, stream: bool) -> None:
    world = make_world(content={"all": {"rules": [{"name": "banned", "where": "answer", "words": ["answers"]}]}})
    world.replicas.script += [computed(kind, stream=stream), computed(kind, stream=stream)]
    assert [(await ask(world, asked(kind, stream=stream)))[0] for _ in range(2)] == ["miss", "miss"]
    await world.keeper.drain()
    assert world.cache.entries == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_broken_stream_is_no_answer(kind: str) -> None:
    raw = b"".join((response_events if kind == "response" else message_events)(TEXT, '{"cut'))
    kept = KeptResponse if kind == "response" else KeptMessage
    whole = b"".join((response_events if kind == "response" else message_events)(TEXT))
    assert from_stream(whole, kept) is not None
    for broken in (
        whole[: whole.rfind(b"event: ")],
        whole.replace(b'"end_turn"', b'"refusal"').replace(b'"completed","output"', b'"failed","output"'),
        b"",
    ):
        assert from_stream(broken, kept) is None
    assert from_json(b"{}", kept) is None
    assert from_json(b"[", kept) is None
    if kind == "message":
        assert from_stream(raw, kept) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("text", "outcome"), [("all evil", "miss"), ("all good", "exact")])
async def test_the_model_judges_what_is_kept_of_a_stream(kind: str, text: str, outcome: str) -> None:
    world = make_world(FakeModerator({"evil": "violence"}), content={"all": {"moderated": True}, "moderator": {"url": "http://fake"}})
    world.replicas.script += [computed(kind, stream=True, text=text), computed(kind, stream=True, text=text)]
    assert [(await ask(world, asked(kind, stream=True)))[0] for _ in range(2)] == ["miss", outcome]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_damaged_answer_is_a_miss(kind: str, stream: bool) -> None:
    world = make_world(cache={"exact": {"max_bytes": 0}})
    world.replicas.script += [computed(kind, stream=stream)] * 2
    await ask(world, asked(kind, stream=stream))
    damage(world)
    assert (await ask(world, asked(kind, stream=stream)))[0] == "miss"


def damage(world: World) -> None:
    change(world, world.cache.entries[0].answer.replace(b'"usage"', b'"used"'))


def change(world: World, answer: bytes) -> None:
    (entry,) = world.cache.entries
    world.cache.entries[:] = [replace(entry, answer=answer)]
