"""What an engine's error becomes: OpenAI's error, without the values that engines like to quote."""

import re
from http import HTTPStatus
from typing import Any

import msgspec

from serve_app.errors import ApiError, InvalidRequestError, NotFoundError, UnavailableError, UpstreamError

_CONTEXT = re.compile(
    r"maximum context length is (?P<limit>\d+) tokens.*?(?P<length>\d+) (?:input|prompt)? ?tokens"
    r"|[Ii]nput length \((?P<length_2>\d+)\) exceeds model's maximum context length \((?P<limit_2>\d+)\)",
    re.DOTALL,
)
_FIELD = re.compile(r"[A-Za-z_][\w.\[\]]*\Z")


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
        field = param if isinstance(param, str) and _FIELD.match(param) else None
        return InvalidRequestError(_explain(field), param=field, code="invalid_value")
    return UpstreamError("The engine failed to answer.", code="engine_error")


def _error_object(raw: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return {}
    error = value.get("error", value) if isinstance(value, dict) else {}
    return error if isinstance(error, dict) else {}


def _explain(field: str | None) -> str:
    return f"{field} is not accepted by the engine." if field else "The engine does not accept this request."
