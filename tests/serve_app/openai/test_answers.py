"""Answers put together from streams are those that a whole response holds, and a replay of one gives it back."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.openai.answers import from_json, from_stream, to_stream
from serve_app.openai.sse import DONE, event, payloads

USAGE = {"prompt_tokens": 3, "total_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 0}}
TRAPS = ["data: [DONE]\n\n", "\n\n", '"choices":[]', "é\u2028😀", "\x00", '"}', "index"]

texts = st.lists(st.text(max_size=5) | st.sampled_from(TRAPS), max_size=4).map("".join)
words = st.lists(st.text(min_size=1, max_size=5) | st.sampled_from(TRAPS), min_size=1, max_size=4)
numbers = st.floats(-20, 0)
tool_calls = st.lists(
    st.builds(
        lambda call_id, name, arguments: {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}},
        st.text(min_size=1, max_size=5),
        st.text(min_size=1, max_size=5),
        texts,
    ),
    min_size=1,
    max_size=3,
)
token_logprob = st.builds(
    lambda token, value: {"token": token, "logprob": value, "bytes": list(token.encode()), "top_logprobs": []}, texts, numbers
)
chat_logprobs = st.builds(lambda tokens: {"content": tokens}, st.lists(token_logprob, max_size=4))


@st.composite
def text_logprobs(draw: st.DrawFn) -> dict[str, Any]:
    tokens = draw(words)
    top = [{token: draw(numbers)} for token in tokens]
    return {"text_offset": [0] * len(tokens), "token_logprobs": [draw(numbers) for _ in tokens], "tokens": tokens, "top_logprobs": top}


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": draw(texts), "refusal": None}
    if draw(st.booleans()):
        message["reasoning"] = "".join(draw(words))
    if draw(st.booleans()):
        message["tool_calls"] = draw(tool_calls)
    return message


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    """A whole answer without what belongs to one response, with the fields that vLLM gives it."""
    chat = draw(st.booleans())
    choices: list[dict[str, Any]] = []
    for index in range(draw(st.integers(1, 3))):
        says = {"message": draw(messages())} if chat else {"text": draw(texts)}
        logprobs = draw(st.none() | (chat_logprobs if chat else text_logprobs()))
        reasons = {"finish_reason": draw(st.sampled_from(["stop", "length"])), "stop_reason": draw(st.none() | texts | st.integers())}
        choices.append({"index": index, **says, "logprobs": logprobs, **reasons})
    says = {"system_fingerprint": "vllm-1"} if draw(st.booleans()) else {}
    return {"object": "chat.completion" if chat else "text_completion", "model": "m", **says, "choices": choices, "usage": USAGE}


def as_engine_stream(answer: dict[str, Any]) -> bytes:
    """The answer as vLLM streams it: a character at a time, the choices in turn, the usage at the end."""
    chat = answer["object"] == "chat.completion"
    head = {"id": "x", "object": "chat.completion.chunk" if chat else "text_completion", "created": 1, "model": answer["model"]}
    streams = [list(_chat_chunks(choice) if chat else _text_chunks(choice)) for choice in answer["choices"]]
    rounds = range(max(map(len, streams)))
    chunks = [stream[i] for i in rounds for stream in streams if i < len(stream)]
    events = [event({**head, "choices": [chunk], "usage": None}) for chunk in chunks]
    return b"".join([*events, event({**head, "choices": [], "usage": answer["usage"], **_fingerprint(answer)}), DONE])


def _fingerprint(answer: dict[str, Any]) -> dict[str, str]:
    return {"system_fingerprint": answer["system_fingerprint"]} if "system_fingerprint" in answer else {}


def _chat_chunks(choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
    message, open_end = choice["message"], {"index": choice["index"], "logprobs": None, "finish_reason": None}
    yield {**open_end, "delta": {"role": message["role"], "content": ""}}
    for character in message.get("reasoning", ""):
        yield {**open_end, "delta": {"reasoning": character}}
    for number, call in enumerate(message.get("tool_calls", [])):
        function = {"name": call["function"]["name"], "arguments": ""}
        yield {**open_end, "delta": {"tool_calls": [{"index": number, "id": call["id"], "type": "function", "function": function}]}}
        for character in call["function"]["arguments"]:
            yield {**open_end, "delta": {"tool_calls": [{"index": number, "function": {"arguments": character}}]}}
    for character in message["content"]:
        yield {**open_end, "delta": {"content": character}}
    if choice["logprobs"] is not None:
        yield {**open_end, "delta": {"content": ""}, "logprobs": {"content": []}}
        for token in choice["logprobs"]["content"]:
            yield {**open_end, "delta": {"content": ""}, "logprobs": {"content": [token]}}
    yield {**open_end, "delta": {"content": ""}, "finish_reason": choice["finish_reason"], "stop_reason": choice["stop_reason"]}


def _text_chunks(choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
    open_end = {"index": choice["index"], "text": "", "logprobs": None, "finish_reason": None, "stop_reason": None}
    for character in choice["text"]:
        yield {**open_end, "text": character}
    if choice["logprobs"] is not None:
        for i in range(len(choice["logprobs"]["tokens"])):
            yield {**open_end, "logprobs": {key: [values[i]] for key, values in choice["logprobs"].items()}}
    yield {**open_end, "finish_reason": choice["finish_reason"], "stop_reason": choice["stop_reason"]}


def to_json(answer: dict[str, Any], response_id: str, created: int) -> bytes:
    """As an engine answers that does not stream."""
    return msgspec.json.encode({"id": response_id, "created": created, **answer})


@given(answers())
def test_a_streamed_answer_is_the_whole_one(answer: dict[str, Any]) -> None:
    whole = from_json(to_json(answer, "chatcmpl-1", 7))
    assert whole == answer
    assert from_stream(as_engine_stream(answer)) == whole


@given(answers())
def test_a_replayed_stream_holds_the_answer(answer: dict[str, Any]) -> None:
    assert from_stream(to_stream(answer, "chatcmpl-1", 7, include_usage=True)) == answer


@given(answers(), st.booleans())
def test_a_replayed_stream_is_framed_as_a_fresh_one(answer: dict[str, Any], include_usage: bool) -> None:
    raw = to_stream(answer, "chatcmpl-1", 7, include_usage)
    assert raw.endswith(DONE)
    chunks = [msgspec.json.decode(payload) for payload in payloads(raw) if payload != b"[DONE]"]
    kind = "chat.completion.chunk" if answer["object"] == "chat.completion" else "text_completion"
    assert {(chunk["id"], chunk["created"], chunk["object"], chunk["model"]) for chunk in chunks} == {("chatcmpl-1", 7, kind, "m")}
    assert [chunk for chunk in chunks if not chunk["choices"]] == ([chunks[-1]] if include_usage else [])
    assert chunks[-1].get("usage") == (USAGE if include_usage else None)
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert sum(1 for choice in choices if choice["finish_reason"]) == len(answer["choices"])
    if kind != "text_completion":
        first = {choice["index"]: choice["delta"] for choice in reversed(choices)}
        assert all(delta == {"role": "assistant", "content": ""} for delta in first.values())


WHOLE: dict[str, Any] = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": USAGE,
}


def changed(**change: Any) -> bytes:
    return msgspec.json.encode({**WHOLE, **change})


def test_fields_of_the_response_and_of_the_engine_are_not_kept() -> None:
    raw = changed(prompt_logprobs=[1], prompt_token_ids=[1], kv_transfer_params={"x": 1}, system_fingerprint=None, service_tier="auto")
    answer = from_json(raw)
    assert answer
    assert answer == {**{key: value for key, value in WHOLE.items() if key not in ("id", "created")}, "service_tier": "auto"}


NOT_COMPLETE = {
    "no JSON": b'{"choices": [',
    "not an object": b"[]",
    "no choices": changed(choices=[]),
    "choices missing": changed(choices=None),
    "no usage": changed(usage=None),
    "an error": changed(error={"message": "x"}),
    "no finish reason": changed(choices=[{**WHOLE["choices"][0], "finish_reason": None}]),
    "one of two without a finish reason": changed(choices=[WHOLE["choices"][0], {**WHOLE["choices"][0], "finish_reason": None}]),
    "aborted by the engine": changed(choices=[{**WHOLE["choices"][0], "finish_reason": "abort"}]),
    "failed in the engine": changed(choices=[{**WHOLE["choices"][0], "finish_reason": "error"}]),
}


@pytest.mark.parametrize("raw", NOT_COMPLETE.values(), ids=NOT_COMPLETE.keys())
def test_a_response_that_is_no_complete_answer(raw: bytes) -> None:
    assert from_json(raw) is None


def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return event({"id": "x", "object": "chat.completion.chunk", "choices": [choice]})


SAID, END, COUNTED = chunk({"content": "Hi"}), chunk({}, "stop"), event({"choices": [], "usage": USAGE})
NOT_COMPLETE_STREAMS = {
    "nothing": b"",
    "only the end": DONE,
    "broken off": SAID,
    "broken off at the last byte": (SAID + END + COUNTED + DONE)[:-1],
    "no finish reason": SAID + COUNTED + DONE,
    "no usage": SAID + END + DONE,
    "an error": SAID + event({"error": {"message": "x"}}) + DONE,
    "an error after the finish reason": SAID + END + COUNTED + event({"error": {"message": "x"}}) + DONE,
    "aborted by the engine": SAID + chunk({}, "abort") + COUNTED + DONE,
    "failed in the engine": SAID + chunk({}, "error") + COUNTED + DONE,
    "no JSON": SAID + b"data: {\n\n" + END + COUNTED + DONE,
    "not an object": SAID + b"data: []\n\n" + END + COUNTED + DONE,
}


def test_the_streams_below_lack_only_what_they_are_named_after() -> None:
    assert from_stream(SAID + END + COUNTED + DONE)


@pytest.mark.parametrize("raw", NOT_COMPLETE_STREAMS.values(), ids=NOT_COMPLETE_STREAMS.keys())
def test_a_stream_that_is_no_complete_answer(raw: bytes) -> None:
    assert from_stream(raw) is None


def test_tool_calls_in_pieces_and_out_of_order() -> None:
    def part(index: int, arguments: str, **head: Any) -> bytes:
        return chunk({"tool_calls": [{"index": index, **head, "function": {**head.pop("named", {}), "arguments": arguments}}]})

    raw = b"".join(
        [
            chunk({"role": "assistant", "content": None}),
            part(1, '{"b"', id="c1", type="function", named={"name": "second"}),
            part(0, "", id="c0", type="function", named={"name": "first"}),
            part(1, ": 1}"),
            part(0, "{}"),
        ]
    )
    answer = from_stream(raw + chunk({}, "tool_calls") + COUNTED + DONE)
    assert answer
    message = answer["choices"][0]["message"]
    assert message["content"] is None
    assert [(call["id"], call["type"], call["function"]["name"], call["function"]["arguments"]) for call in message["tool_calls"]] == [
        ("c0", "function", "first", "{}"),
        ("c1", "function", "second", '{"b": 1}'),
    ]
    assert not any("index" in call for call in message["tool_calls"])


def test_an_answer_without_text_is_replayed_with_its_tool_calls() -> None:
    call = {"id": "c0", "type": "function", "function": {"name": "search", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}
    answer = from_json(changed(choices=[{"index": 0, "message": message, "finish_reason": "tool_calls"}]))
    assert answer
    replayed = from_stream(to_stream(answer, "x", 1, include_usage=True))
    assert replayed
    assert replayed["choices"][0]["message"]["tool_calls"] == [call]
    assert replayed["choices"][0]["finish_reason"] == "tool_calls"


def test_a_token_that_is_called_index_does_not_merge_its_neighbours() -> None:
    def logprobs(value: float) -> bytes:
        choice = {
            "index": 0,
            "text": "index",
            "logprobs": {"tokens": ["index"], "top_logprobs": [{"index": value}]},
            "finish_reason": "stop",
        }
        return event({"object": "text_completion", "choices": [choice]})

    answer = from_stream(logprobs(-0.5) + logprobs(-0.5) + COUNTED + DONE)
    assert answer
    assert answer["choices"][0]["logprobs"] == {"tokens": ["index"] * 2, "top_logprobs": [{"index": -0.5}] * 2}
