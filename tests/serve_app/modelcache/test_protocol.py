"""Requests in all their encodings, and what cannot be read."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from serve_app.modelcache import bodies
from serve_app.modelcache.bodies import Response
from serve_app.modelcache.protocol import (
    MAX_IDS,
    MAX_MODEL_CHARS,
    MAX_ROWS,
    Delete,
    Head,
    Insert,
    NotJsonError,
    Query,
    Refusal,
    Register,
    Request,
    Truncate,
    decode,
    read_head,
    read_request,
)
from tests.serve_app.modelcache.asking import ANSWER, CANARY, MODEL, delete, dialog, insert, query, query_body, request, truncate

UNKNOWN_TYPE = "type exception, should one of ['query', 'insert', 'remove', 'register']"


def read(payload: object, blocked: tuple[str, ...] = ()) -> Request:
    return read_request(read_head(payload), blocked)


def refusal_of(payload: object, blocked: tuple[str, ...] = ()) -> Response:
    with pytest.raises(Refusal) as refused:
        read(payload, blocked)
    assert CANARY not in json.dumps(refused.value.response[1])
    return refused.value.response


# Encodings

ENCODINGS: dict[str, Callable[[object], object]] = {
    "object": lambda value: value,
    "string": json.dumps,
    "string in a string": lambda value: json.dumps(json.dumps(value)),
    "body": lambda value: json.dumps(value).encode(),
    "body that is a string": lambda value: json.dumps(json.dumps(value)).encode(),
    "body that is a string in a string": lambda value: json.dumps(json.dumps(json.dumps(value))).encode(),
    "body in UTF-8": lambda value: json.dumps(value, ensure_ascii=False).encode(),
}


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS.keys())
@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (query("你是谁?"), Query(dialog("你是谁?"))),
        (insert("a", "b"), Insert([(dialog("a"), ANSWER), (dialog("b"), ANSWER)])),
        (delete(["x", "y"]), Delete(["x", "y"])),
        (truncate(), Truncate()),
        (request("register"), Register()),
    ],
)
def test_every_request_in_every_encoding(encode: Callable[[object], object], payload: dict[str, Any], expected: Request) -> None:
    assert read_head(encode(payload)) == Head(payload["type"], MODEL, payload)
    assert read(encode(payload)) == expected


@pytest.mark.parametrize("body", [b"", b"{", b"hello", b'{"type": "query"', b"\xff\xfe", b'"\\ud800"', b"[1e999]", b"{'type': 'query'}"])
def test_a_body_that_is_no_json(body: bytes) -> None:
    assert refusal_of(body) == (400, query_body(400, "bad request"))


DEEP = b"[" * 65 + b"]" * 65


@pytest.mark.parametrize("raw", [DEEP, b"[" * 100_000, b'{"a":' * 65 + b"1" + b"}" * 65, b"1" * 10_000])
def test_json_beyond_limits_is_none(raw: bytes) -> None:
    with pytest.raises(NotJsonError):
        decode(raw)


def test_nested_json_up_to_the_limit() -> None:
    assert decode(b"[" * 64 + b"]" * 64)


@pytest.mark.parametrize(
    "payload",
    [
        None,
        7,
        0.5,
        True,
        [],
        [CANARY],
        "",
        CANARY,
        "[]",
        "{",
        "\ud800",
        b"[]",
        b"null",
        b'"hello"',
        {"query": json.loads(b"[" * 64 + b"]" * 64)},
    ],
)
def test_json_that_is_no_request(payload: object) -> None:
    status, body = refusal_of(payload)
    assert (status, body["errorCode"], body["delta_time"]) == (200, 103, 0)
    assert body == query_body(103, "The request must be a JSON object, or a string that contains one.")


# What all requests have


@pytest.mark.parametrize("kind", ["missing", None, "", "detox", "QUERY", CANARY, 7, ["query"], {}])
def test_an_unknown_type(kind: object) -> None:
    payload = {**query(), "type": kind}
    if kind == "missing":
        del payload["type"]
    assert refusal_of(payload) == (200, query_body(102, UNKNOWN_TYPE))


@pytest.mark.parametrize("kind", ["query", "insert", "remove", "register", "detox"])
@pytest.mark.parametrize("scope", [{}, {"model": None}, {"model": 7}, {"model": [CANARY]}, CANARY, [], 0])
def test_a_scope_that_cannot_be_read(kind: str, scope: object) -> None:
    assert refusal_of({"type": kind, "scope": scope}) == (200, query_body(103, "scope.model must be a string."))


def test_a_long_model() -> None:
    assert read_head(query(model="m" * MAX_MODEL_CHARS)).model == "m" * MAX_MODEL_CHARS
    status, body = refusal_of(query(model="m" * (MAX_MODEL_CHARS + 1)))
    assert (status, body["errorCode"]) == (200, 103)


@pytest.mark.parametrize("model", ["gpt-4.1", "gpt_4.1", "gpt_4_1", " gpt-4.1", "模型", "a/b'; --"])
def test_a_models_name_is_taken_as_it_is(model: str) -> None:
    assert read_head(query(model=model)).model == model


def test_no_scope_is_the_empty_model() -> None:
    for scope in ({}, {"scope": None}, {"scope": {"model": ""}}, {"scope": {"model": " "}}):
        assert not read_head({"type": "query", **scope}).has_model


# Queries


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "user", "content": ""}],
        [{"role": "user"}],
        [{"content": "x"}],
        [{"role": None, "content": None}],
        [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}],
        [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
        [{"role": "user", "content": []}],
        [{"role": "user", "content": "x", "name": "Ann", "more": {"a": [1]}}],
    ],
)
def test_messages_reach_the_backend_as_they_are(messages: list[Any]) -> None:
    assert read(request("query", query=messages)) == Query(messages)
    assert read(request("insert", chat_info=[{"query": [*messages, *dialog()], "answer": "y"}])) == Insert([([*messages, *dialog()], "y")])


UNREADABLE_MESSAGES: list[tuple[object, str]] = [
    (None, " must be a list."),
    (CANARY, " must be a list."),
    ({"role": CANARY}, " must be a list."),
    ([CANARY], "[0] must be an object."),
    ([{"role": 7, "content": CANARY}], "[0].role must be a string."),
    ([*dialog(), {"role": "user", "content": 7}], "[2].content must be a string or a list of text parts."),
    ([{"role": "user", "content": {CANARY: 1}}], "[0].content must be a string or a list of text parts."),
    ([{"role": "user", "content": [CANARY]}], "[0].content must be a string or a list of text parts."),
    (
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": CANARY}}]}],
        "[0].content must be a string or a list of text parts.",
    ),
    ([{"role": "user", "content": [{"type": "text", "text": None}]}], "[0].content must be a string or a list of text parts."),
]


@pytest.mark.parametrize(("messages", "words"), UNREADABLE_MESSAGES)
def test_messages_that_cannot_be_read(messages: object, words: str) -> None:
    assert refusal_of(request("query", query=messages)) == (200, query_body(103, f"query{words}"))
    in_a_row = request("insert", chat_info=[{"query": dialog(), "answer": "y"}, {"query": messages, "answer": "y"}])
    assert refusal_of(in_a_row) == (200, {"errorCode": 301, "errorDesc": f"chat_info[1].query{words}", "writeStatus": "exception"})


def test_a_query_without_messages() -> None:
    assert refusal_of({"type": "query"}) == (200, query_body(103, "query must be a list."))


# Inserts


@pytest.mark.parametrize(
    ("chat_info", "words"),
    [
        (None, "chat_info must be a list."),
        ({"query": CANARY}, "chat_info must be a list."),
        ([CANARY], "chat_info[0] must be an object."),
        ([{"query": dialog()}], "chat_info[0].answer must be a string."),
        ([{"query": dialog(), "answer": [CANARY]}], "chat_info[0].answer must be a string."),
        ([{}] * (MAX_ROWS + 1), f"chat_info must have at most {MAX_ROWS} items."),
    ],
)
def test_rows_that_cannot_be_read(chat_info: object, words: str) -> None:
    expected = {"errorCode": 301, "errorDesc": words, "writeStatus": "exception"}
    assert refusal_of(request("insert", chat_info=chat_info)) == (200, expected)


@pytest.mark.parametrize(
    "blank", [{"query": dialog("\n    "), "answer": "y"}, {"query": dialog(), "answer": " "}, {"query": [], "answer": "y"}]
)
def test_blank_rows_are_skipped(blank: dict[str, Any]) -> None:
    kept = {"query": dialog(), "answer": "y"}
    assert read(request("insert", chat_info=[blank, kept, blank])) == Insert([None, (dialog(), "y"), None])
    words = "Nothing was kept: each row has a blank question or answer."
    expected = {"errorCode": 301, "errorDesc": words, "writeStatus": "exception"}
    assert refusal_of(request("insert", chat_info=[blank, blank])) == (200, expected)


def test_an_insert_of_no_rows() -> None:
    assert read(request("insert", chat_info=[])) == Insert([])


# Removals


def test_ids() -> None:
    assert read(delete(["a", 7, -1, 2**63 - 1])) == Delete(["a", "7", "-1", str(2**63 - 1)])
    assert read(request("remove", remove_type="delete_by_id")) == Delete([])


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (CANARY, "id_list must be a list."),
        (None, "id_list must be a list."),
        ([None], "id_list must hold strings."),
        ([True], "id_list must hold strings."),
        ([{CANARY: 1}], "id_list must hold strings."),
        ([10**5000], "id_list must hold strings."),
        (["x"] * (MAX_IDS + 1), f"id_list must have at most {MAX_IDS} items."),
    ],
)
def test_ids_that_cannot_be_read(ids: Any, words: str) -> None:
    expected = {"errorCode": 401, "errorDesc": words, "response": "The cache remove error", "removeStatus": "exception"}
    assert refusal_of(delete(ids)) == (200, expected)


@pytest.mark.parametrize("remove_type", [None, "", "delete", CANARY, 7, ["delete_by_id"]])
def test_an_unknown_remove_type(remove_type: object) -> None:
    expected = {"errorCode": 401, "errorDesc": "", "response": "The cache remove error", "removeStatus": "exception"}
    assert refusal_of(request("remove", remove_type=remove_type)) == (200, expected)
    assert refusal_of(request("remove")) == (200, expected)


# Blocked models


def test_a_blocked_model() -> None:
    words = f"model: {MODEL} in blacklist"
    assert refusal_of(query(), (MODEL,)) == (200, query_body(105, words))
    assert refusal_of(insert(), (MODEL,)) == (200, {"errorCode": 305, "errorDesc": words, "writeStatus": ""})
    assert read(truncate(), (MODEL,)) == Truncate()
    assert read(request("register"), (MODEL,)) == Register()
    assert read(query(model="CODEGPT_1008"), (MODEL,)) == Query(dialog())


# Times


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, "0.0s"), (-1.0, "0.0s"), (0.03, "0.03s"), (0.0349, "0.03s"), (0.3, "0.3s"), (12.0, "12.0s"), (1.239, "1.24s")],
)
def test_times(seconds: float, shown: str) -> None:
    assert bodies.query_answered(None, seconds)[1]["delta_time"] == shown
    assert bodies.query_failed("x", seconds)[1]["delta_time"] == shown
