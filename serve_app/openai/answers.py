"""Complete answers: put together from a stream, kept, and replayed as JSON or as a stream."""

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from serve_app.openai.sse import DONE, event, payloads

_OWN = ("id", "created")
"""Fields that belong to one response, not to the answer."""
_NOT_KEPT = ("prompt_token_ids", "prompt_text", "prompt_logprobs", "kv_transfer_params", "ec_transfer_params", "metrics")
_BROKEN_OFF = (None, "abort", "error", "content_filter")
"""Finish reasons of choices that the engine did not finish, or that were not let finish."""


class _Message(msgspec.Struct):
    role: str


class _Spoken(msgspec.Struct):
    index: int
    finish_reason: str
    message: _Message


class _Written(msgspec.Struct):
    index: int
    finish_reason: str
    text: str


class _Chat(msgspec.Struct):
    """What a kept answer must have to be replayed."""

    object: Literal["chat.completion"]
    choices: list[_Spoken]
    usage: dict[str, Any]


class _Completion(msgspec.Struct):
    object: Literal["text_completion"]
    choices: list[_Written]
    usage: dict[str, Any]


def from_kept(raw: bytes, kind: str) -> dict[str, Any]:
    """A kept answer of a `chat` or a `completion`. Raises `msgspec.DecodeError` for one that was damaged, or is of another kind."""
    msgspec.json.decode(raw, type=_Chat if kind == "chat" else _Completion)
    answer: dict[str, Any] = msgspec.json.decode(raw)
    return answer


def from_json(raw: bytes) -> dict[str, Any] | None:
    """The answer in a non-streamed response, or None when it is not complete."""
    try:
        value = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return None
    return (
        _complete({key: each for key, each in value.items() if key not in _OWN and each is not None}) if isinstance(value, dict) else None
    )


def from_stream(raw: bytes) -> dict[str, Any] | None:
    """The answer in a streamed response's bytes, or None when it is not complete: broken off, or with an error."""
    chunks: list[dict[str, Any]] = []
    for payload in payloads(raw):
        if payload == b"[DONE]":
            return _complete(_join(chunks))
        try:
            chunks.append(msgspec.json.decode(payload, type=dict[str, Any]))
        except msgspec.DecodeError:
            return None
    return None


def _complete(answer: dict[str, Any]) -> dict[str, Any] | None:
    choices = answer.get("choices")
    if "error" in answer or not choices or "usage" not in answer:
        return None
    if any(choice.get("finish_reason") in _BROKEN_OFF for choice in choices):
        return None
    return {key: value for key, value in answer.items() if key not in _NOT_KEPT}


def _join(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for choice in chunk.pop("choices", []):
            _merge(choices.setdefault(choice["index"], {}), choice)
        answer.update({key: value for key, value in chunk.items() if key not in _OWN and value is not None})
    answer["object"] = str(answer.get("object", "")).removesuffix(".chunk")
    answer["choices"] = [_as_message(choices[index]) for index in sorted(choices)]
    return answer


def _merge(into: dict[str, Any], delta: dict[str, Any]) -> None:
    """Adds one chunk's part: text and lists grow, objects merge, lists of indexed parts merge by index."""
    for key, value in delta.items():
        old: Any = into.get(key)
        if value is None or (old is None and not isinstance(value, list)):
            into[key] = old if value is None else value
        elif isinstance(value, dict):
            _merge(old, value)
        elif isinstance(value, list):
            into[key] = _merge_lists(old or [], value)
        elif isinstance(value, str) and key not in ("role", "type", "id", "finish_reason"):
            into[key] = old + value
        else:
            into[key] = value


def _merge_lists(old: list[Any], new: list[Any]) -> list[Any]:
    # Log probabilities are objects too, with tokens for keys, and "index" is a token.
    if not all(isinstance(part, dict) and isinstance(part.get("index"), int) for part in [*old, *new]):
        return old + new
    parts: dict[int, dict[str, Any]] = {part["index"]: part for part in old}
    for part in new:
        _merge(parts.setdefault(part["index"], {}), part)
    return [parts[index] for index in sorted(parts)]


def _as_message(choice: dict[str, Any]) -> dict[str, Any]:
    """A choice of a stream (`delta`) as a choice of a whole answer (`message`)."""
    if "delta" not in choice:
        return {key: value for key, value in choice.items() if key != "token_ids"}
    message = {"role": "assistant", "content": None, "refusal": None, **choice["delta"]}
    if calls := message.get("tool_calls"):
        message["tool_calls"] = [{key: value for key, value in call.items() if key != "index"} for call in calls]
    return {**{key: value for key, value in choice.items() if key not in ("delta", "token_ids")}, "message": message}


def of_text(text: str, model: str) -> dict[str, Any]:
    """A chat's answer that no engine wrote, as one of an engine would be kept."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": None,
        "finish_reason": "stop",
        "stop_reason": None,
    }
    usage = {"prompt_tokens": 0, "total_tokens": 0, "completion_tokens": 0}
    return {"object": "chat.completion", "model": model, "choices": [choice], "usage": usage}


def completion_tokens(answer: dict[str, Any]) -> int:
    """Tokens that were computed for it; 0 when it does not say."""
    usage = answer.get("usage")
    tokens = usage.get("completion_tokens", usage.get("output_tokens")) if isinstance(usage, dict) else None
    return tokens if isinstance(tokens, int) and tokens >= 0 else 0


def to_stream(answer: dict[str, Any], response_id: str, created: int, include_usage: bool) -> bytes:
    """The whole stream at once: role, text, and finish reason of each choice, then the usage if asked for."""
    head = {"id": response_id, "created": created, "object": _chunk_object(answer), "model": answer.get("model")}
    if "system_fingerprint" in answer:
        head["system_fingerprint"] = answer["system_fingerprint"]
    null = {"usage": None} if include_usage else {}
    parts = [event({**head, "choices": [part], **null}) for choice in answer["choices"] for part in _parts(choice)]
    if include_usage:
        parts.append(event({**head, "choices": [], "usage": answer["usage"]}))
    return b"".join([*parts, DONE])


def _chunk_object(answer: dict[str, Any]) -> str:
    return "chat.completion.chunk" if answer["object"] == "chat.completion" else str(answer["object"])


def _parts(choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
    index, end = choice["index"], {"finish_reason": choice["finish_reason"], "stop_reason": choice.get("stop_reason")}
    logprobs = choice.get("logprobs")
    if "message" not in choice:
        yield {"index": index, "text": choice["text"], "logprobs": logprobs, **end}
        return
    message = dict(choice["message"])
    yield {"index": index, "delta": {"role": message.pop("role"), "content": ""}, "logprobs": None, "finish_reason": None}
    if message.get("tool_calls"):
        message["tool_calls"] = [{"index": number, **call} for number, call in enumerate(message["tool_calls"])]
    delta = {key: value for key, value in message.items() if value}
    yield {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}
    yield {"index": index, "delta": {}, "logprobs": None, **end}
