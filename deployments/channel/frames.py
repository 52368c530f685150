"""Frames of the private channel: what stands on the wire, without any input or output.

A frame is the length of its payload, the number of its exchange, its kind, and the payload. All numbers are big-endian.
"""

import hmac
import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

import msgspec

from deployments.errors import ChannelError

NONCE_BYTES = 32
MAX_PAYLOAD = 64 * 1024 * 1024
"""Longer than any body that the ingress takes."""
MAX_GREETING = 2 * NONCE_BYTES
WINDOW = 256 * 1024
"""Bytes of one answer that may be under way, or wait at its reader; then its writer waits."""

_HEAD = struct.Struct("!IIB")
_COUNT = struct.Struct("!I")
Headers = list[tuple[bytes, bytes]]


class Kind(IntEnum):
    HELLO = 1
    PROOF = 2
    WELCOME = 3
    REQUEST = 4
    CANCEL = 5
    CREDIT = 6
    START = 7
    DATA = 8
    END = 9
    FAILED = 10


class Frame(NamedTuple):
    kind: int
    exchange: int
    payload: bytes


class Request(NamedTuple):
    """`target`: path and query as in HTTP's request line."""

    method: str
    target: str
    headers: Headers
    body: bytes


class Start(NamedTuple):
    """What an answer begins with."""

    status: int
    headers: Headers


_request_of = msgspec.msgpack.Decoder(Request).decode
_start_of = msgspec.msgpack.Decoder(Start).decode
_packed = msgspec.msgpack.Encoder().encode


def frame(kind: Kind, exchange: int = 0, payload: bytes = b"") -> bytes:
    return _HEAD.pack(len(payload), exchange, kind) + payload


def pack(value: Request | Start) -> bytes:
    return _packed(value)


def unpack_request(payload: bytes) -> Request:
    """Raises `ChannelError`."""
    try:
        return _request_of(payload)
    except msgspec.DecodeError as error:
        raise ChannelError("a request that cannot be read") from error


def unpack_start(payload: bytes) -> Start:
    """Raises `ChannelError`."""
    try:
        return _start_of(payload)
    except msgspec.DecodeError as error:
        raise ChannelError("an answer that cannot be read") from error


def pack_count(number: int) -> bytes:
    return _COUNT.pack(number)


def unpack_count(payload: bytes) -> int:
    """Raises `ChannelError`."""
    if len(payload) != _COUNT.size:
        raise ChannelError("a number that cannot be read")
    number: int = _COUNT.unpack(payload)[0]
    return number


def proof(secret: bytes, side: str, url: str, server_nonce: bytes, client_nonce: bytes) -> bytes:
    """What shows that one side knows the secret, for this connection to this address only: HMAC-SHA256, 32 bytes."""
    return hmac.digest(secret, side.encode() + server_nonce + client_nonce + url.encode(), "sha256")


class Decoder:
    """Cuts a stream of bytes into frames. Until both sides have proved who they are, only greetings' lengths are believed."""

    def __init__(self) -> None:
        self.limit = MAX_GREETING
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterable[Frame]:
        """The frames that are complete now. Raises `ChannelError` for one that is too long."""
        source: bytes | bytearray = data
        if self._rest:
            self._rest += data
            source = self._rest
        place, end = 0, len(source)
        frames = []
        while end - place >= _HEAD.size:
            length, exchange, kind = _HEAD.unpack_from(source, place)
            if length > self.limit:
                raise ChannelError("a frame that is too long")
            after = place + _HEAD.size + length
            if after > end:
                break
            frames.append(Frame(kind, exchange, bytes(source[place + _HEAD.size : after])))
            place = after
        if source is data:
            self._rest += data[place:]
        else:
            del self._rest[:place]
        return frames
