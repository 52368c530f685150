"""WebSocket connections of ModelCache's clients, damaged."""

import json
import random
import struct

from benchmarks.fuzz.requests import Tenant, modelcache

PATH = "/modelcache"
_SHAKEN = ("sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-version: 13", "upgrade: websocket", "connection: upgrade")


def conversation(tenant: Tenant, rng: random.Random) -> list[bytes]:
    """A handshake and some frames, in pieces. The last one closes, mostly."""
    lines = [f"GET {PATH} HTTP/1.1", "host: 127.0.0.1", f"authorization: Bearer {tenant.key}", *_SHAKEN]
    if rng.random() < 0.3:
        at = rng.randrange(1, len(lines))
        lines[at] = rng.choice((f"{lines[at]}x", "x: y", f"{lines[at]}\r\n{lines[at]}", lines[at].partition(":")[0] + ":"))
    if rng.random() < 0.1:
        lines.append(
            rng.choice(
                ("sec-websocket-extensions: permessage-deflate; x=" + "y" * 500, "sec-websocket-protocol: \x7f", "content-length: 5")
            )
        )
    frames = [_frame(tenant, rng) for _ in range(rng.randrange(1, 6))]
    close = frame(8, struct.pack("!H", rng.choice((1000, 1000, 999, 5000))), rng) if rng.random() < 0.8 else b""
    return ["\r\n".join([*lines, "", ""]).encode(), *frames, close]


def frame(kind: int, payload: bytes, rng: random.Random, *, first: int = 0x80, masked: bool = True, size: int | None = None) -> bytes:
    """`first`: the bits beside the kind. `size`: the length that it says, which need not be the payload's."""
    length = len(payload) if size is None else size
    bit = 0x80 if masked else 0
    head = bytes([first | kind])
    if length < 126:
        head += bytes([bit | length])
    elif length < 65_536:
        head += bytes([bit | 126]) + struct.pack("!H", length)
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", length)
    if not masked:
        return head + payload
    mask = rng.randbytes(4)
    return head + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


def _frame(tenant: Tenant, rng: random.Random) -> bytes:
    text = json.dumps({"requestId": rng.choice(("r1", 7, None, [], {"a": 1}, "")), "payload": modelcache(tenant, rng)}).encode()
    drawn = rng.random()
    if drawn < 0.4:
        return frame(rng.choice((1, 1, 2)), text, rng)
    if drawn < 0.6:
        nested = rng.choice(
            (b"[" * 5000, b'{"requestId": 1, "payload": ' + b"9" * 5000 + b"}", b"\xff\xfe", b"{}", b'"' + text + b'"', b"null", text[:-3])
        )
        return frame(1, nested, rng)
    strange = (
        frame(1, text, rng, masked=False),
        frame(1, text, rng, first=0xF0),
        frame(0, text, rng),
        frame(1, text[:9], rng, first=0) + frame(0, text[9:], rng),
        frame(1, text[:9], rng, first=0) + frame(1, text, rng),
        frame(3, text, rng),
        frame(9, b"x" * 200, rng),
        frame(9, b"ping", rng),
        frame(10, b"", rng),
        frame(1, text, rng, size=2**62),
        frame(1, text, rng, size=2**63 + 5),
        frame(1, text, rng, size=len(text) + 5),
        frame(8, b"\x03", rng),
        rng.randbytes(30),
    )
    return rng.choice(strange)
