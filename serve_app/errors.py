"""Errors of the application, and the one place where errors become OpenAI's error JSON.

AppError
├── ConfigError              the configuration is wrong; the message names the key
└── ApiError                 an answer other than 200
    ├── InvalidRequestError  400  invalid_request_error
    ├── NotFoundError        404  invalid_request_error
    ├── MethodError          405  invalid_request_error
    ├── TooLargeError        413  invalid_request_error
    ├── UnavailableError     503  service_unavailable     try again
    └── UpstreamError        502  server_error            the engine failed

Messages name fields and limits, never what the client sent.
"""

from typing import Any, ClassVar


class AppError(Exception):
    """Base of everything this package raises on purpose."""


class ConfigError(AppError):
    """The configuration is wrong; the message names the key."""


class ApiError(AppError):
    """An answer other than 200. `param` names a field of the request."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    headers: ClassVar[dict[str, str]] = {}

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class InvalidRequestError(ApiError):
    status = 400
    type = "invalid_request_error"


class NotFoundError(ApiError):
    status = 404
    type = "invalid_request_error"


class MethodError(ApiError):
    status = 405
    type = "invalid_request_error"


class TooLargeError(ApiError):
    status = 413
    type = "invalid_request_error"


class UnavailableError(ApiError):
    status = 503
    type = "service_unavailable"
    headers: ClassVar[dict[str, str]] = {"retry-after": "1"}


class UpstreamError(ApiError):
    status = 502
    type = "server_error"
