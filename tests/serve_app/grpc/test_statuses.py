"""HTTP's errors under gRPC's codes."""

import json
from typing import Any

import grpc
import pytest

from serve_app.grpc.statuses import MAX_DETAILS, code_of, failure, failure_in


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "INVALID_ARGUMENT"),
        (401, "UNAUTHENTICATED"),
        (403, "PERMISSION_DENIED"),
        (404, "NOT_FOUND"),
        (408, "DEADLINE_EXCEEDED"),
        (413, "RESOURCE_EXHAUSTED"),
        (422, "INVALID_ARGUMENT"),
        (429, "RESOURCE_EXHAUSTED"),
        (499, "CANCELLED"),
        (500, "INTERNAL"),
        (502, "INTERNAL"),
        (503, "UNAVAILABLE"),
        (504, "DEADLINE_EXCEEDED"),
    ],
)
def test_codes(status: int, code: str) -> None:
    assert code_of(status) is grpc.StatusCode[code]


def raw(**error: Any) -> bytes:
    return json.dumps({"error": {"message": "Too much.", "type": "requests", "param": None, "code": None, **error}}).encode()


def test_what_an_error_says_comes_after_the_answer() -> None:
    headers = {"retry-after": "7", "x-ratelimit-limit-requests": "60", "content-length": "120", "www-authenticate": "Bearer"}
    failed = failure(429, raw(code="rate_limit_exceeded"), headers)
    assert (failed.code, failed.details) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "Too much.")
    assert dict(failed.trailers) == {
        "retry-after": "7",
        "x-ratelimit-limit-requests": "60",
        "x-mygo-error-type": "requests",
        "x-mygo-error-code": "rate_limit_exceeded",
    }


def test_metadata_takes_plain_text_only() -> None:
    failed = failure(400, raw(param="é", code="a\nb", message="é" * 5000), {})
    assert dict(failed.trailers) == {"x-mygo-error-type": "requests"}
    assert failed.details == "é" * MAX_DETAILS


def test_an_error_without_a_body() -> None:
    assert failure(500, b"", {}).details == "The server had an error."


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"type": "service_unavailable"}, "UNAVAILABLE"),
        ({"type": "timeout_error"}, "DEADLINE_EXCEEDED"),
        ({"type": "BadRequestError", "code": 400}, "INVALID_ARGUMENT"),
        ({"type": "server_error", "code": None}, "INTERNAL"),
        ({"type": "server_error", "code": 7}, "INTERNAL"),
    ],
)
def test_errors_in_a_stream(error: dict[str, Any], code: str) -> None:
    failed = failure_in(raw(**error))
    assert failed
    assert failed.code is grpc.StatusCode[code]


def test_a_piece_of_an_answer_is_no_error() -> None:
    assert failure_in(b'{"choices":[{"index":0,"delta":{"content":"\\"error\\""}}],"error":null}') is None
