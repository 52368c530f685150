"""Which parts of a request decide its answer, and which two requests may share one."""

import json
from typing import Any

import pytest

from cache.keys import exact_key, fingerprint
from serve_app.errors import InvalidRequestError
from serve_app.openai.keys import is_cacheable, key_material, last_question, question_of
from serve_app.openai.requests import parse_chat, parse_completion

USER = {"role": "user", "content": "What is a cache?"}
SYSTEM = {"role": "system", "content": "Be brief."}
EARLIER = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
TOOL = {"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}
CHAT: dict[str, Any] = {"model": "m", "messages": [USER]}
MAX_CHARS = 100


def key_of(**change: Any) -> str:
    return exact_key("n", "chat", key_material(parse_chat(json.dumps({**CHAT, **change}).encode())))


def partition_of(**change: Any) -> str:
    question = question_of(parse_chat(json.dumps({**CHAT, **change}).encode()), MAX_CHARS)
    assert question
    return fingerprint(question.rest)


def is_eligible(**change: Any) -> bool:
    return question_of(parse_chat(json.dumps({**CHAT, **change}).encode()), MAX_CHARS) is not None


NOT_THE_ANSWER: list[dict[str, Any]] = [
    {"stream": True},
    {"stream": True, "stream_options": {"include_usage": True}},
    {"cache": {"mode": "refresh", "ttl_s": 5}},
    {"user": "somebody"},
    {"metadata": {"run": "7"}},
    {"store": True},
    {"priority": 3},
    {"request_id": "r"},
    {"service_tier": "flex"},
    {"safety_identifier": "s"},
    {"prompt_cache_key": "k"},
    {"temperature": None, "tools": None},
]


@pytest.mark.parametrize("change", NOT_THE_ANSWER, ids=str)
def test_fields_that_do_not_decide_the_answer(change: dict[str, Any]) -> None:
    assert key_of(**change) == key_of()
    assert partition_of(**change) == partition_of()


THE_ANSWER: list[dict[str, Any]] = [
    {"model": "other"},
    {"max_tokens": 5},
    {"max_completion_tokens": 5},
    {"temperature": 0},
    {"temperature": 0.5},
    {"top_p": 0.5},
    {"top_k": 3},
    {"min_p": 0.1},
    {"seed": 1},
    {"stop": ["x"]},
    {"stop": "x"},
    {"frequency_penalty": 1},
    {"presence_penalty": 1},
    {"repetition_penalty": 1.2},
    {"logit_bias": {"5": 1}},
    {"cache_salt": "s"},
    {"tools": [TOOL]},
    {"tools": [TOOL], "tool_choice": "none"},
    {"response_format": {"type": "json_object"}},
    {"reasoning_effort": "low"},
    {"chat_template_kwargs": {"enable_thinking": False}},
    {"a_field_of_tomorrow": 1},
    {"messages": [SYSTEM, USER]},
    {"messages": [{**SYSTEM, "role": "developer"}, USER]},
    {"messages": [*EARLIER, USER]},
    {"messages": [{**USER, "name": "ann"}]},
]


def test_fields_that_decide_the_answer_give_each_request_a_key_and_a_partition_of_its_own() -> None:
    changes = [{}, *THE_ANSWER]
    assert len({key_of(**change) for change in changes}) == len(changes)
    assert len({partition_of(**change) for change in changes}) == len(changes)


OTHERS_ANSWERS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "What is a cache"}]},
    {"messages": [{"role": "user", "content": "What is a cache? "}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is a cache?"}]}]},
    {"n": 2},
    {"logprobs": True},
]


@pytest.mark.parametrize("change", OTHERS_ANSWERS, ids=str)
def test_another_wording_or_form_of_answer_is_another_key(change: dict[str, Any]) -> None:
    assert key_of(**change) != key_of()


def test_chat_and_text_completions_have_different_keys() -> None:
    body = {"model": "m", "messages": [USER], "prompt": "x"}
    raw = json.dumps(body).encode()
    chat, text = parse_chat(raw), parse_completion(raw)
    assert exact_key("n", chat.kind, key_material(chat)) != exact_key("n", text.kind, key_material(text))


def test_only_the_words_of_the_last_user_message_may_differ_within_a_partition() -> None:
    other = {"role": "user", "content": "Explain caches."}
    assert partition_of(messages=[SYSTEM, *EARLIER, other]) == partition_of(messages=[SYSTEM, *EARLIER, USER])
    assert partition_of(messages=[SYSTEM, *EARLIER, other]) != partition_of(messages=[other, SYSTEM, *EARLIER, USER])
    earlier_differs = [{"role": "user", "content": "Hallo"}, EARLIER[1], USER]
    assert partition_of(messages=earlier_differs) != partition_of(messages=[*EARLIER, USER])


def test_a_question_is_the_last_user_message() -> None:
    question = question_of(parse_chat(json.dumps({**CHAT, "messages": [SYSTEM, *EARLIER, USER]}).encode()), MAX_CHARS)
    assert question
    assert question.text == USER["content"]
    assert question.text not in json.dumps(question.rest)


def summary_of(*messages: dict[str, Any], **change: Any) -> tuple[str, str]:
    """Text and fingerprint of a dialogue that is summed up."""
    question = question_of(parse_chat(json.dumps({**CHAT, "messages": list(messages), **change}).encode()), MAX_CHARS, "summary")
    assert question
    return question.text, fingerprint(question.rest)


def said(text: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": text}


def test_a_dialogue_may_be_summed_up() -> None:
    one = summary_of(SYSTEM, said("I have a cat."), said("How nice!", "assistant"), said("What does it eat?"))
    other = summary_of(SYSTEM, said("I own a cat."), said("Lovely.", "assistant"), said("What does it eat?"))
    assert one[0] == "I have a cat.\nWhat does it eat?"
    assert (one[0] != other[0], one[1]) == (True, other[1])


def test_what_the_summary_leaves_out_must_be_equal() -> None:
    last, answer = said("What does it eat?"), said("How nice!", "assistant")
    dialogue = [said("I have a cat."), answer, last]
    assert summary_of(*dialogue)[1] != summary_of(SYSTEM, *dialogue)[1]
    assert summary_of(*dialogue)[1] != summary_of(*dialogue, temperature=0)[1]
    assert summary_of(*dialogue)[1] != summary_of(said("Hello"), answer, *dialogue)[1]
    assert summary_of(last)[1] == partition_of()
    assert summary_of(*dialogue)[1] != partition_of()


@pytest.mark.parametrize(
    "history",
    [
        [{"role": "user", "content": [{"type": "text", "text": "I have a cat."}]}, said("Nice", "assistant")],
        [said("I have a cat."), {"role": "assistant", "content": None, "tool_calls": []}],
        [said("I have a cat."), {"role": "tool", "content": "4", "tool_call_id": "c"}],
        [{**said("I have a cat."), "name": "bob"}, said("Nice", "assistant")],
        [said("x" * MAX_CHARS), said("Nice", "assistant")],
    ],
)
def test_a_history_that_cannot_be_summed_up_is_compared_as_it_is(history: list[dict[str, Any]]) -> None:
    text, partition = summary_of(*history, USER)
    question = question_of(parse_chat(json.dumps({**CHAT, "messages": [*history, USER]}).encode()), MAX_CHARS)
    assert question
    assert (text, partition) == (question.text, fingerprint(question.rest))


NOT_ELIGIBLE: list[dict[str, Any]] = [
    {"n": 2},
    {"logprobs": True},
    {"logprobs": True, "top_logprobs": 3},
    {"prompt_logprobs": 1},
    {"retrieval": {"vector_store_ids": ["vs"]}},
    {"messages": [USER, {"role": "assistant", "content": "A cache"}]},
    {"messages": [USER, {"role": "tool", "content": "4", "tool_call_id": "c"}]},
    {"messages": [SYSTEM]},
    {"messages": [{"role": "user", "content": ""}]},
    {"messages": [{"role": "user", "content": " \n"}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is a cache?"}]}]},
    {"messages": [{"role": "user", "content": "x" * (MAX_CHARS + 1)}]},
]


@pytest.mark.parametrize("change", NOT_ELIGIBLE, ids=lambda change: str(change)[:60])
def test_requests_whose_answer_is_for_them_alone(change: dict[str, Any]) -> None:
    assert not is_eligible(**change)


ELIGIBLE: list[dict[str, Any]] = [
    {},
    {"n": 1},
    {"logprobs": False},
    {"tools": [TOOL]},
    {"messages": [{"role": "user", "content": "x" * MAX_CHARS}]},
]


@pytest.mark.parametrize("change", ELIGIBLE, ids=lambda change: str(change)[:60])
def test_requests_that_another_answer_may_serve(change: dict[str, Any]) -> None:
    assert is_eligible(**change)


@pytest.mark.parametrize("change", [{"prompt_logprobs": 1}, {"return_token_ids": True}, {"return_tokens_as_token_ids": True}], ids=str)
def test_requests_for_what_a_kept_answer_lacks_are_not_cacheable(change: dict[str, Any]) -> None:
    assert is_cacheable(parse_chat(json.dumps(CHAT).encode()))
    assert not is_cacheable(parse_chat(json.dumps({**CHAT, **change}).encode()))


def test_text_completions_are_not_eligible() -> None:
    assert question_of(parse_completion(b'{"model": "m", "prompt": "What is a cache?"}'), MAX_CHARS) is None


def test_documents_are_searched_for_by_the_last_user_text() -> None:
    parts = [{"type": "text", "text": "What is"}, {"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "this?"}]
    assert last_question([USER, {"role": "assistant", "content": "A cache"}]) == USER["content"]
    assert last_question([USER, {"role": "user", "content": parts}]) == "What is\nthis?"


WITHOUT_A_TEXT: list[list[dict[str, Any]]] = [
    [SYSTEM],
    [{"role": "user"}],
    [{"role": "user", "content": "  "}],
    [{"role": "user", "content": []}],
    [{"role": "user", "content": [{"type": "text", "text": 5}, {"type": "text"}, {"text": "x"}]}],
]


@pytest.mark.parametrize("messages", WITHOUT_A_TEXT, ids=str)
def test_documents_cannot_be_searched_for_without_a_text(messages: list[dict[str, Any]]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        last_question(messages)
    assert caught.value.param == "messages"


SCHEMA: dict[str, Any] = {"type": "object", "properties": {"why": {"type": "string"}, "answer": {"const": 1}}}


def test_the_order_of_members_counts_where_it_reaches_the_engine() -> None:
    """A grammar has an answer's members in the order of its schema, and a template writes tools as they come."""
    turned = {**SCHEMA, "properties": {"answer": {"const": 1}, "why": {"type": "string"}}}
    assert key_of(structured_outputs={"json": SCHEMA}) != key_of(structured_outputs={"json": turned})
    formats = [{"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}} for schema in (SCHEMA, turned)]
    assert key_of(response_format=formats[0]) != key_of(response_format=formats[1])
    assert key_of(temperature=0, seed=1) == key_of(seed=1, temperature=0)
