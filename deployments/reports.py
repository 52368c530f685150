"""What a replica tells every ingress, all the time: blocks that came and went, and what it is doing.

A stream of messages over the private channel, each with its length before it. The first ones carry a snapshot of the engine's prefix
cache; so does one that follows after a reader lagged behind.
"""

import hashlib

import msgspec

from cache.prefix.mirror import Change

WATCH_PATH = "/mygo/watch"
QUEUE_PATH = "/mygo/queue"
"""Takes a number: weights of the tenants whose requests wait in the ingress that asks."""
KEEP_PATH = "/mygo/keep"
"""Takes `prefix_keeper.Order`s as MessagePack, and answers with a `Kept` for each."""
RENDER_PATH = "/mygo/render"
ENCODE_PATH = "/mygo/encode"
"""Takes a JSON list of texts. Answers with 32-bit numbers: how many tokens each has, and then all of them."""
INGRESS_HEADER = "x-mygo-ingress"
"""Who asks: each ingress knows its own requests, and is told of the others'."""
WORK_HEADER = "x-mygo-work"
"""Cached tokens, uncached tokens and seconds of prefill, as the ingress predicts them, and 1 for an answer in one piece; spaces between."""
TARGET_HEADER = "x-mygo-target"
"""On `RENDER_PATH`: the route of the request whose prompt is to be rendered."""
PERIOD_S = 0.1
_LENGTH_BYTES = 4
MAX_KEYS = 8192
"""In one message."""


class Activity(msgspec.Struct, array_like=True, frozen=True):
    """What a replica is doing."""

    running: int = 0
    waiting: int = 0
    kv_usage: float = 0.0
    draining: bool = False
    others_backlog_s: float = 0.0
    """Prefill before a request that comes now, of requests from other ingresses."""
    others_waiting: int = 0
    others_decoding: int = 0
    others_queued: float = 0.0
    """Weights of the tenants whose requests wait in other ingresses."""
    others_sent: int = 0
    """Tokens to be computed that other ingresses have sent here, ever."""


class Report(msgspec.Struct, array_like=True, frozen=True):
    activity: Activity
    is_snapshot: bool = False
    """Forget what was known: the changes start from nothing."""
    changes: list[Change] = []


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Report).decode


def prefix_seed(secret: str) -> bytes:
    """The seed of the keys, from the secret of the private channels: all replicas and ingresses of an application have it."""
    return hashlib.sha256(b"prefix keys" + secret.encode()).digest()


def pack(report: Report) -> bytes:
    payload = _encode(report)
    return len(payload).to_bytes(_LENGTH_BYTES, "big") + payload


class ReportReader:
    """Cuts the stream into reports."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Report]:
        """Raises `msgspec.DecodeError`."""
        self._rest += data
        reports = []
        while len(self._rest) >= _LENGTH_BYTES:
            end = _LENGTH_BYTES + int.from_bytes(self._rest[:_LENGTH_BYTES], "big")
            if len(self._rest) < end:
                break
            reports.append(_decode(self._rest[_LENGTH_BYTES:end]))
            del self._rest[:end]
        return reports


def in_parts(activity: Activity, is_snapshot: bool, changes: list[Change]) -> list[Report]:
    """Messages short enough that others get their turn between them."""
    parts = [
        Change(change.tier, change.stored, change.keys[start : start + MAX_KEYS])
        for change in changes
        for start in range(0, max(len(change.keys), 1), MAX_KEYS)
    ]
    groups: list[list[Change]] = [[]]
    room = MAX_KEYS
    for part in parts:
        if len(part.keys) > room:
            groups.append([])
            room = MAX_KEYS
        groups[-1].append(part)
        room -= len(part.keys)
    return [Report(activity, is_snapshot and number == 0, group) for number, group in enumerate(groups)]
