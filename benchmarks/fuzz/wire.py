"""Bytes to the application and back, and what of them is HTTP. Tolerant where a client would be strict: damage is the point."""

import asyncio
import contextlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

LIMIT_S = 10.0
"""Longer than that nothing may be silent."""
GRACE_S = 0.4
"""Silence after which a request that may still lack something is ended."""
MAX_ANSWER = 32 * 1024 * 1024
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: [^\r\n]*)?\r\n")
_LENGTH = re.compile(rb"[0-9]{1,18}\Z")
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,12})(?:[ \t;][^\r\n]*)?\r\n")
_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\Z")
_START = re.compile(rb"[A-Z]{1,20} /[\x21-\x7e]* HTTP/1\.[01]\Z")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: list[tuple[bytes, bytes]]
    """Names in lower case."""
    body: bytes
    is_whole: bool

    def header(self, name: bytes) -> bytes:
        return next((value for each, value in self.headers if each == name), b"")


@dataclass
class Exchange:
    """What came back over one connection."""

    raw: bytes = b""
    answers: list[Answer] = field(default_factory=list)
    rest: bytes = b""
    """What is no HTTP, or behind the last whole answer."""
    is_closed: bool = False
    """By the other end."""
    hung: bool = False
    seconds: float = 0.0


def is_whole_request(sent: bytes) -> bool:
    """Whether `sent` is one request, beyond doubt, with nothing missing and nothing behind it: then an answer is due."""
    head, found, body = sent.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    if not found or not _START.match(first) or not all(_LINE.match(line) for line in lines):
        return False
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    lengths = [value for name, value in headers if name == b"content-length"]
    if any(name in (b"transfer-encoding", b"upgrade", b"expect") for name, _ in headers) or len(lengths) > 1:
        return False
    if sum(name == b"host" for name, _ in headers) != 1:
        return False
    if not lengths:
        return not body
    return bool(_LENGTH.match(lengths[0])) and int(lengths[0]) == len(body)


def read_answers(raw: bytes, methods: Sequence[bytes], *, is_closed: bool) -> tuple[list[Answer], bytes]:
    """The answers to requests with these methods (the last one stands for all that follow), and what is left. Informational ones are
    passed over; behind one that changes the protocol nothing is read."""
    answers: list[Answer] = []
    while start := _STATUS.match(raw):
        head, found, after = raw.partition(b"\r\n\r\n")
        if not found:
            break
        status = int(start[1])
        lines = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
        headers = [(name.strip().lower(), value.strip()) for name, _, value in lines]
        if 100 <= status < 200 and status != 101:
            raw = after
            continue
        method = methods[min(len(answers), len(methods) - 1)]
        body, rest, is_whole = _body(status, method, dict(headers), after, is_closed=is_closed)
        answers.append(Answer(status, headers, body, is_whole))
        raw = rest
        if status == 101 or not is_whole:
            break
    return answers, raw


def _body(status: int, method: bytes, headers: dict[bytes, bytes], raw: bytes, *, is_closed: bool) -> tuple[bytes, bytes, bool]:
    """Body, what is behind it, and whether it is all there."""
    if status in (101, 204, 304) or method == b"HEAD":
        return b"", raw, True
    if b"chunked" in headers.get(b"transfer-encoding", b"").lower():
        return _chunks(raw)
    if _LENGTH.match(length := headers.get(b"content-length", b"")):
        size = int(length)
        return raw[:size], raw[size:], len(raw) >= size
    return raw, b"", is_closed


def _chunks(raw: bytes) -> tuple[bytes, bytes, bool]:
    body = bytearray()
    at = 0
    while found := _CHUNK.match(raw, at):
        size = int(found[1], 16)
        if size == 0:
            end = raw.find(b"\r\n", found.end())
            return bytes(body), raw[end + 2 :], end >= 0
        if len(raw) < found.end() + size + 2:
            break
        body += raw[found.end() : found.end() + size]
        at = found.end() + size + 2
    return bytes(body), b"", False


async def exchange(port: int, pieces: Sequence[bytes], methods: Sequence[bytes], *, is_due: bool) -> Exchange:
    """Sends the pieces and reads as many answers as there are methods. `is_due`: the request is whole, so that silence is a hang;
    otherwise the client ends its side after some silence, and the other end has to close. Never raises for what the other end does."""
    began = time.monotonic()
    result = Exchange()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as error:
        result.raw, result.is_closed = f"cannot connect: {error}".encode(), True
        return result
    sending = asyncio.ensure_future(_send(writer, pieces))
    try:
        await _receive(reader, writer, result, methods, is_due=is_due)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.transport.abort()
    result.seconds = time.monotonic() - began
    return result


async def _send(writer: asyncio.StreamWriter, pieces: Sequence[bytes]) -> None:
    with contextlib.suppress(OSError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)


async def _receive(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, result: Exchange, methods: Sequence[bytes], *, is_due: bool
) -> None:
    has_ended = False
    raw = bytearray()
    while True:
        try:
            async with asyncio.timeout(LIMIT_S if is_due or has_ended else GRACE_S):
                piece = await reader.read(262_144)
        except TimeoutError:
            if is_due or has_ended:
                result.hung = True
                break
            has_ended = True
            with contextlib.suppress(OSError):
                writer.write_eof()
            continue
        except OSError:
            piece = b""
        raw += piece
        result.is_closed = not piece
        result.answers, result.rest = read_answers(bytes(raw), methods, is_closed=result.is_closed)
        is_done = len(result.answers) >= len(methods) and result.answers[-1].is_whole and result.answers[-1].status != 101
        if not piece or is_done or len(raw) > MAX_ANSWER:
            break
    result.raw = bytes(raw)
