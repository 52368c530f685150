"""The one place where errors become OpenAI's error JSON."""

import json

import pytest

from cache.errors import KeyFormatError, StoreError
from deployments.errors import EngineDeadError, NoReplicaError, ReplicaLostError, SilentReplicaError
from retrieval.errors import DocumentError, QueryError, StorageError, UnknownFileError, UnknownStoreError, UnknownUploadError
from serve_app.errors import (
    ApiError,
    AuthenticationError,
    ForbiddenError,
    InvalidRequestError,
    MethodError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
    UpstreamError,
    to_api_error,
)

CANARY = "canary_7f3a9"

INTERNAL = [
    (NoReplicaError(CANARY), 503, "service_unavailable", None, "no_replica"),
    (ReplicaLostError(CANARY), 503, "service_unavailable", None, "replica_lost"),
    (SilentReplicaError(CANARY), 504, "timeout_error", None, "first_token_timeout"),
    (SilentReplicaError(CANARY, has_begun=True), 504, "timeout_error", None, "between_tokens_timeout"),
    (EngineDeadError(CANARY), 503, "service_unavailable", None, "unavailable"),
    (StoreError(CANARY), 503, "service_unavailable", None, "unavailable"),
    (StorageError(CANARY), 503, "service_unavailable", None, "unavailable"),
    (UnknownStoreError(CANARY), 404, "invalid_request_error", "vector_store_id", "not_found"),
    (UnknownUploadError(CANARY), 503, "service_unavailable", "file", "upload_lost"),
    (KeyFormatError(CANARY), 400, "invalid_request_error", None, "invalid_value"),
    (RuntimeError(CANARY), 500, "server_error", None, "internal_error"),
    (KeyError(CANARY), 500, "server_error", None, "internal_error"),
    (TimeoutError(CANARY), 503, "service_unavailable", None, "unavailable"),
]


@pytest.mark.parametrize(("error", "status", "kind", "param", "code"), INTERNAL, ids=lambda each: type(each).__name__)
def test_an_error_becomes_an_answer_without_its_text(error: Exception, status: int, kind: str, param: str | None, code: str) -> None:
    answer = to_api_error(error)
    assert answer.status == status
    assert answer.body() == {"error": {"message": answer.message, "type": kind, "param": param, "code": code}}
    assert CANARY not in json.dumps(answer.body())


@pytest.mark.parametrize(
    ("error", "param", "message"),
    [
        (DocumentError("too long", "documents[3].text"), "documents[3].text", "documents[3].text: too long."),
        (QueryError("query has no text", "query"), "query", "query has no text."),
        (QueryError("b is not known; did you mean a?", "b"), "b", "b is not known; did you mean a?"),
    ],
)
def test_reasons_of_the_retrieval_tier_reach_the_client_with_the_field(error: Exception, param: str, message: str) -> None:
    answer = to_api_error(error)
    assert (answer.status, answer.message, answer.param) == (400, message, param)


@pytest.mark.parametrize(("id_", "said"), [("file-1a", ": file-1a"), ("", ""), ("a b", ""), ("x" * 65, ""), ("a\n", "")])
def test_which_of_several_is_missing_is_said_if_it_may_be_an_id(id_: str, said: str) -> None:
    assert to_api_error(UnknownFileError("no", id_)).message == f"There is no such file{said}."


STATUSES: list[tuple[type[ApiError], int, str]] = [
    (InvalidRequestError, 400, "invalid_request_error"),
    (AuthenticationError, 401, "invalid_request_error"),
    (ForbiddenError, 403, "invalid_request_error"),
    (NotFoundError, 404, "invalid_request_error"),
    (MethodError, 405, "invalid_request_error"),
    (TooLargeError, 413, "invalid_request_error"),
    (UnavailableError, 503, "service_unavailable"),
    (UpstreamError, 502, "server_error"),
]


@pytest.mark.parametrize(("kind", "status", "type_"), STATUSES)
def test_an_answer_is_its_own_answer(kind: type[ApiError], status: int, type_: str) -> None:
    error = kind("No.", param="p", code="c")
    assert to_api_error(error) is error
    assert error.status == status
    assert error.body() == {"error": {"message": "No.", "type": type_, "param": "p", "code": "c"}}


def test_those_who_may_try_again_are_told_when() -> None:
    assert {kind.__name__ for kind, _, _ in STATUSES if "retry-after" in kind.with_headers} == {"UnavailableError"}
