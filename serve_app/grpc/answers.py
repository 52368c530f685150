"""What the HTTP routes answer, as messages."""

import base64
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
import numpy as np

from serve_app.grpc import llm_service_pb2 as pb

Headers = Mapping[str, str]
M = TypeVar("M", bound=Any)


def meta(headers: Headers, request_id: str) -> pb.Meta:
    """What the headers of an answer say."""
    said = pb.Meta(
        request_id=request_id,
        cache=headers.get("x-mygo-cache", ""),
        entry=headers.get("x-mygo-entry", ""),
        replica=headers.get("x-mygo-replica", ""),
        documents=_parts(headers.get("x-mygo-documents")),
        documents_left_out=int(headers.get("x-mygo-documents-left-out", 0)),
        document_order=[int(rank) for rank in _parts(headers.get("x-mygo-document-order"))],
    )
    if similarity := headers.get("x-mygo-similarity"):
        said.similarity = float(similarity)
    if predicted := headers.get("x-mygo-predicted-cached-tokens"):
        said.predicted_cached_tokens = int(predicted)
    return said


def _parts(listed: str | None) -> list[str]:
    return listed.split(",") if listed else []


def chat(raw: bytes) -> pb.ChatResponse:
    return _fill(pb.ChatResponse(), _decoded(raw), lambda choice: pb.ChatChoice(message=_message(choice.pop("message", None))))


def chat_chunk(raw: bytes) -> pb.ChatChunk:
    return _fill(pb.ChatChunk(), _decoded(raw), lambda choice: pb.ChatDelta(delta=_message(choice.pop("delta", None))))


def completion(raw: bytes) -> pb.CompleteResponse:
    return _fill(pb.CompleteResponse(), _decoded(raw), _written)


def completion_chunk(raw: bytes) -> pb.CompleteChunk:
    return _fill(pb.CompleteChunk(), _decoded(raw), _written)


def embedding(raw: bytes) -> pb.EmbedResponse:
    body = _decoded(raw)
    vectors = [np.frombuffer(base64.b64decode(each["embedding"]), "<f4") for each in body["data"]]
    return pb.EmbedResponse(model=body["model"], data=[pb.Embedding(values=vector) for vector in vectors], usage=_usage(body["usage"]))


def models(raw: bytes) -> pb.ListModelsResponse:
    response = pb.ListModelsResponse()
    for model in _decoded(raw)["data"]:
        model.pop("object", None)
        known = {name: model.pop(name) for name in ("id", "created", "owned_by") if model.get(name) is not None}
        _extra(response.data.add(**known), model)
    return response


def _decoded(raw: bytes) -> dict[str, Any]:
    return msgspec.json.decode(raw, type=dict[str, Any])


def _fill(response: M, body: dict[str, Any], said: Callable[[dict[str, Any]], Any]) -> M:
    """An answer or a piece of one. `said`: makes a choice of what the JSON says, and takes it from there."""
    response.id, response.created, response.model = body["id"], body["created"], body.get("model") or ""
    for choice in body["choices"]:
        made = said(choice)
        made.index, made.finish_reason = choice.pop("index"), choice.pop("finish_reason", None) or ""
        _extra(made, choice)
        response.choices.append(made)
    if usage := body.get("usage"):
        response.usage.CopyFrom(_usage(usage))
    return response


def _written(choice: dict[str, Any]) -> pb.CompleteChoice:
    return pb.CompleteChoice(text=choice.pop("text"))


def _message(said: dict[str, Any] | None) -> pb.Message:
    said = said or {}
    content, calls = said.pop("content", None), said.pop("tool_calls", None) or ()
    message = pb.Message(role=said.pop("role", None) or "", content=content, tool_calls=map(_tool_call, calls, range(len(calls))))
    _extra(message, said)
    return message


def _tool_call(call: dict[str, Any], at: int) -> pb.ToolCall:
    function = call.get("function") or {}
    index: int = call.get("index", at)
    return pb.ToolCall(index=index, id=call.get("id") or "", name=function.get("name") or "", arguments=function.get("arguments") or "")


def _extra(message: Any, rest: dict[str, Any]) -> None:
    """What has no field of its own, and says something."""
    if rest := {name: value for name, value in rest.items() if value is not None and value != []}:
        message.extra.update(rest)


def _usage(usage: dict[str, Any]) -> pb.Usage:
    details = usage.get("prompt_tokens_details") or {}
    return pb.Usage(
        prompt_tokens=usage.get("prompt_tokens", 0),
        completion_tokens=usage.get("completion_tokens", 0),
        total_tokens=usage.get("total_tokens", 0),
        cached_tokens=details.get("cached_tokens"),
    )
