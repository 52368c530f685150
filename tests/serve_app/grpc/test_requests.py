"""Messages of requests become the JSON that HTTP's clients send."""

import json
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from serve_app.errors import InvalidRequestError
from serve_app.grpc import llm_service_pb2 as pb
from serve_app.grpc import requests
from serve_app.openai.requests import parse_chat, parse_completion, parse_embedding

USER = pb.Message(role="user", content="Why?")
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def struct(**fields: Any) -> Struct:
    made = Struct()
    json_format.ParseDict(fields, made)
    return made


def chat(*, stream: bool = False, **fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(requests.chat(stream=stream)(pb.ChatRequest(**fields).SerializeToString()))
    return body


def refusal(**fields: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        chat(model="m", messages=[USER], **fields)
    return caught.value


def test_every_field_of_a_chat() -> None:
    body = chat(
        model="m",
        messages=[pb.Message(role="system", content=""), USER],
        max_tokens=7,
        temperature=0.7,
        top_p=0.9,
        n=2,
        seed=2**60 + 1,
        stop=["a", "b"],
        frequency_penalty=-0.5,
        presence_penalty=0.0,
        tools=[json.dumps(WEATHER)],
        tool_choice='{"type": "function", "function": {"name": "weather"}}',
        response_format='{"type": "json_object"}',
        user="ada",
        priority=-3,
        cache=pb.CacheOptions(mode="exact", ttl_s=60, tags=["t"]),
        retrieval=pb.RetrievalOptions(
            vector_store_ids=["vs_1"],
            top_k=3,
            reorder=False,
            citations="ids",
            filters=struct(type="eq", key="year", value=2024),
            score_threshold=0.5,
        ),
        extra=struct(logit_bias={"5": -1.5}, top_k=40, vllm_xargs={"list": [1, None, True, "x"]}),
    )
    assert body == {
        "model": "m",
        "messages": [{"role": "system", "content": ""}, {"role": "user", "content": "Why?"}],
        "max_tokens": 7,
        "temperature": 0.7,
        "top_p": 0.9,
        "n": 2,
        "seed": 2**60 + 1,
        "stop": ["a", "b"],
        "frequency_penalty": -0.5,
        "presence_penalty": 0.0,
        "tools": [WEATHER],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "response_format": {"type": "json_object"},
        "user": "ada",
        "priority": -3,
        "cache": {"mode": "exact", "ttl_s": 60.0, "tags": ["t"]},
        "retrieval": {
            "vector_store_ids": ["vs_1"],
            "top_k": 3,
            "reorder": False,
            "citations": "ids",
            "filters": {"type": "eq", "key": "year", "value": 2024},
            "score_threshold": 0.5,
        },
        "logit_bias": {"5": -1.5},
        "top_k": 40,
        "vllm_xargs": {"list": [1, None, True, "x"]},
    }
    assert parse_chat(json.dumps(body).encode()).max_tokens == 7


def test_what_is_not_set_is_not_said() -> None:
    assert chat(model="m", messages=[USER]) == {"model": "m", "messages": [{"role": "user", "content": "Why?"}]}
    assert chat() == {}


def test_a_stream_always_has_its_usage() -> None:
    body = chat(stream=True, model="m", messages=[USER])
    request = parse_chat(json.dumps(body).encode())
    assert (request.stream, request.include_usage) == (True, True)


def test_messages_with_tools_and_parts() -> None:
    call = pb.ToolCall(id="c1", name="weather", arguments='{"city": "Bern"}')
    parts = [struct(type="text", text="What is this?"), struct(type="image_url", image_url={"url": "data:"})]
    messages = [
        pb.Message(role="user", parts=parts, name="ada"),
        pb.Message(role="assistant", tool_calls=[call], extra=struct(reasoning_content="Hm.")),
        pb.Message(role="tool", content="rain", tool_call_id="c1"),
    ]
    assert chat(model="m", messages=messages, tool_choice="auto") == {
        "model": "m",
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "data:"}}],
                "name": "ada",
            },
            {
                "role": "assistant",
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}],
                "reasoning_content": "Hm.",
            },
            {"role": "tool", "content": "rain", "tool_call_id": "c1"},
        ],
        "tool_choice": "auto",
    }


@pytest.mark.parametrize("name", ["model", "messages", "temperature", "stream", "stream_options", "cache", "extra"])
def test_a_field_has_one_place(name: str) -> None:
    assert refusal(extra=struct(**{name: None})).param == f"extra.{name}"


def test_content_has_one_place() -> None:
    with pytest.raises(InvalidRequestError, match=r"extra\.content"):
        chat(model="m", messages=[pb.Message(role="user", extra=struct(content="Why?"))])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": ['{"type": "function"}', "{"]}, "tools[1]"),
        ({"tools": ["[" * 100_000]}, "tools[0]"),
        ({"tool_choice": "{auto"}, "tool_choice"),
        ({"response_format": "json"}, "response_format"),
        ({"temperature": float("nan")}, "temperature"),
        ({"cache": pb.CacheOptions(ttl_s=float("inf"))}, "ttl_s"),
    ],
)
def test_what_is_no_json_is_named(fields: dict[str, Any], param: str) -> None:
    assert refusal(**fields).param == param


def test_numbers_that_json_does_not_have_are_refused_anywhere() -> None:
    extra = struct(logit_bias={"5": 0})
    extra["logit_bias"]["5"] = float("inf")
    assert refusal(extra=extra).param == "extra"


def test_a_message_that_is_none() -> None:
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        requests.chat(stream=False)(b"\xff\xff")


def test_completions() -> None:
    message = pb.CompleteRequest(model="m", prompt="A cache is", echo=True, logprobs=0, extra=struct(suffix="."))
    raw = requests.completion(stream=True)(message.SerializeToString())
    assert json.loads(raw) == {
        "model": "m",
        "prompt": "A cache is",
        "echo": True,
        "logprobs": 0,
        "suffix": ".",
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert parse_completion(raw).kind == "completion"


def test_embeddings() -> None:
    asked = parse_embedding(requests.embedding(pb.EmbedRequest(model="e", input=["a", "b"], dimensions=3).SerializeToString()))
    assert (asked.model, asked.input, asked.dimensions) == ("e", ["a", "b"], 3)
