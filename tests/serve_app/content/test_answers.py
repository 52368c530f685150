"""Answers, whole and streamed, as they pass rules."""

from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from serve_app.content.answers import Events, pass_whole
from serve_app.content.base import Rule
from serve_app.content.factory import make_matcher
from serve_app.openai import answers, sse
from tests.serve_app.content.finding import rule

SECRET = rule("secret")
NAME = rule("Bob", name="names", mask=True)


def events(expected: int = 1, *rules: Rule) -> Events:
    matcher = make_matcher(rules or [SECRET, NAME])
    assert matcher is not None
    return Events(matcher, expected, list[Rule]().append)


def chunk(*choices: dict[str, Any]) -> bytes:
    return sse.event({"id": "x", "object": "chat.completion.chunk", "choices": list(choices)})


def delta(index: int = 0, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"index": index, "delta": fields, "finish_reason": finish}


def through(passing: Events, chunks: Sequence[bytes]) -> list[dict[str, Any]]:
    raw = b"".join(map(passing.feed, chunks))
    return [msgspec.json.decode(payload) for payload in sse.payloads(raw) if payload != b"[DONE]"]


def said(sent: list[dict[str, Any]], key: str = "content", index: int = 0) -> str:
    choices = [choice for each in sent for choice in each["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get(key) or "" for choice in choices)


def ends(sent: list[dict[str, Any]]) -> dict[int, str]:
    return {choice["index"]: choice["finish_reason"] for each in sent for choice in each["choices"] if choice["finish_reason"]}


def whole(**message: Any) -> bytes:
    return msgspec.json.encode({"choices": [{"index": 0, "message": message, "finish_reason": "stop", "stop_reason": "x"}], "usage": {}})


def passed(raw: bytes, *rules: Rule) -> tuple[Any, list[str]]:
    """The only choice, and the rules that were acted on."""
    matched: list[Rule] = []
    matcher = make_matcher(rules or [SECRET, NAME])
    assert matcher is not None
    (choice,) = msgspec.json.decode(pass_whole(raw, matcher, matched.append))["choices"]
    return choice, [each.name for each in matched]


# Streams


def test_events_without_matches_pass_byte_for_byte() -> None:
    usage = sse.event({"choices": [], "usage": {"total_tokens": 3}})
    chunks = [
        chunk(delta(role="assistant", content="")),
        chunk(delta(content="All is well.")),
        b": a comment\n\n",
        chunk(delta(finish="stop")),
    ]
    assert [events().feed(each) for each in chunks] == chunks
    passing = events()
    raw = b"".join([*chunks, usage, sse.DONE])
    assert b"".join(passing.feed(raw[at : at + 7]) for at in range(0, len(raw), 7)) == raw
    assert not passing.is_over


def test_what_is_masked_comes_masked_and_nothing_before_it_is_lost() -> None:
    sent = through(events(), [chunk(delta(content=part)) for part in ("I am B", "o", "b, and", " Bobby")] + [chunk(delta(finish="stop"))])
    assert said(sent) == "I am ***, and Bobby"
    assert ends(sent) == {0: "stop"}


def test_events_of_which_nothing_may_be_sent_yet_are_not_sent() -> None:
    passing = events()
    assert passing.feed(chunk(delta(content="sec"))) == b""
    assert said(through(passing, [chunk(delta(content="ond"))])) == "second"


def test_what_is_held_back_comes_with_the_finish_reason() -> None:
    sent = through(events(), [chunk(delta(content="I am Bob")), chunk(delta(finish="length"))])
    assert said(sent) == "I am ***"
    assert sent[-1]["choices"][0] == {"index": 0, "delta": {"content": "***"}, "finish_reason": "length"}


def test_a_blocked_stream_ends_before_the_match_and_the_engine_is_left() -> None:
    passing = events()
    first = passing.feed(chunk(delta(content="The sec")))
    assert not passing.is_over
    rest = passing.feed(chunk(delta(content="ret is 42.")) + chunk(delta(content="More.")))
    assert passing.is_over
    assert rest.endswith(sse.DONE)
    sent = [msgspec.json.decode(payload) for payload in sse.payloads(first + rest) if payload != b"[DONE]"]
    assert (said(sent), ends(sent)) == ("The ", {0: "content_filter"})
    assert answers.from_stream(first + sse.event({"usage": {}}) + rest) is None  # it is not kept


def test_each_choice_has_a_text_of_its_own() -> None:
    passing = events(2)
    chunks = [
        chunk(delta(0, content="a sec"), delta(1, content="b ")),
        chunk(delta(1, content="ret, "), delta(0, content="ret, ")),
        chunk(delta(0, content="more")),
        chunk(delta(1, content="more")),
    ]
    sent = through(passing, chunks[:2])
    assert passing.feed(chunks[2]) == b""
    sent += through(passing, chunks[3:])
    assert (said(sent, index=0), said(sent, index=1)) == ("a ", "b ret, more")
    assert not passing.is_over
    sent = through(passing, [chunk(delta(1, finish="stop"))])
    assert ends(sent) == {1: "stop"}
    assert passing.is_over


def test_completions_are_texts_too() -> None:
    texts = [{"index": 0, "text": "I am Bo", "finish_reason": None}, {"index": 0, "text": "b.", "finish_reason": "stop"}]
    sent = through(events(), [chunk(each) for each in texts])
    assert "".join(each["choices"][0]["text"] for each in sent) == "I am ***."


def test_reasoning_is_a_text_that_ends_where_the_answer_begins() -> None:
    chunks = [
        chunk(delta(reasoning="Is it B")),
        chunk(delta(reasoning="ob")),
        chunk(delta(content="ob", reasoning="")),
        chunk(delta(finish="stop")),
    ]
    sent = through(events(), chunks)
    assert (said(sent, "reasoning"), said(sent)) == ("Is it ***", "ob")
    where = next(place for place, each in enumerate(sent) if each["choices"][0]["delta"].get("content"))
    assert said(sent[: where + 1], "reasoning") == "Is it ***"


def test_a_text_that_goes_on_beside_another_goes_on_first() -> None:
    sent = through(events(), [chunk(delta(content="a sec")), chunk(delta(reasoning="hm", content="ret"))])
    assert (said(sent, "reasoning"), said(sent), ends(sent)) == ("", "a ", {0: "content_filter"})


def test_a_blocked_reasoning_is_the_end_of_the_choice() -> None:
    sent = through(events(), [chunk(delta(reasoning="The secret: ", content="It is"))])
    assert (said(sent, "reasoning"), said(sent), ends(sent)) == ("The ", "", {0: "content_filter"})


def call(number: int, arguments: str, **fields: Any) -> dict[str, Any]:
    return {"index": number, "function": {"arguments": arguments, **fields}}


def test_arguments_of_calls_are_blocked_and_not_masked() -> None:
    chunks = [
        chunk(delta(tool_calls=[call(0, "", name="send") | {"id": "c0"}])),
        chunk(delta(tool_calls=[call(0, '{"to": "Bob')])),
        chunk(delta(tool_calls=[call(0, '"}')])),
        chunk(delta(tool_calls=[call(1, '{"a": "sec', name="send") | {"id": "c1"}])),
        chunk(delta(tool_calls=[call(1, 'ret"}')])),
    ]
    sent = through(events(), chunks)
    calls = [each for one in sent for each in one["choices"][0]["delta"].get("tool_calls", [])]
    arguments = ["".join(each["function"]["arguments"] for each in calls if each["index"] == number) for number in (0, 1)]
    assert arguments == ['{"to": "Bob"}', '{"a": "']
    assert [each["id"] for each in calls if "id" in each] == ["c0", "c1"]
    assert ends(sent) == {0: "content_filter"}


def test_what_is_said_before_a_call_is_sent_before_it() -> None:
    part = call(0, "", name="f") | {"id": "c0"}
    sent = through(
        events(1, rule("kill")), [chunk(delta(content="to kil")), chunk(delta(tool_calls=[part])), chunk(delta(finish="tool_calls"))]
    )
    assert [each["choices"][0]["delta"] for each in sent] == [{"content": "to "}, {"content": "kil", "tool_calls": [part]}, {}]
    assert ends(through(events(1, rule("kil")), [chunk(delta(content="kil")), chunk(delta(tool_calls=[part]))])) == {0: "content_filter"}


def test_a_name_that_is_said_again_does_not_end_its_arguments() -> None:
    parts = [call(0, piece, name="f") for piece in ('{"a": "sec', "re", 't"}')]
    sent = through(events(), [chunk(delta(tool_calls=[part])) for part in parts])
    arguments = [each["function"].get("arguments", "") for one in sent for each in one["choices"][0]["delta"].get("tool_calls", [])]
    assert ("".join(arguments), ends(sent)) == ('{"a": "', {0: "content_filter"})


def test_what_a_call_held_back_comes_before_the_next_call() -> None:
    first, second = call(0, "[1]sec", name="f"), call(1, "[2]", name="g")
    sent = through(events(), [chunk(delta(tool_calls=[first])), chunk(delta(tool_calls=[second])), chunk(delta(finish="tool_calls"))])
    calls = [each for one in sent for each in one["choices"][0]["delta"].get("tool_calls", [])]
    assert "".join(each["function"]["arguments"] for each in calls if each["index"] == 0) == "[1]sec"
    assert [each["index"] for each in sent[1]["choices"][0]["delta"]["tool_calls"]] == [1, 0]


def test_what_cannot_be_read_is_not_passed_on() -> None:
    broken = b'data: {"choices":[{"index":0,"delta":{"content":"\xff\xfe"}}]}\n\n'
    assert events().feed(broken + sse.DONE) == sse.DONE


def test_errors_of_the_engine_pass() -> None:
    error = sse.event({"error": {"message": "x"}})
    assert events().feed(error) == error


# Whole answers


def test_a_whole_answer_is_masked_or_passes_as_it_came() -> None:
    assert passed(whole(role="assistant", content="Bob and Bob")) == (
        {"index": 0, "message": {"role": "assistant", "content": "*** and ***"}, "finish_reason": "stop", "stop_reason": "x"},
        ["names", "names"],
    )
    raw = b" " + whole(content="Alice")
    matcher = make_matcher([SECRET])
    assert matcher is not None
    assert pass_whole(raw, matcher, list[Rule]().append) == raw


def test_a_whole_answer_that_is_blocked_has_what_came_before() -> None:
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    choice, matched = passed(whole(content="It is secret.", reasoning="Bob asks.", tool_calls=calls))
    assert choice["message"] == {"content": "It is ", "reasoning": "*** asks.", "tool_calls": []}
    assert (choice["finish_reason"], choice["stop_reason"], matched) == ("content_filter", None, ["names", "r"])


def test_of_a_blocked_reasoning_nothing_follows() -> None:
    choice, _ = passed(whole(content="It is Bob.", reasoning="A secret."))
    assert choice["message"] == {"content": "", "reasoning": "A "}


def test_a_blocked_argument_of_a_whole_answer_ends_it_without_calls() -> None:
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": "secret"}'}}]
    choice, _ = passed(whole(content=None, tool_calls=calls))
    assert (choice["message"]["tool_calls"], choice["finish_reason"]) == ([], "content_filter")


# However they come


said_texts = st.lists(st.sampled_from(["Bob", "secret", "sec", "ret", "B", "ob", " ", "."]), max_size=8).map("".join)


@given(said_texts, said_texts, st.lists(st.integers(1, 6), min_size=1, max_size=20), st.integers(1, 40))
def test_a_stream_says_what_the_whole_answer_says(reasoning: str, content: str, lengths: list[int], bytes_at_once: int) -> None:
    choice, _ = passed(whole(role="assistant", reasoning=reasoning, content=content))
    deltas = [*(delta(reasoning=piece) for piece in cut(reasoning, lengths)), *(delta(content=piece) for piece in cut(content, lengths))]
    raw = b"".join(map(chunk, [*deltas, delta(finish="stop")]))
    sent = through(events(), [raw[at : at + bytes_at_once] for at in range(0, len(raw), bytes_at_once)])
    assert (said(sent, "reasoning"), said(sent)) == (choice["message"]["reasoning"], choice["message"]["content"])
    assert ends(sent) == {0: choice["finish_reason"]}


arguments_texts = st.lists(
    st.sampled_from(["Bob", "secret", "sec", "ret", r"\u0073", r"\n", "\\", r"\ud83d\ude00", '"', " ", "{"]), min_size=1, max_size=8
)


@given(arguments_texts.map("".join), said_texts, st.lists(st.integers(1, 6), min_size=1, max_size=20))
def test_a_streamed_call_is_ended_where_the_whole_one_is(arguments: str, content: str, lengths: list[int]) -> None:
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}]
    choice, _ = passed(whole(content=content, tool_calls=calls))
    head = call(0, "", name="f") | {"id": "c"}
    parts = [head, *(call(0, piece) for piece in cut(arguments, lengths))]
    deltas = [*(delta(content=piece) for piece in cut(content, lengths)), *(delta(tool_calls=[part]) for part in parts)]
    sent = through(events(), [chunk(each) for each in [*deltas, delta(finish="stop")]])
    told = [each for one in sent for each in one["choices"][0]["delta"].get("tool_calls", [])]
    assert ends(sent) == {0: choice["finish_reason"]}
    assert said(sent) == choice["message"]["content"]
    if choice["finish_reason"] == "stop":
        assert "".join(each["function"]["arguments"] for each in told) == arguments
    else:
        assert arguments.startswith("".join(each["function"].get("arguments", "") for each in told))


def test_a_blocked_name_is_the_end_and_no_call_begins() -> None:
    parts = [call(0, "{}", name="f") | {"id": "c0"}, call(1, "", name="secret") | {"id": "c1"}]
    sent = through(events(), [chunk(delta(tool_calls=[part])) for part in parts])
    assert sent[-1]["choices"][0] == {"index": 0, "delta": {"tool_calls": []}, "finish_reason": "content_filter"}
    assert [each["function"]["name"] for each in sent[0]["choices"][0]["delta"]["tool_calls"]] == ["f"]


def test_what_a_custom_tool_is_given_is_blocked_and_not_masked() -> None:
    for told, passes in (("Ask Bob", "Ask Bob"), ("a secret", None)):
        calls = [{"id": "c", "type": "custom", "custom": {"name": "f", "input": told}}]
        choice, _ = passed(whole(content=None, tool_calls=calls))
        assert [each["custom"]["input"] for each in choice["message"]["tool_calls"]] == [passes][: passes is not None]


def cut(text: str, lengths: list[int]) -> Iterator[str]:
    at = 0
    for length in cycle(lengths):
        if at >= len(text):
            return
        yield text[at : at + length]
        at += length
