"""Errors in the shape that Anthropic's clients know."""

from typing import Any, Final

from serve_app.errors import ApiError
from serve_app.replies import Reply, json_reply

REQUEST_ID: Final = "request-id"
"""The header that Anthropic's clients read."""
_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def body_of(error: ApiError) -> dict[str, Any]:
    usual = "api_error" if error.status >= 500 else "invalid_request_error"
    return {"type": "error", "error": {"type": _TYPES.get(error.status, usual), "message": error.message}}


def refuse(error: ApiError, request_id: str) -> Reply:
    return json_reply(body_of(error), error.status, {**error.headers, REQUEST_ID: request_id})
