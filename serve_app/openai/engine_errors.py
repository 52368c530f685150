"""What an engine's error becomes: OpenAI's error, without the values that engines like to quote."""

import re
from http import HTTPStatus
from typing import Any

import msgspec

from serve_app.errors import ApiError, InvalidRequestError, NotFoundError, UnavailableError, UpstreamError
from serve_app.openai.sse import END, event

_CONTEXT = re.compile(
    r"maximum context length is (?P<limit>\d+) tokens.*?(?P<length>\d+) (?:input|prompt)? ?tokens"
    r"|[Ii]nput length \((?P<length_2>\d+)\) exceeds model's maximum context length \((?P<limit_2>\d+)\)",
    re.DOTALL,
)
_EVENT = b'data: {"error"'
_FIELD = re.compile(r"[A-Za-z_][\w.\[\]]*\Z")
_SAID = (
    (
        re.compile(r"--tool-call-parser to be set"),
        "tool_choice",
        "tool_choice: the engine is not set up to read tool calls (llm.engine.args: enable_auto_tool_choice and tool_call_parser).",
    ),
    (re.compile(r"^Token id \d+ is out of vocabulary"), "prompt", "prompt has token ids that the model does not have."),
    (re.compile(r"^stop cannot contain an empty string"), "stop", "stop must not have empty texts."),
    (re.compile(r"decoder prompt cannot be empty"), "prompt", "prompt must not be empty."),
    (re.compile(r"is not a multimodal model$"), "messages", "messages must have texts only: the model reads nothing else."),
    (
        re.compile(r"^(Failed to transform json schema into a grammar|The provided JSON schema contains features not supported)"),
        "response_format",
        "response_format has a JSON schema that is none, or that the engine cannot hold an answer to.",
    ),
)
"""What engines say without naming a field: the field, and what a client is told."""


class ContextLengthError(InvalidRequestError):
    """Prompt and answer do not fit: says both lengths, in tokens."""

    def __init__(self, limit: int, length: int, prompt_field: str) -> None:
        self.limit = limit
        self.prompt_field = prompt_field
        super().__init__(
            f"This model's maximum context length is {limit} tokens. However, your prompt has {length} tokens. Please shorten the prompt "
            "or ask for a shorter answer.",
            param=prompt_field,
            code="context_length_exceeded",
        )

    def with_length(self, length: int) -> "ContextLengthError":
        return ContextLengthError(self.limit, length, self.prompt_field)


def from_engine(status: int, raw: bytes, prompt_field: str) -> ApiError:
    """`prompt_field`: where the prompt is in the request, `messages` or `prompt`."""
    error = _error_object(raw)
    message, param = str(error.get("message", "")), error.get("param")
    if context := _CONTEXT.search(message):
        limit, length = (int(context[name] or context[f"{name}_2"]) for name in ("limit", "length"))
        return ContextLengthError(limit, length, prompt_field)
    if status == HTTPStatus.NOT_FOUND:
        return NotFoundError("The model does not exist.", param="model", code="model_not_found")
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        return UnavailableError("The engine is overloaded. Try again.", code="overloaded")
    if status < 500:
        for pattern, known, told in _SAID:
            if pattern.search(message):
                return InvalidRequestError(told, param=known, code="invalid_value")
        field = _field(param)
        return InvalidRequestError(_explain(field), param=field, code="invalid_value")
    return UpstreamError("The engine failed to answer.", code="engine_error")


def in_stream(events: bytes, prompt_field: str) -> bytes:
    """The same whole events, with an engine's error among them as ours: it may find out what is wrong when the stream has begun."""
    if _EVENT not in events:  # in a text, its quotes would be escaped
        return events
    return b"".join(_told(each, prompt_field) if each.startswith(_EVENT) else each + END for each in events.split(END)[:-1])


def _told(raw: bytes, prompt_field: str) -> bytes:
    payload = raw.removeprefix(b"data: ")
    code = _error_object(payload).get("code")
    status = code if isinstance(code, int) and 400 <= code < 600 else HTTPStatus.INTERNAL_SERVER_ERROR
    return event(from_engine(status, payload, prompt_field).body())


def _error_object(raw: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return {}
    error = value.get("error", value) if isinstance(value, dict) else {}
    return error if isinstance(error, dict) else {}


def _field(param: Any) -> str | None:
    """`messages[0].content` of vLLM's `body.messages.0.ChatCompletionUserMessageParam.content`; None for what is no field's name."""
    if not isinstance(param, str) or not _FIELD.match(param):
        return None
    name = ""
    for part in param.split("."):
        if part.isdigit():
            name += f"[{part}]"
        elif part != "body" and not part[:1].isupper():  # a type's name: which of several kinds vLLM has compared with
            name += f".{part}"
    return name.removeprefix(".") or None


def _explain(field: str | None) -> str:
    return f"{field} is not accepted by the engine." if field else "The engine does not accept this request."
