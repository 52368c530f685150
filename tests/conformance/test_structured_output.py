"""response_format: text, json_object, json_schema. What is answered must be what was asked for."""

import json
from typing import Any

import jsonschema
import pytest

from tests.conformance.conftest import Post
from tests.conformance.shapes import chat_answer, chat_chunks, error_of
from tests.e2e.system import System

COLOUR = {"type": "string", "enum": ["red", "green", "blue"]}


def an_object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


SCHEMAS: dict[str, dict[str, Any]] = {
    "enum": an_object(colour=COLOUR),
    "boolean and null": an_object(sure=COLOUR | {"type": "boolean", "enum": [True, False]}, nothing={"type": "null"}),
    "nested": an_object(outer=an_object(inner=an_object(colour=COLOUR))),
    "array of enums": an_object(colours={"type": "array", "items": COLOUR, "minItems": 2, "maxItems": 2}),
    "anyOf": an_object(value={"anyOf": [COLOUR, {"type": "boolean"}]}),
    "reference": {**an_object(first={"$ref": "#/$defs/colour"}, second={"$ref": "#/$defs/colour"}), "$defs": {"colour": COLOUR}},
    "const": an_object(kind={"const": "tea"}, colour=COLOUR),
    "pattern": an_object(code={"type": "string", "pattern": "^[A-C]{3}$"}),
    "nullable": an_object(colour={"type": ["string", "null"], "enum": ["red", None]}),
}


def format_of(schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, **more}}


@pytest.mark.parametrize("name", SCHEMAS)
def test_json_schema_is_kept_to(ask: Post, real: System, name: str) -> None:
    choice = chat_answer(ask(response_format=format_of(SCHEMAS[name], strict=True), max_tokens=300)).choices[0]
    assert choice.finish_reason == "stop"
    jsonschema.validate(json.loads(choice.message.content or ""), SCHEMAS[name])


def test_json_schema_is_kept_to_without_strict(ask: Post, real: System) -> None:
    choice = chat_answer(ask(response_format=format_of(SCHEMAS["enum"]), max_tokens=300)).choices[0]
    jsonschema.validate(json.loads(choice.message.content or ""), SCHEMAS["enum"])


def test_json_schema_is_kept_to_by_each_of_n(ask: Post, real: System) -> None:
    answer = chat_answer(ask(response_format=format_of(SCHEMAS["enum"]), max_tokens=300, n=3, temperature=1))
    for choice in answer.choices:
        jsonschema.validate(json.loads(choice.message.content or ""), SCHEMAS["enum"])


def test_json_schema_is_kept_to_in_a_stream(ask: Post, real: System) -> None:
    chunks = chat_chunks(ask(response_format=format_of(SCHEMAS["nested"]), max_tokens=300, stream=True))
    jsonschema.validate(json.loads("".join(chunk.choices[0].delta.content or "" for chunk in chunks)), SCHEMAS["nested"])


def test_json_object_is_an_object(ask: Post, real: System) -> None:
    message = {"role": "user", "content": "Answer with an empty JSON object."}
    # A bias for the closing brace: a small model would write on until its context is full.
    token = real.http.post("/v1/completions", json={"model": real.model, "prompt": "}", "max_tokens": 1, "return_token_ids": True})
    brace = token.json()["choices"][0]["prompt_token_ids"][-1]
    answer = ask(messages=[message], response_format={"type": "json_object"}, max_tokens=200, logit_bias={str(brace): 100})
    choice = chat_answer(answer).choices[0]
    assert choice.finish_reason == "stop"
    assert isinstance(json.loads(choice.message.content or ""), dict)


def test_an_answer_that_is_cut_off_says_so(ask: Post, real: System) -> None:
    choice = chat_answer(ask(response_format=format_of(SCHEMAS["nested"]), max_tokens=2)).choices[0]
    assert choice.finish_reason == "length"


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"type": "xml"}, "response_format.type"),
        ({}, "response_format.type"),
        ({"type": "json_schema"}, "response_format.json_schema"),
        ({"type": "json_schema", "json_schema": {"schema": SCHEMAS["enum"]}}, "response_format.json_schema.name"),
        ({"type": "json_schema", "json_schema": {"name": "no spaces", "schema": SCHEMAS["enum"]}}, "response_format.json_schema.name"),
        (format_of({"type": "no such type"}), "response_format"),
        (format_of({"type": "object", "properties": 7}), "response_format"),
        ({"type": "json_schema", "json_schema": {"name": "answer", "schema": "text"}}, "response_format.json_schema.schema"),
    ],
    ids=[
        "an unknown type",
        "no type",
        "no schema",
        "no name",
        "a name with spaces",
        "an unknown JSON type",
        "no JSON schema",
        "schema is text",
    ],
)
def test_refused(ask: Post, real: System, given: dict[str, Any], param: str) -> None:
    error_of(ask(response_format=given), 400, param)
