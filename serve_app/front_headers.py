"""Headers that Ray Serve heeds, and that are not for clients to send.

Ray takes any client's word for whether it is watched for, how long its request may take, and what it is called in logs; and it reads these
headers, and all names, as UTF-8: others end in its own `Internal Server Error`, before any key is asked for.
"""

from collections.abc import Sequence

from serve_app.endpoint import REQUEST_ID_HEADER, is_request_id

RawHeader = tuple[bytes, bytes]
_CONTROLS = frozenset({b"x_request_disconnect_disabled", b"x_request_timeout_seconds", b"x_session_id", b"serve_multiplexed_model_id"})
"""As Ray compares some of them: it takes `-` for `_`."""
_ID = REQUEST_ID_HEADER.encode()


def without_controls(headers: Sequence[RawHeader]) -> list[RawHeader]:
    """Those that may go on. A request without an id gets one from Ray."""
    return [header for header in headers if _may_pass(*header)]


def _may_pass(name: bytes, value: bytes) -> bool:
    if name == _ID:
        return is_request_id(value)
    return name.isascii() and name.replace(b"-", b"_") not in _CONTROLS
