"""Headers of a request that Ray Serve reads, and that are not for clients to set.

Ray decodes them, and answers 500 where that fails, before the application sees the request. Some change what Ray does: the limits of
time are ours (`serve_app/time_limits.py`), and nothing here is multiplexed or bound to a session.
"""

from serve_app.endpoint import REQUEST_ID_HEADER, request_id_of

Headers = list[tuple[bytes, bytes]]

_ID = REQUEST_ID_HEADER.encode()
_RAYS = frozenset({b"x_request_timeout_seconds", b"x_request_disconnect_disabled", b"x_session_id", b"serve_multiplexed_model_id"})
"""With underscores: Ray takes both signs for one, and so do proxies."""


def without_strays(headers: Headers) -> Headers:
    """The headers without Ray's. A request id that cannot stand in a log line gives way to one of ours: Ray sends it back."""
    kept = [(name, value) for name, value in headers if name.replace(b"-", b"_") not in _RAYS]
    return [(name, request_id_of(value).encode()) if name == _ID else (name, value) for name, value in kept]
