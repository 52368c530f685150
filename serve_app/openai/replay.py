"""Kept answers, rendered once; each reply puts in its own id and time."""

import secrets
from collections.abc import Sequence

import msgspec

from serve_app.openai import answers

_PLACE = secrets.token_hex(16)
"""Stands for the id while a stream is rendered. Nobody can have it in an answer on purpose."""
_OWN = '"id":"%s","created":%d,'
_OWN_PLACE = (_OWN % (_PLACE, 0)).encode()
ID_PREFIXES = {"chat": "chatcmpl-", "completion": "cmpl-", "response": "resp_", "message": "msg_"}

Pieces = Sequence[bytes | memoryview]
"""A reply cut at the places of its id and time."""


def render(raw: bytes, kind: str, *, stream: bool, include_usage: bool) -> Pieces:
    """A kept answer of a `chat` or a `completion`. Raises `msgspec.DecodeError` for one that was damaged, or is of another kind."""
    answer = answers.from_kept(raw, kind)
    if stream:
        return answers.to_stream(answer, _PLACE, 0, include_usage).split(_OWN_PLACE)
    compact = raw if raw.startswith(b'{"') else msgspec.json.encode(answer)
    return b"{", memoryview(compact)[1:]


def fill(pieces: Pieces, response_id: str, created: int) -> bytes:
    """The reply's body. `created`: seconds since the epoch."""
    return (_OWN % (response_id, created)).encode().join(pieces)
