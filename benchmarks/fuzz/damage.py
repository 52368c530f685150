"""What is done to valid requests. Everything is drawn from the generator that is given, so a seed and a number make the same bytes."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from benchmarks.fuzz.nasty import HEADERS, METHODS, NUMBERS, PATHS, SHAPES, TEXTS, VERSIONS
from benchmarks.fuzz.oracle import INJECTED
from benchmarks.fuzz.requests import Request, Tenant, draw

Pieces = list[bytes]
_INJECTION = b"\r\n" + INJECTED + b": 1\r\n"


def damaged(request: Request, rng: random.Random) -> Pieces:
    """One to three kinds of damage, and how the bytes are cut into pieces."""
    if request.body.startswith(b"{") and rng.random() < 0.6:
        first, end, rest = request.body.partition(b"\n")  # lines of JSON, or one
        request = _resized(request, _json(first, rng) + end + rest)
    raw = request.raw()
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        raw = rng.choice(_KINDS)(raw, rng)
    return _cut(raw, rng)


def pipelined(tenants: list[Tenant], rng: random.Random) -> tuple[Pieces, list[Request]]:
    """Several valid requests over one connection, perhaps of different tenants, without waiting for answers."""
    requests = [draw(rng.choice(tenants), rng) for _ in range(rng.randrange(2, 5))]
    return _cut(b"".join(request.raw() for request in requests), rng), requests


def smuggled(request: Request, rng: random.Random) -> Pieces:
    """A request whose length can be read in two ways, with the beginning of another behind it: whoever is next must not get its answer."""
    inner = request.raw()
    fields = [f"{name}: {value}" for name, value in request.headers if not name.startswith("content-")]
    head = "\r\n".join(("POST /v1/embeddings HTTP/1.1", *fields))
    chunk = b"0\r\n\r\n"
    lengths = (
        f"content-length: {len(chunk) + len(inner)}\r\ntransfer-encoding: chunked",
        f"transfer-encoding: chunked\r\ncontent-length: {len(chunk)}",
        "transfer-encoding: xchunked\r\ncontent-length: 0",
        "transfer-encoding: chunked\r\ntransfer-encoding: x",
        "content-length: 0\r\ncontent-length: 5",
        "content-length: 0",
        "connection: content-length\r\ncontent-length: 3",
    )
    return _cut(f"{head}\r\n{rng.choice(lengths)}\r\n\r\n".encode() + chunk + inner, rng)


def _resized(request: Request, body: bytes) -> Request:
    """With the length that its body has."""
    headers = [(name, str(len(body)) if name == "content-length" else value) for name, value in request.headers]
    return replace(request, headers=headers, body=body)


def _json(body: bytes, rng: random.Random) -> bytes:
    """With one value exchanged, added or said twice."""
    value: Any = json.loads(body)
    strange = f"@{rng.getrandbits(64):x}@"
    holder, key = _place(value, rng)
    if isinstance(holder, dict) and rng.random() < 0.2:
        holder[rng.choice((f"{key}2", "", "\x00", "__proto__", "kv_transfer_params", "vllm_xargs", "mm_processor_kwargs"))] = strange
    else:
        holder[key] = strange
    drawn = rng.random()
    nasty = rng.choice(NUMBERS) if drawn < 0.4 else rng.choice(TEXTS if drawn < 0.7 else SHAPES).encode()
    made = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode().replace(f'"{strange}"'.encode(), nasty)
    if rng.random() < 0.1:
        made = made[:-1] + rng.choice((b',"model":"x"}', b',"messages":[]}', b',"scope":1}', b"}\x00", b"}}", b",}"))
    if rng.random() < 0.05:
        made = rng.choice(
            (b"\xef\xbb\xbf" + made, made.decode().encode("utf-16"), b"\xff" + made, b" " * 3000 + made, json.dumps(made.decode()).encode())
        )
    return made


def _place(value: Any, rng: random.Random) -> tuple[Any, Any]:
    """A container below `value`, and a key or an index in it."""
    places: list[tuple[Any, Any]] = []

    def walk(each: Any) -> None:
        for key, below in each.items() if isinstance(each, dict) else enumerate(each):
            places.append((each, key))
            if isinstance(below, dict | list):
                walk(below)

    walk(value)
    return rng.choice(places) if places else (value, "x")


def _cut(raw: bytes, rng: random.Random) -> Pieces:
    """Mostly whole; else in several pieces, which may end within a line."""
    if rng.random() < 0.8 or len(raw) < 2:
        return [raw]
    ends = sorted(rng.sample(range(1, len(raw)), min(len(raw) - 1, rng.randrange(1, 6))))
    return [raw[begin:end] for begin, end in zip([0, *ends], [*ends, len(raw)], strict=True)]


def _flipped(raw: bytes, rng: random.Random) -> bytes:
    made = bytearray(raw)
    # In the head or the body, whichever is chosen, and not mostly in the longer one.
    border = raw.find(b"\r\n\r\n") + 4
    first, last = (0, border) if rng.random() < 0.5 else (border, len(raw))
    for _ in range(rng.choice((1, 1, 2, 8))):
        if last > first:
            made[rng.randrange(first, last)] ^= 1 << rng.randrange(8)
    return bytes(made)


def _truncated(raw: bytes, rng: random.Random) -> bytes:
    return raw[: rng.randrange(len(raw) + 1)]


def _repeated(raw: bytes, rng: random.Random) -> bytes:
    begin = rng.randrange(len(raw) + 1)
    end = min(len(raw), begin + rng.choice((1, 10, 100)))
    return raw[:end] + raw[begin:end] * rng.choice((1, 3)) + raw[end:]


def _shortened(raw: bytes, rng: random.Random) -> bytes:
    begin = rng.randrange(len(raw) + 1)
    return raw[:begin] + raw[begin + rng.choice((1, 4, 40)) :]


def _inserted(raw: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(raw) + 1)
    junk = (
        b"\x00",
        b"\r\n",
        b"\n",
        b"\r",
        b"\xff",
        b"\xed\xa0\x80",
        rng.randbytes(9),
        _INJECTION,
        b"%00",
        b'"',
        b"{",
        b"\x16\x03\x01",
        b"\r\n\r\n",
    )
    return raw[:at] + rng.choice(junk) + raw[at:]


def _with_header(raw: bytes, rng: random.Random) -> bytes:
    first, found, rest = raw.partition(b"\r\n")
    return first + found + b"\r\n".join(rng.choices(HEADERS, k=rng.choice((1, 1, 2)))) + found + rest if found else raw


def _many_headers(raw: bytes, rng: random.Random) -> bytes:
    first, found, rest = raw.partition(b"\r\n")
    return first + found + b"".join(b"x-%d: y\r\n" % number for number in range(rng.choice((60, 120, 900)))) + rest


def _without_header(raw: bytes, rng: random.Random) -> bytes:
    lines = raw.split(b"\r\n")
    if len(lines) > 3:
        del lines[rng.randrange(1, min(len(lines), 7))]
    return b"\r\n".join(lines)


def _line(raw: bytes) -> tuple[list[bytes], bytes]:
    """The parts of the request line, always three, and what is behind it."""
    first, found, rest = raw.partition(b"\r\n")
    parts = first.split(b" ", 2)
    return [*parts, b"", b""][:3], found + rest


def _other_path(raw: bytes, rng: random.Random) -> bytes:
    (method, path, version), rest = _line(raw)
    strange = rng.choice(PATHS).encode()
    absolute = (b"http://127.0.0.1" + path, b"http://x@y:0/" + path, b"*", b"127.0.0.1:80", b"", path.replace(b"v1", b"V1"))
    cut = path.rpartition(b"/")[0]
    return (
        b" ".join(
            (method, rng.choice((path + strange, path + strange, cut + strange, strange, *absolute[:1], rng.choice(absolute))), version)
        )
        + rest
    )


def _other_method(raw: bytes, rng: random.Random) -> bytes:
    (_, path, version), rest = _line(raw)
    return b" ".join((rng.choice(METHODS), path, version)) + rest


def _other_version(raw: bytes, rng: random.Random) -> bytes:
    (method, path, _), rest = _line(raw)
    return b" ".join((method, path, rng.choice(VERSIONS))) + rest


def _chunked(raw: bytes, rng: random.Random) -> bytes:
    """The body in chunks, mostly damaged ones."""
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    at = rng.randrange(len(body) + 1)
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in (body[:at], body[at:]) if each) + b"0\r\n\r\n"
    size = b"%x" % max(at, 1)
    damage: tuple[Callable[[], bytes], ...] = (
        lambda: chunks,
        lambda: chunks[:-5],
        lambda: b"-" + chunks,
        lambda: b"fffffffffffffffff\r\n" + chunks,
        lambda: chunks.replace(size, b"0x" + size, 1),
        lambda: chunks.replace(size, size + b";" + b"x" * 3000, 1),
        lambda: chunks.replace(b"\r\n", b"\n", 1),
        lambda: chunks[:-2] + b"authorization: Bearer x\r\nx-injected: 1\r\n\r\n",
        lambda: chunks.replace(size, b"g", 1),
        lambda: chunks[:-5] + b"0\r\n",
        lambda: chunks[:-5] + b"ffffffff\r\nx",
        lambda: chunks.replace(size, b" " + size, 1),
    )
    return b"\r\n".join([*lines, b"transfer-encoding: chunked"]) + b"\r\n\r\n" + rng.choice(damage)()


_KINDS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_flipped, _flipped, _truncated, _repeated, _shortened, _inserted, _inserted, _with_header, _with_header, _with_header),
    *(_many_headers, _without_header, _other_path, _other_path, _other_path, _other_method, _other_version, _chunked, _chunked),
)
