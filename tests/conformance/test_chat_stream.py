"""POST /v1/chat/completions with stream: server-sent events, chunks, their order, the usage."""

from typing import Any

import httpx
import pytest
from openai.types.chat import ChatCompletionChunk

from tests.conformance.conftest import Post
from tests.conformance.shapes import ERROR_FIELDS, chat_answer, chat_chunks, check_usage, error_of, events
from tests.e2e.system import System

KEPT = pytest.mark.parametrize("kept", [False, True], ids=["computed", "kept"])


def asked_again(ask: Post, kept: bool, **fields: Any) -> httpx.Response:
    """The answer as an engine streams it, or as it is replayed."""
    response = ask(**fields)
    if not kept:
        return response
    response = ask(**fields)
    assert response.headers["x-mygo-cache"] == "exact"
    return response


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


@KEPT
def test_chunks_join_to_the_whole_answer(ask: Post, kept: bool) -> None:
    chunks = chat_chunks(asked_again(ask, kept, stream=True))
    assert text_of(chunks) == chat_answer(ask(cache={"mode": "off"})).choices[0].message.content


@KEPT
def test_the_role_stands_in_the_first_chunk_only(ask: Post, kept: bool) -> None:
    chunks = chat_chunks(asked_again(ask, kept, stream=True))
    assert [chunk.choices[0].delta.role for chunk in chunks] == ["assistant"] + [None] * (len(chunks) - 1)
    assert chunks[0].choices[0].delta.content == ""


@KEPT
def test_only_the_last_chunk_has_a_finish_reason(ask: Post, kept: bool) -> None:
    chunks = chat_chunks(asked_again(ask, kept, stream=True, max_tokens=4, ignore_eos=True))
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]


@KEPT
def test_usage_comes_last_if_it_is_asked_for_and_null_before(ask: Post, kept: bool) -> None:
    response = asked_again(ask, kept, stream=True, stream_options={"include_usage": True})
    raw = events(response.text)
    assert raw[-1]["choices"] == []
    assert [chunk["usage"] for chunk in raw[:-1]] == [None] * (len(raw) - 1)
    chunks = chat_chunks(response)
    check_usage(chunks[-1].usage)
    assert all(chunk.choices for chunk in chunks[:-1])


@KEPT
@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}], ids=["no options", "empty options", "false"])
def test_no_usage_unless_it_is_asked_for(ask: Post, kept: bool, options: Any) -> None:
    chunks = chat_chunks(asked_again(ask, kept, stream=True, stream_options=options))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_obfuscation_may_be_turned_off(ask: Post) -> None:
    assert chat_chunks(ask(stream=True, stream_options={"include_obfuscation": False}))


def test_stream_options_need_a_stream(ask: Post) -> None:
    error_of(ask(stream_options={"include_usage": True}), 400, "stream_options")


@KEPT
def test_each_of_n_choices_is_a_stream(ask: Post, kept: bool) -> None:
    chunks = chat_chunks(asked_again(ask, kept, stream=True, n=3, max_tokens=4, ignore_eos=True))
    for index in range(3):
        mine = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
        assert mine[0].delta.role == "assistant"
        assert [choice.finish_reason for choice in mine] == [None] * (len(mine) - 1) + ["length"]


@KEPT
def test_logprobs_come_with_their_text(ask: Post, real: System, kept: bool) -> None:
    chunks = chat_chunks(asked_again(ask, kept, stream=True, logprobs=True, top_logprobs=2, max_tokens=5, ignore_eos=True))
    tokens = [each for chunk in chunks for choice in chunk.choices if choice.logprobs for each in choice.logprobs.content or []]
    assert len(tokens) == 5
    assert "".join(each.token for each in tokens) == text_of(chunks)
    assert all(len(each.top_logprobs) == 2 for each in tokens)


def test_a_refusal_is_an_error_and_no_stream(ask: Post) -> None:
    error_of(ask(stream=True, temperature=3), 400, "temperature")


def test_a_refusal_of_the_engine_is_an_error_of_ours_in_the_stream(ask: Post, real: System) -> None:
    """vLLM finds it out when the stream has begun."""
    (body,) = events(ask(stream=True, logit_bias={"999999999": 1}).text)
    assert set(body["error"]) == ERROR_FIELDS
    assert (body["error"]["type"], body["error"]["param"]) == ("invalid_request_error", "logit_bias")
    assert "999999999" not in body["error"]["message"]


def test_a_stop_is_not_streamed(ask: Post) -> None:
    whole = chat_answer(ask(max_tokens=24, ignore_eos=True)).choices[0].message.content or ""
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    chunks = chat_chunks(ask(stream=True, max_tokens=24, ignore_eos=True, stop=stop))
    assert text_of(chunks) == whole[: whole.index(stop)]
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_bytes_of_a_character_are_never_torn(ask: Post) -> None:
    """A chunk is JSON in UTF-8: tokens that are parts of a character come together."""
    response = ask(stream=True, max_tokens=48, ignore_eos=True, messages=[{"role": "user", "content": "写一句关于缓存的话。\U0001f642"}])
    assert response.content.decode()
    chat_chunks(response)
