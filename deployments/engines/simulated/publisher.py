"""KV events over ZMQ, as vLLM 0.32 publishes them.

PUB sends `[topic, sequence (8 bytes, big endian), msgpack(KVEventBatch)]`. ROUTER answers `[b"", first sequence]` with
`[b"", topic, sequence, batch]` for each batch from there on that it still has, and ends with `[b"", b"", -1, b""]`.
"""

import asyncio
import socket
import time
from collections import deque
from collections.abc import Sequence

import msgspec
import zmq
import zmq.asyncio

from cache.prefix.events import Event, KVEventBatch
from deployments.engines.base import KvEventSource

TOPIC = ""
END = (-1).to_bytes(8, "big", signed=True)
_HIGH_WATER_MARK = 100_000
_REPLAY_PAUSE = 100
"""Batches that are replayed before other tasks get a turn."""


def node_ip() -> str:
    """The address that other hosts reach this one at; loopback on a host without a network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only chooses the interface
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


class KvEventPublisher:
    """Both sockets on `host`, on ports that the system chooses, in the running event loop."""

    def __init__(self, host: str, buffer_steps: int = 1000) -> None:
        """`buffer_steps` is the number of batches kept for replay. Raises `zmq.ZMQError` if `host` cannot be bound."""
        self._sequence = 0
        self._buffer: deque[tuple[bytes, bytes]] = deque(maxlen=buffer_steps)
        self._encoder = msgspec.msgpack.Encoder()
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._pub = context.socket(zmq.PUB)
        self._router = zmq.asyncio.Context(context).socket(zmq.ROUTER)
        try:
            self._pub.set_hwm(_HIGH_WATER_MARK)
            self._router.set_hwm(buffer_steps + 1)
            self.source = KvEventSource(_bind(self._pub, host), _bind(self._router, host), TOPIC)
        except zmq.ZMQError:
            self._close_sockets()
            raise
        self._replaying = asyncio.create_task(self._serve_replay())

    def publish(self, events: Sequence[Event]) -> None:
        """Sends one batch. Never waits: a subscriber that does not keep up loses batches, sees the gap, and asks for replay."""
        payload = self._encoder.encode(KVEventBatch(time.time(), list(events), 0))
        number = self._sequence.to_bytes(8, "big")
        self._sequence += 1
        self._buffer.append((number, payload))
        self._pub.send_multipart((TOPIC.encode(), number, payload), zmq.NOBLOCK)

    def close(self) -> None:
        self._replaying.cancel()
        self._close_sockets()

    def _close_sockets(self) -> None:
        self._pub.close(linger=0)
        self._router.close(linger=0)

    async def _serve_replay(self) -> None:
        while True:
            frames = await self._router.recv_multipart()
            if len(frames) == 3 and len(frames[2]) == 8:
                await self._replay(frames[0], frames[2])

    async def _replay(self, client: bytes, first: bytes) -> None:
        wanted = [batch for batch in self._buffer if batch[0] >= first]
        for count, (number, payload) in enumerate(wanted, start=1):
            await self._router.send_multipart((client, b"", TOPIC.encode(), number, payload))
            if count % _REPLAY_PAUSE == 0:
                await asyncio.sleep(0)
        await self._router.send_multipart((client, b"", b"", END, b""))


def _bind(sock: zmq.Socket[bytes] | zmq.asyncio.Socket, host: str) -> str:
    if ":" in host:
        sock.setsockopt(zmq.IPV6, 1)
        host = f"[{host}]"
    sock.bind(f"tcp://{host}:0")
    return sock.getsockopt_string(zmq.LAST_ENDPOINT)
