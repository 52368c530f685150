"""Headers of a request that Ray Serve reads, and that are not for clients to set.

Ray decodes them, and answers 500 where that fails, before the application sees the request. Some change what Ray does: the limits of
time are ours (`serve_app/time_limits.py`), and nothing here is multiplexed or bound to a session.
"""

from itertools import product

from serve_app.endpoint import REQUEST_ID_HEADER, request_id_of

Headers = list[tuple[bytes, bytes]]

_ID = REQUEST_ID_HEADER.encode()


def _spellings(*words: str) -> set[bytes]:
    """Ray takes `-` and `_` for one sign in some names, and so do proxies."""
    return {"".join(parts).encode() for parts in product(*[part for word in words for part in ((word,), "-_")][:-1])}


_RAYS = frozenset(
    _spellings("x", "request", "timeout", "seconds")
    | _spellings("x", "request", "disconnect", "disabled")
    | _spellings("x", "session", "id")
    | _spellings("serve", "multiplexed", "model", "id")
)


def without_strays(headers: Headers) -> Headers:
    """The headers without Ray's. A request id that cannot stand in a log line gives way to one of ours: Ray sends it back."""
    names = {name for name, _ in headers}
    if _ID not in names and _RAYS.isdisjoint(names) and all(map(bytes.isascii, names)):  # as nearly always
        return headers
    passed = [(name, value) for name, value in headers if name not in _RAYS and name.isascii()]
    return [(name, request_id_of(value).encode() if name == _ID else value) for name, value in passed]
