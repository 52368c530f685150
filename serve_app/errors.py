"""Errors of the application, and the one place where errors become OpenAI's error JSON.

AppError
├── ConfigError              the configuration is wrong; the message names the key
├── KeyringError             the database of the keys did not answer, or refused
├── ContextStoreError        the database of kept contexts did not answer, or refused
└── ApiError                 an answer other than 200
    ├── InvalidRequestError  400  invalid_request_error
    ├── AuthenticationError  401  invalid_request_error   no key, or none that is good
    ├── ForbiddenError       403  invalid_request_error   the key may not do this
    ├── NotFoundError        404  invalid_request_error
    ├── MethodError          405  invalid_request_error
    ├── SlowBodyError        408  invalid_request_error   the body did not arrive
    ├── TooLargeError        413  invalid_request_error
    ├── EncodingError        415  invalid_request_error   the body is compressed
    ├── QuotaError           429  requests            the tenant has as many of something as it may have
    ├── RateLimitError       429  requests, tokens        the tenant, or the key, has had what it may have
    ├── UnavailableError     503  service_unavailable     try again
    ├── UpstreamError        502  server_error            the engine failed
    └── OverdueError         504  timeout_error           it took too long

Messages name fields, limits and ids, never what else the client sent.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from cache.errors import CacheError, KeyFormatError
from deployments.errors import DeploymentError, NoReplicaError, QueueFullError, ReplicaLostError, SilentReplicaError
from retrieval.errors import BusyError, InputError, OversizeError, RetrievalError, UnknownError, UnknownUploadError
from retrieval.wording import sentence


class AppError(Exception):
    """Base of everything this package raises on purpose."""


class ConfigError(AppError):
    """The configuration is wrong; the message names the key."""


class KeyringError(AppError):
    """The database of the keys did not answer, or refused."""


class ContextStoreError(AppError):
    """The database of kept contexts did not answer, or refused."""


class ApiError(AppError):
    """An answer other than 200. `param` names a field of the request."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    with_headers: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.headers = {**self.with_headers, **(headers or {})}

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class InvalidRequestError(ApiError):
    status = 400
    type = "invalid_request_error"


class AuthenticationError(ApiError):
    status = 401
    type = "invalid_request_error"
    with_headers: ClassVar[Mapping[str, str]] = {"www-authenticate": "Bearer"}


class ForbiddenError(ApiError):
    status = 403
    type = "invalid_request_error"


class NotFoundError(ApiError):
    status = 404
    type = "invalid_request_error"


class MethodError(ApiError):
    status = 405
    type = "invalid_request_error"


class SlowBodyError(ApiError):
    status = 408
    type = "invalid_request_error"
    with_headers: ClassVar[Mapping[str, str]] = {"connection": "close"}


class TooLargeError(ApiError):
    status = 413
    type = "invalid_request_error"


class QuotaError(ApiError):
    """Waiting is of no use, but for what ends by itself."""

    status = 429
    type = "requests"


class EncodingError(ApiError):
    """Nothing is inflated here: a few bytes may become gigabytes."""

    status = 415
    type = "invalid_request_error"
    with_headers: ClassVar[Mapping[str, str]] = {"accept-encoding": "identity"}


class RateLimitError(ApiError):
    """`type` says of what there was too much, as OpenAI's does."""

    status = 429
    type = "requests"

    def __init__(self, message: str, *, kind: str, retry_after_s: float, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, code="rate_limit_exceeded", headers={**(headers or {}), "retry-after": _whole_seconds(retry_after_s)})
        self.kind = kind

    def body(self) -> dict[str, Any]:
        error = super().body()
        error["error"]["type"] = self.kind
        return error


class UnavailableError(ApiError):
    status = 503
    type = "service_unavailable"
    with_headers: ClassVar[Mapping[str, str]] = {"retry-after": "1"}


class UpstreamError(ApiError):
    status = 502
    type = "server_error"


class OverdueError(ApiError):
    """`code` names the limit: `first_token_timeout`, `between_tokens_timeout` or `total_timeout`."""

    status = 504
    type = "timeout_error"


MAX_RETRY_S = 3600


def _whole_seconds(seconds: float) -> str:
    """For `Retry-After`."""
    return str(math.ceil(min(max(seconds, 1), MAX_RETRY_S)))


_KINDS = {"vector_store_id": "vector store", "file_id": "file", "batch_id": "batch of files"}
"""What the ids of `UnknownError` name."""
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
"""One that is repeated."""


def to_api_error(error: Exception) -> ApiError:
    """What a client is told of any error."""
    match error:
        case ApiError():
            return error
        case QueueFullError() if error.is_own:
            return RateLimitError("Too many of your tenant's requests wait already.", kind="requests", retry_after_s=error.retry_after_s)
        case QueueFullError():
            retry_after = {"retry-after": _whole_seconds(error.retry_after_s)}
            return UnavailableError("Too many requests wait for an engine. Try again later.", code="overloaded", headers=retry_after)
        case NoReplicaError():
            return UnavailableError("No replica can take the request now. Try again.", code="no_replica")
        case SilentReplicaError() if error.has_begun:
            return OverdueError("The engine stopped within its answer.", code="between_tokens_timeout")
        case SilentReplicaError():
            return OverdueError("The engine did not begin its answer in time.", code="first_token_timeout")
        case ReplicaLostError():
            return UnavailableError("The replica was lost. Try again.", code="replica_lost")
        case UnknownUploadError():  # of an id that the client has never seen: a process between has ended, or waited for too long
            return UnavailableError("The upload was lost on its way. Upload the file again.", param="file", code="upload_lost")
        case UnknownError():
            which = f": {error.id}" if _ID.fullmatch(error.id) else ""
            return NotFoundError(f"There is no such {_KINDS[error.field]}{which}.", param=error.field, code="not_found")
        case OversizeError():
            return TooLargeError(f"{error}.", param="file", code="file_too_large")
        case BusyError():
            return UnavailableError(f"Too much waits already: {error}. Try again later.", code="busy")
        case InputError():
            return InvalidRequestError(sentence(str(error), error.field), param=error.field, code="invalid_value")
        case KeyringError():
            return UnavailableError("Keys cannot be checked or changed now. Try again.", code="keyring_unavailable")
        case ContextStoreError():
            return UnavailableError("Kept contexts cannot be read or changed now. Try again.", code="contexts_unavailable")
        case KeyFormatError():
            return InvalidRequestError("The request has a number or a text that cannot be kept.", code="invalid_value")
        case TimeoutError():
            return UnavailableError("A part of the application did not answer in time. Try again.", code="unavailable")
        case DeploymentError() | RetrievalError() | CacheError():
            return UnavailableError("A part of the application did not answer. Try again.", code="unavailable")
        case _:
            return ApiError("The server had an error. The request id names it in the logs.", code="internal_error")
