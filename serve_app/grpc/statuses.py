"""HTTP's errors as gRPC's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import msgspec

Trailers = list[tuple[str, str]]

_CODES = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_MIDSTREAM = {"service_unavailable": 503, "invalid_request_error": 400, "timeout_error": 504}
"""The statuses of errors that a stream ends with, by their types: the status line was sent before."""
MAX_DETAILS = 2048
"""Characters. What comes after an answer must fit 8 KB, all together."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What a call ends with that has no answer."""

    code: grpc.StatusCode
    details: str
    trailers: Trailers


def code_of(status: int) -> grpc.StatusCode:
    return _CODES.get(status, grpc.StatusCode.INVALID_ARGUMENT if status < 500 else grpc.StatusCode.INTERNAL)


def failure(status: int, body: bytes, headers: Mapping[str, str]) -> Failure:
    """Of an HTTP answer with OpenAI's error JSON."""
    return _failure(status, _error_in(body) or {}, headers)


def failure_in(event: bytes) -> Failure | None:
    """Of an event of a stream. None: it is no error."""
    error = _error_in(event) if b'"error"' in event else None
    if error is None:
        return None
    code = error.get("code")
    status = code if isinstance(code, int) and 400 <= code < 600 else _MIDSTREAM.get(str(error.get("type")), 500)
    return _failure(status, error, {})


def _error_in(raw: bytes) -> dict[str, Any] | None:
    try:
        error = msgspec.json.decode(raw, type=dict[str, Any]).get("error")
    except msgspec.DecodeError:
        return None
    return error if isinstance(error, dict) else None


def _failure(status: int, error: Mapping[str, Any], headers: Mapping[str, str]) -> Failure:
    said = [(f"x-mygo-error-{name}", str(error[name])) for name in ("type", "code", "param") if error.get(name)]
    details = str(error.get("message") or "The server had an error.")
    return Failure(code_of(status), details[:MAX_DETAILS], [*trailers(headers), *(each for each in said if _is_metadata(each[1]))])


def trailers(headers: Mapping[str, str]) -> Trailers:
    """Those headers that speak of what the caller may have, and when."""
    return [(name, value) for name, value in headers.items() if name == "retry-after" or name.startswith("x-ratelimit-")]


def _is_metadata(value: str) -> bool:
    return value.isascii() and value.isprintable() and len(value) <= 256
