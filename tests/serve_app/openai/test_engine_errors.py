"""Errors as vLLM 0.32 words them, and what a client is told."""

import json
from typing import Any

import pytest

from serve_app.errors import ApiError, InvalidRequestError, NotFoundError, UnavailableError, UpstreamError
from serve_app.openai.engine_errors import ContextLengthError, from_engine, in_stream
from serve_app.openai.sse import DONE, event

CANARY = "canary_7f3a9"
TOO_MANY_CHARACTERS = (
    "This model's maximum context length is 8192 tokens. However, your prompt contains 300000 characters (more than 65536 characters, "
    "which is the upper bound for 8192 input tokens). Please reduce the length of the input prompt. (parameter=input_text, value=300000)"
)
TOO_MANY_TOKENS = (
    "This model's maximum context length is 8192 tokens. However, your prompt contains 9000 input tokens, which exceeds this limit even "
    "without any output tokens. Please reduce the length of the input prompt. (parameter=input_tokens, value=9000)"
)
AT_LEAST_SO_MANY = TOO_MANY_TOKENS.replace("9000 input", "at least 8193 input")


def told(status: int, message: str, param: str | None = None, prompt_field: str = "messages") -> ApiError:
    raw = json.dumps({"error": {"message": message, "type": "BadRequestError", "param": param, "code": status}})
    return from_engine(status, raw.encode(), prompt_field)


@pytest.mark.parametrize("message", [TOO_MANY_CHARACTERS, TOO_MANY_TOKENS, AT_LEAST_SO_MANY])
@pytest.mark.parametrize("field", ["messages", "prompt"])
def test_a_prompt_that_is_too_long(message: str, field: str) -> None:
    error = told(400, message, "input_tokens", field)
    assert isinstance(error, ContextLengthError)
    assert (error.status, error.type, error.param, error.code) == (400, "invalid_request_error", field, "context_length_exceeded")
    assert error.limit == 8192


def test_the_length_is_the_engines_count_where_it_has_one() -> None:
    assert "your prompt has 9000 tokens" in told(400, TOO_MANY_TOKENS).message


@pytest.mark.parametrize("message", [TOO_MANY_CHARACTERS, TOO_MANY_TOKENS, AT_LEAST_SO_MANY])
def test_the_length_can_be_said_exactly_later(message: str) -> None:
    error = told(400, message, None, "prompt")
    assert isinstance(error, ContextLengthError)
    exact = error.with_length(12_345)
    assert "context length is 8192 tokens" in exact.message
    assert "your prompt has 12345 tokens" in exact.message
    assert exact.param == "prompt"


def test_an_unknown_model() -> None:
    error = told(404, f"The model `{CANARY}` does not exist.", "model")
    assert isinstance(error, NotFoundError)
    assert (error.param, error.code) == ("model", "model_not_found")
    assert CANARY not in error.message


@pytest.mark.parametrize("status", [429, 503])
def test_an_engine_with_too_much_to_do(status: int) -> None:
    error = told(status, f"{CANARY} is full")
    assert isinstance(error, UnavailableError)
    assert (error.status, error.headers["retry-after"]) == (503, "1")
    assert CANARY not in error.message


@pytest.mark.parametrize("status", [400, 403, 409, 422])
@pytest.mark.parametrize(("param", "named"), [("tools", "tools"), ("tool_choice.function", "tool_choice.function"), (None, None)])
def test_other_refusals_name_the_field_alone(status: int, param: str | None, named: str | None) -> None:
    error = told(status, f"the value {CANARY} is not allowed", param)
    assert isinstance(error, InvalidRequestError)
    assert error.param == named
    assert CANARY not in error.message


VLLM_FIELDS = [
    ("body.seed", "seed"),
    ("body.prompt.0", "prompt[0]"),
    ("body.messages.0.ChatCompletionDeveloperMessageParam.content", "messages[0].content"),
    ("body.response_format.type", "response_format.type"),
    ("body", None),
]


@pytest.mark.parametrize(("param", "named"), VLLM_FIELDS)
def test_a_field_is_named_as_the_client_wrote_it(param: str, named: str | None) -> None:
    assert told(400, "no", param).param == named


@pytest.mark.parametrize("what", ['"auto" tool choice requires --enable-auto-tool-choice and', f'tool_choice=function "{CANARY}" requires'])
def test_tool_calls_that_the_engine_cannot_read_say_what_is_missing(what: str) -> None:
    error = told(400, f"{what} --tool-call-parser to be set")
    assert (error.status, error.param) == (400, "tool_choice")
    assert "tool_call_parser" in error.message
    assert CANARY not in error.message


SAID = [
    ("Token id 1000000000 is out of vocabulary", "prompt"),
    ("stop cannot contain an empty string.", "stop"),
    ("The decoder prompt cannot be empty", "prompt"),
    (f"{CANARY} is not a multimodal model", "messages"),
    (f'Failed to transform json schema into a grammar: Unsupported type "{CANARY}"', "response_format"),
    ("The provided JSON schema contains features not supported by xgrammar.", "response_format"),
]


@pytest.mark.parametrize(("message", "param"), SAID)
def test_what_vllm_says_without_a_field_names_one(message: str, param: str) -> None:
    error = told(400, message)
    assert error.param == param
    assert error.message.startswith(param)
    assert CANARY not in error.message


@pytest.mark.parametrize("param", [f"what about {CANARY}", "", f"tools\n{CANARY}", f"({CANARY})", "tools\n"])
def test_a_field_name_that_is_none_is_dropped(param: str) -> None:
    error = told(400, "no", param)
    assert error.param is None
    assert CANARY not in error.message


@pytest.mark.parametrize("status", [500, 501, 502])
def test_an_engine_that_failed(status: int) -> None:
    error = told(status, f"CUDA error near {CANARY}")
    assert isinstance(error, UpstreamError)
    assert (error.status, error.type) == (502, "server_error")
    assert CANARY not in error.message


@pytest.mark.parametrize(("code", "kind"), [(400, "invalid_request_error"), (500, "server_error"), ("x", "server_error")])
def test_an_error_that_comes_in_a_stream_is_told_as_any_other(code: Any, kind: str) -> None:
    error = {"error": {"message": f"token {CANARY}", "type": "BadRequestError", "param": "logit_bias", "code": code}}
    chunk = event({"choices": [{"text": 'data: {"error"'}]})
    passed = in_stream(chunk + event(error) + DONE, "messages")
    first, told_of, done = passed.split(b"\n\n")[:-1]
    assert (first, done) == (chunk[:-2], DONE[:-2])
    assert json.loads(told_of.removeprefix(b"data: "))["error"]["type"] == kind
    assert CANARY.encode() not in passed


BODIES: list[Any] = [
    "",
    "<html>",
    "[]",
    "null",
    "7",
    '{"error": null}',
    '{"error": "x"}',
    '{"error": {"message": null}}',
    '{"message": []}',
]


@pytest.mark.parametrize("raw", BODIES)
@pytest.mark.parametrize(("status", "kind"), [(400, InvalidRequestError), (500, UpstreamError)])
def test_a_body_that_is_no_error_object(raw: str, status: int, kind: type[ApiError]) -> None:
    assert type(from_engine(status, raw.encode(), "messages")) is kind


def test_an_error_without_its_envelope() -> None:
    error = from_engine(400, json.dumps({"message": TOO_MANY_TOKENS, "param": "x"}).encode(), "messages")
    assert isinstance(error, ContextLengthError)
