"""What the HTTP routes answer becomes messages, and nothing that they say is lost."""

import json
from typing import Any

from google.protobuf import json_format

from serve_app.grpc import answers
from serve_app.grpc import llm_service_pb2 as pb

HEAD: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": "m"}
CALLS = [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}]


def test_a_chat() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [*CALLS, *CALLS], "reasoning_content": "Hm.", "refusal": None}
    choice = {"index": 1, "message": message, "finish_reason": "tool_calls", "logprobs": {"content": []}, "stop_reason": None}
    usage = {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9, "prompt_tokens_details": {"cached_tokens": 3}}
    response = answers.chat(json.dumps({**HEAD, "choices": [choice], "usage": usage}).encode())
    assert (response.id, response.created, response.model) == ("chatcmpl-1", 1_700_000_000, "m")
    assert response.usage == pb.Usage(prompt_tokens=5, completion_tokens=4, total_tokens=9, cached_tokens=3)
    [said] = response.choices
    assert (said.index, said.finish_reason, said.message.role) == (1, "tool_calls", "assistant")
    assert not said.message.HasField("content")
    assert [(call.index, call.id, call.name) for call in said.message.tool_calls] == [(0, "c1", "weather"), (1, "c1", "weather")]
    assert json_format.MessageToDict(said.message.extra) == {"reasoning_content": "Hm."}
    assert json_format.MessageToDict(said.extra) == {"logprobs": {"content": []}}


def test_a_usage_that_does_not_tell_what_was_cached() -> None:
    response = answers.chat(json.dumps({**HEAD, "choices": [], "usage": {"prompt_tokens": 5, "prompt_tokens_details": None}}).encode())
    assert not response.usage.HasField("cached_tokens")


def test_pieces_of_a_chat() -> None:
    def piece(delta: dict[str, Any], finish_reason: str | None = None) -> pb.ChatDelta:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        [made] = answers.chat_chunk(json.dumps({**HEAD, "choices": [choice], "usage": None}).encode()).choices
        assert isinstance(made, pb.ChatDelta)
        return made

    assert piece({"role": "assistant", "content": ""}).delta == pb.Message(role="assistant", content="")
    assert piece({"content": "Be"}).delta == pb.Message(content="Be")
    assert piece({}, "stop") == pb.ChatDelta(delta=pb.Message(), finish_reason="stop")
    later = piece({"tool_calls": [{"index": 2, "function": {"arguments": '{"ci'}}]})
    assert later.delta == pb.Message(tool_calls=[pb.ToolCall(index=2, arguments='{"ci')])


def test_citations_stay() -> None:
    annotation = {"type": "file_citation", "index": 3, "file_id": "file-1"}
    choice = {"index": 0, "delta": {"content": "[1]", "annotations": [annotation]}}
    [said] = answers.chat_chunk(json.dumps({**HEAD, "choices": [choice]}).encode()).choices
    assert json_format.MessageToDict(said.delta.extra) == {"annotations": [annotation]}


def test_a_completion() -> None:
    body = {**HEAD, "choices": [{"index": 0, "text": "a store", "finish_reason": "stop", "logprobs": {"tokens": ["a"]}}]}
    [said] = answers.completion(json.dumps(body).encode()).choices
    assert (said.text, said.finish_reason, json_format.MessageToDict(said.extra)) == ("a store", "stop", {"logprobs": {"tokens": ["a"]}})


def test_what_headers_say() -> None:
    headers = {
        "x-mygo-cache": "miss",
        "x-mygo-replica": "r1",
        "x-mygo-predicted-cached-tokens": "0",
        "x-mygo-documents": "doc_1,doc_2",
        "x-mygo-documents-left-out": "3",
        "x-mygo-document-order": "2,1",
    }
    meta = answers.meta(headers, "r-1")
    assert meta == pb.Meta(
        request_id="r-1",
        cache="miss",
        replica="r1",
        predicted_cached_tokens=0,
        documents=["doc_1", "doc_2"],
        documents_left_out=3,
        document_order=[2, 1],
    )
    assert meta.HasField("predicted_cached_tokens")
    assert not meta.HasField("similarity")
    assert answers.meta({"x-mygo-documents": "", "x-mygo-similarity": "0.9731"}, "").similarity == 0.9731
