"""What the ingress refuses before an engine sees it: the field is named, its value never repeated."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import QueryError
from retrieval.filters import EXAMPLE
from serve_app.errors import InvalidRequestError, to_api_error
from serve_app.openai.requests import (
    MAX_DEPTH,
    MAX_N,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Generation,
    Parser,
    parse_chat,
    parse_completion,
    parse_embedding,
    parse_object,
)

CANARY = "canary_7f3a9"
USER = {"role": "user", "content": "Hello"}
CHAT: dict[str, Any] = {"model": "m", "messages": [USER]}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "f"}}
TEXT: dict[str, Any] = {"model": "m", "prompt": "Hello"}


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def with_raw(member: str) -> bytes:
    """A chat request with one more member, which need not be JSON."""
    return encoded(CHAT)[:-1] + b", " + member.encode() + b"}"


def refusal(parse: Any, body: bytes) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        parse(body)
    error = caught.value
    assert error.status == 400
    assert error.body()["error"]["type"] == "invalid_request_error"
    assert CANARY not in json.dumps(error.body())
    assert error.__cause__ is None  # a traceback of the cause would quote the value
    return error


NOT_JSON_OBJECTS = {
    "nothing": b"",
    "half an object": b'{"model": "' + CANARY.encode(),
    "a bare word": CANARY.encode(),
    "invalid UTF-8": b'{"model": "\xff\xfe' + CANARY.encode() + b'"}',
    "UTF-16": f'{{"model": "{CANARY}"}}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + encoded(CHAT),
    "two objects": encoded(CHAT) * 2,
    "a list": encoded([CANARY]),
    "a string": encoded(CANARY),
    "null": b"null",
    "a lone surrogate in a value": with_raw(f'"user": "{CANARY}\\ud800"'),
    "a lone surrogate in a key": with_raw(f'"{CANARY}\\udfff": 1'),
    "an integer of thousands of digits": with_raw(f'"seed": {"9" * 5000}'),
    "a number beyond every float, unknown field": with_raw(f'"{CANARY}": 1e999'),
    "NaN below a known field": with_raw('"cache": {"ttl_s": NaN}'),
    "deep lists": with_raw(f'"x": {"[" * 10_000}{"]" * 10_000}'),
    "deep objects": with_raw('"x": ' + '{"x": ' * 10_000 + "1" + "}" * 10_000),
    "open lists": b"[" * 100_000,
}


@pytest.mark.parametrize("body", NOT_JSON_OBJECTS.values(), ids=NOT_JSON_OBJECTS.keys())
@pytest.mark.parametrize("parse", [parse_chat, parse_completion, parse_embedding])
def test_a_body_that_is_no_json_object_is_refused(parse: Any, body: bytes) -> None:
    error = refusal(parse, body)
    assert (error.param, error.code) == (None, "invalid_json")


BAD_SAMPLING: list[tuple[str | None, dict[str, Any]]] = [
    ("model", {"model": 5}),
    ("model", {"model": None}),
    ("max_tokens", {"max_tokens": 0}),
    ("max_tokens", {"max_tokens": -1}),
    ("max_tokens", {"max_tokens": 1.5}),
    ("max_tokens", {"max_tokens": True}),
    ("max_tokens", {"max_tokens": CANARY}),
    ("n", {"n": 0}),
    ("n", {"n": -1}),
    ("n", {"n": MAX_N + 1}),
    ("n", {"n": 10**30}),
    ("temperature", {"temperature": float("nan")}),
    ("temperature", {"temperature": float("inf")}),
    ("temperature", {"temperature": -float("inf")}),
    ("temperature", {"temperature": -0.01}),
    ("temperature", {"temperature": 2.01}),
    ("temperature", {"temperature": CANARY}),
    ("top_p", {"top_p": 0}),
    ("top_p", {"top_p": 1.01}),
    ("top_p", {"top_p": float("nan")}),
    ("frequency_penalty", {"frequency_penalty": 2.1}),
    ("presence_penalty", {"presence_penalty": -2.1}),
    ("seed", {"seed": CANARY}),
    ("stop", {"stop": 7}),
    ("stop", {"stop": [CANARY] * 17}),
    ("stop[1]", {"stop": [CANARY, 7]}),
    ("logit_bias", {"logit_bias": {CANARY: CANARY}}),
    ("user", {"user": [CANARY]}),
    ("stream", {"stream": CANARY}),
    ("stream", {"stream": 1}),
    ("stream_options", {"stream_options": {"include_usage": True}}),
    ("stream_options", {"stream_options": {}, "stream": False}),
    ("stream_options", {"stream_options": CANARY, "stream": True}),
    ("stream_options.include_usage", {"stream_options": {"include_usage": CANARY}, "stream": True}),
    ("cache_salt", {"cache_salt": ""}),
    ("cache_salt", {"cache_salt": CANARY * 100}),
    ("cache", {"cache": CANARY}),
    ("cache", {"cache": {f"{CANARY} of a kind": CANARY}}),
    ("cache.mode", {"cache": {"mode": CANARY}}),
    ("cache.ttl_s", {"cache": {"ttl_s": 0}}),
    ("cache.ttl_s", {"cache": {"ttl_s": CANARY}}),
    ("cache.tags[1]", {"cache": {"tags": [CANARY, f"{CANARY} "]}}),
    ("cache.tags[0]", {"cache": {"tags": [f"{CANARY}\n"]}}),
]
BAD_CHAT: list[tuple[str | None, dict[str, Any]]] = [
    ("messages", {"messages": None}),
    ("messages", {"messages": []}),
    ("messages", {"messages": CANARY}),
    ("messages", {"messages": {CANARY: CANARY}}),
    ("messages[1]", {"messages": [USER, CANARY]}),
    ("messages[0].role", {"messages": [{"content": CANARY}]}),
    ("messages[0].role", {"messages": [{"role": CANARY, "content": "x"}]}),
    ("messages[0].role", {"messages": [{"role": 7}]}),
    ("messages[0].content", {"messages": [{"role": "user", "content": 7}]}),
    ("messages[0].content[0]", {"messages": [{"role": "user", "content": [CANARY]}]}),
    ("max_completion_tokens", {"max_completion_tokens": 0}),
    ("logprobs", {"logprobs": 1}),
    ("top_logprobs", {"top_logprobs": 21}),
    ("tools", {"tools": CANARY}),
    ("tools[0]", {"tools": [CANARY]}),
    ("response_format", {"response_format": CANARY}),
    ("retrieval", {"retrieval": CANARY}),
    ("retrieval", {"retrieval": {"vector_store_ids": ["vs"], CANARY * 9: CANARY}}),
    ("retrieval.vector_store_ids", {"retrieval": {}}),
    ("retrieval.vector_store_ids", {"retrieval": {"vector_store_ids": []}}),
    ("retrieval.vector_store_ids", {"retrieval": {"vector_store_ids": [CANARY] * 11}}),
    ("retrieval.vector_store_ids[0]", {"retrieval": {"vector_store_ids": [7]}}),
    ("retrieval.top_k", {"retrieval": {"vector_store_ids": ["vs"], "top_k": 0}}),
    ("tools[1].type", {"tools": [{"type": "function"}, {"type": "file_search", "vector_store_ids": [CANARY]}]}),
    ("messages[1].content", {"messages": [USER, {"role": "user"}]}),
    ("messages[0].content", {"messages": [{"role": "tool", "tool_call_id": CANARY}]}),
    ("messages[0].content", {"messages": [{"role": "assistant", "name": CANARY}]}),
    ("messages[0].content", {"messages": [{"role": "user", "content": []}]}),
    ("messages[0].content[1].type", {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, {CANARY: 1}]}]}),
    ("messages[0].content[0].text", {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}),
    ("messages[0].tool_call_id", {"messages": [{"role": "tool", "content": CANARY}]}),
    ("top_logprobs", {"top_logprobs": 2}),
    ("logit_bias", {"logit_bias": {"5": 100.5}}),
    ("modalities", {"modalities": ["text", "audio"]}),
    ("audio", {"audio": {"voice": CANARY}}),
    ("functions", {"functions": [{"name": CANARY}]}),
    ("function_call", {"function_call": {"name": CANARY}}),
    ("web_search_options", {"web_search_options": {}}),
    ("tools", {"tools": []}),
    ("tools[0].type", {"tools": [{"function": {"name": "f"}}]}),
    ("tools[0].type", {"tools": [{"type": CANARY}]}),
    ("tools[0].function", {"tools": [{"type": "function"}]}),
    ("tools[0].function.name", {"tools": [{"type": "function", "function": {"name": f"{CANARY}!"}}]}),
    ("tools[0].function.parameters", {"tools": [{"type": "function", "function": {"name": "f", "parameters": CANARY}}]}),
    ("tool_choice", {"tool_choice": "required"}),
    ("tool_choice", {"tools": [TOOL], "tool_choice": CANARY}),
    ("tool_choice", {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": CANARY}}}),
    ("tool_choice.function", {"tools": [TOOL], "tool_choice": {"type": "function"}}),
    ("tool_choice.function.name", {"tools": [TOOL], "tool_choice": {"type": "function", "function": {}}}),
    ("parallel_tool_calls", {"parallel_tool_calls": CANARY}),
    ("response_format.type", {"response_format": {}}),
    ("response_format.type", {"response_format": {"type": CANARY}}),
    ("response_format.json_schema", {"response_format": {"type": "json_schema"}}),
    ("response_format.json_schema.name", {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}),
    ("response_format.json_schema.schema", {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": CANARY}}}),
]
BAD_TEXT: list[tuple[str | None, dict[str, Any]]] = [
    ("prompt", {"prompt": None}),
    ("prompt", {"prompt": []}),
    ("prompt", {"prompt": {CANARY: CANARY}}),
    ("logprobs", {"logprobs": True}),
    ("logprobs", {"logprobs": 21}),
    ("echo", {"echo": CANARY}),
    ("max_tokens", {"max_tokens": 0, "echo": False}),
    ("best_of", {"best_of": 2}),
    ("best_of", {"best_of": 1, "n": 2}),
    ("logit_bias", {"logit_bias": {CANARY: 1}}),
    ("prompt", {"prompt": [CANARY, 7]}),
    ("prompt", {"prompt": [[7], [CANARY]]}),
    ("prompt", {"prompt": [[7], []]}),
    ("prompt", {"prompt": [7, True]}),
    ("prompt", {"prompt": [7, -1]}),
    ("prompt", {"prompt": [[7, -1]]}),
    ("prompt", {"prompt": [None]}),
]
BAD_EMBEDDING: list[tuple[str | None, dict[str, Any]]] = [
    ("input", {"input": None}),
    ("input", {"input": ""}),
    ("input", {"input": []}),
    ("input", {"input": 7}),
    ("input", {"input": [7]}),
    ("input", {"input": [[7]]}),
    ("input[1]", {"input": ["a", {CANARY: 1}]}),
    ("input", {"input": [CANARY] * 2049}),
    ("encoding_format", {"encoding_format": CANARY}),
    ("dimensions", {"dimensions": 0}),
]
TABLE = [
    *((parse_chat, CHAT, *case) for case in BAD_SAMPLING + BAD_CHAT),
    *((parse_completion, TEXT, *case) for case in BAD_SAMPLING + BAD_TEXT),
    *((parse_embedding, {"model": "m", "input": "Hello"}, *case) for case in BAD_EMBEDDING),
]


def _name(case: Any) -> str:
    parse, _, _, change = case
    return f"{parse.__name__}-{str(change)[:60]}"


@pytest.mark.parametrize("case", TABLE, ids=_name)
def test_a_bad_field_is_named_and_its_value_is_not_repeated(case: tuple[Any, dict[str, Any], str, dict[str, Any]]) -> None:
    parse, good, param, change = case
    parse(encoded(good))
    error = refusal(parse, encoded({**good, **change}))
    assert error.param == param
    assert error.message.startswith(param)


@pytest.mark.parametrize("field", ["model", "messages"])
def test_a_missing_field_is_named(field: str) -> None:
    error = refusal(parse_chat, encoded({key: value for key, value in CHAT.items() if key != field}))
    assert (error.param, error.code) == (field, "missing_required_parameter")


@pytest.mark.parametrize(
    "body",
    [
        {**CHAT, "messages": [{"role": f"x - at `$.{CANARY}", "content": "x"}]},
        {**CHAT, "cache": {f"x - at `$.{CANARY}": 1}},
        {**CHAT, "cache": {"mode": f"' - at `$.{CANARY}`"}},
        {**CHAT, "cache": {f"Object missing required field `{CANARY}`": 1}},
        {**CHAT, "cache": {f"{CANARY}\n": 1}},
    ],
)
def test_a_value_that_looks_like_an_error_message_is_not_repeated(body: dict[str, Any]) -> None:
    assert refusal(parse_chat, encoded(body)).param in ("messages[0].role", "cache", "cache.mode")


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_none_is_named_if_the_field_is_known(word: str) -> None:
    error = refusal(parse_chat, with_raw(f'"top_p": {word}'))
    assert error.param == "top_p"


def test_nesting_up_to_the_limit_is_taken() -> None:
    def nested(levels: int) -> bytes:
        return with_raw(f'"x": {"[" * levels}{"]" * levels}')

    parse_chat(nested(MAX_DEPTH - 1))
    assert str(MAX_DEPTH) in refusal(parse_chat, nested(MAX_DEPTH)).message


def test_of_duplicate_keys_the_last_counts_for_the_check_and_for_the_engine() -> None:
    request = parse_chat(with_raw('"max_tokens": 0, "max_tokens": 7'))
    assert request.max_tokens == request.body["max_tokens"] == 7
    assert refusal(parse_chat, with_raw('"max_tokens": 7, "max_tokens": 0')).param == "max_tokens"


def test_a_chat_request_as_the_pipeline_sees_it() -> None:
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 9, "cache": {"mode": "exact", "ttl_s": 5}}
    request = parse_chat(encoded({**body, "stop": None, "an_engine_field": {"x": None}}))
    assert (request.kind, request.path, request.prompt_field, request.model) == ("chat", "/v1/chat/completions", "messages", "m")
    assert (request.stream, request.include_usage, request.max_tokens) == (True, True, 9)
    assert (request.cache.mode, request.cache.ttl_s, request.retrieval) == ("exact", 5, None)
    assert request.body == {**body, "an_engine_field": {"x": None}}


def test_a_completion_request_as_the_pipeline_sees_it() -> None:
    request = parse_completion(encoded({**TEXT, "prompt": [[1, 2]]}))
    assert (request.kind, request.path, request.prompt_field) == ("completion", "/v1/completions", "prompt")
    assert (request.stream, request.include_usage, request.cache.mode, request.retrieval) == (False, False, "on", None)


def test_the_newer_name_of_the_answer_length_counts() -> None:
    assert parse_chat(encoded({**CHAT, "max_tokens": 5, "max_completion_tokens": 6})).max_tokens == 6


def test_an_embedding_request() -> None:
    request = parse_embedding(encoded({"model": "m", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 8}))
    assert (request.model, request.input, request.encoding_format, request.dimensions) == ("m", ["a", "b"], "base64", 8)


FIELDS = sorted({field.name for kind in (ChatRequest, CompletionRequest) for field in msgspec.structs.fields(kind)})
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["user", "on", "m"])
KEYS = st.text() | st.sampled_from(["role", "content", "mode", "ttl_s", "top_k", "vector_store_ids", "include_usage", "type", "text"])
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8)


@given(st.sampled_from([(parse_chat, CHAT), (parse_completion, TEXT)]), st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3))
def test_any_value_of_any_field_gives_a_request_or_a_refusal(case: tuple[Parser, dict[str, Any]], change: dict[str, Any]) -> None:
    parse, good = case
    try:
        request = parse(encoded({**good, **change}))
    except InvalidRequestError as error:
        assert error.param is None or error.param.split(".")[0].split("[")[0] in FIELDS  # noqa: PT017  # not every value is refused
    else:
        assert isinstance(request, Generation)


@given(st.sampled_from(sorted({field.name for field in msgspec.structs.fields(EmbeddingRequest)})), VALUES)
def test_any_embedding_request_is_taken_or_refused(field: str, value: Any) -> None:
    try:
        parse_embedding(encoded({"model": "m", "input": "x", field: value}))
    except InvalidRequestError as error:
        assert error.status == 400  # noqa: PT017


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:0eE-.\\uDd8aN ', max_size=60).map(str.encode))
def test_any_bytes_are_an_object_or_refused(body: bytes) -> None:
    try:
        value = parse_object(body)
    except InvalidRequestError as error:
        assert error.code == "invalid_json" or error.param  # noqa: PT017
    else:
        assert isinstance(value, dict)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("cache", {"mode": CANARY}, "on, off, exact, refresh"),
        ("cache", {f"{CANARY}.": 1}, "mode, ttl_s, tags"),
        (
            "retrieval",
            {"vector_store_ids": ["x"], f"{CANARY}.": 1},
            "vector_store_ids, top_k, reorder, citations, filters, score_threshold",
        ),
        ("messages", [{"role": CANARY}], "system, developer, user, assistant, tool, function"),
    ],
)
def test_an_error_says_what_is_allowed(field: str, value: Any, allowed: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        parse_chat(json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], field: value}).encode())
    assert f"allowed: {', '.join(sorted(allowed.split(', ')))}" in raised.value.message or f"allowed: {allowed}." in raised.value.message
    assert CANARY not in raised.value.message


FOUND = {"vector_store_ids": ["vs"]}
OF_RETRIEVAL = "allowed: vector_store_ids, top_k, reorder, citations, filters, score_threshold"


@pytest.mark.parametrize(
    ("retrieval", "message"),
    [
        ({**FOUND, "topk": 3}, f"retrieval.topk is not known; {OF_RETRIEVAL}; did you mean top_k?"),
        ({**FOUND, "max_num_results": 3}, f"retrieval.max_num_results is not known; {OF_RETRIEVAL}; did you mean top_k?"),
        ({**FOUND, "ranking_options": {}}, f"retrieval.ranking_options is not known; {OF_RETRIEVAL}; did you mean score_threshold?"),
        ({**FOUND, "zebra": 3}, f"retrieval.zebra is not known; {OF_RETRIEVAL}."),
        ({**FOUND, "top_k": 0}, "retrieval.top_k must be at least 1."),
        ({**FOUND, "score_threshold": 2}, "retrieval.score_threshold must be at most 1."),
        ({"vector_store_ids": []}, "retrieval.vector_store_ids must have at least 1 item."),
        ({"vector_store_ids": ["vs"] * 11}, "retrieval.vector_store_ids must have at most 10 items."),
        ({**FOUND, "citations": "x"}, "retrieval.citations is not an allowed value; allowed: ids, labels, numbers."),
        ({**FOUND, "top_k": "x"}, "retrieval.top_k: Expected `int`, got `str`."),
        ({**FOUND, "filters": {"kind": "manual"}}, f"retrieval.filters.type is missing; for example {EXAMPLE}."),
    ],
)
def test_an_error_is_a_sentence_that_names_the_field(retrieval: Any, message: str) -> None:
    with pytest.raises((InvalidRequestError, QueryError)) as raised:
        parse_chat(encoded({**CHAT, "retrieval": retrieval}))
    assert to_api_error(raised.value).message == message


def test_the_tool_file_search_is_refused_with_what_there_is_instead() -> None:
    error = refusal(parse_chat, encoded({**CHAT, "tools": [{"type": "file_search"}]}))
    assert "by the field retrieval" in error.message
    parse_chat(encoded({**CHAT, "tools": [{"type": "function", "function": {"name": "file_search"}}]}))
