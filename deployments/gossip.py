"""What ingresses tell each other, so that what they share is shared: no ingress talks to another; replicas pass on what they are told.

A message has the state of some topics at its sender, in sums that only its sender changes. So a message that is lost, comes twice or comes
late does no harm: the next one says the same, and an older one than the last is ignored.
"""

import asyncio
import random
from collections import deque
from typing import Any, Protocol

import msgspec

MAX_BYTES = 64 * 1024
"""Of a message."""
MAX_BEHIND = 256
"""Messages that a replica keeps for an ingress that does not listen at the moment."""
MAX_INGRESSES = 1024
"""Senders of which is remembered what they told last."""


class Topic(Protocol):
    """What an ingress shares. In its event loop."""

    def tell(self) -> Any:
        """Lists, numbers and texts. None: nothing is new."""

    def hear(self, ingress: str, told: Any) -> None:
        """What `tell` of another ingress gave. Raises `ValueError` or `TypeError` if it is nothing that this topic understands."""


class Relay:
    """Of a replica."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()

    def listen(self, ingress: str) -> "Listener":
        listener = Listener(ingress)
        self._listeners.add(listener)
        return listener

    def leave(self, listener: "Listener") -> None:
        self._listeners.discard(listener)

    def say(self, ingress: str, message: bytes) -> None:
        """To all others."""
        if len(message) <= MAX_BYTES:
            for listener in self._listeners:
                if listener.ingress != ingress:
                    listener.said.append(message)

    def others(self, ingress: str) -> int:
        """Who listen beside this one."""
        return len({listener.ingress for listener in self._listeners} - {ingress})


class Listener:
    def __init__(self, ingress: str) -> None:
        self.ingress = ingress
        self.said: deque[bytes] = deque(maxlen=MAX_BEHIND)

    def take(self) -> list[bytes]:
        said = list(self.said)
        self.said.clear()
        return said


class _Message(msgspec.Struct, array_like=True, frozen=True):
    sender: str
    number: int
    topics: dict[str, Any]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Message).decode


class Gossip:
    """Of one ingress, in its event loop. `name`: this process's alone, so that a process that begins anew is another one."""

    def __init__(self, name: str) -> None:
        self.name = f"{name}/{random.getrandbits(32):08x}"
        self.others = 0
        """Ingresses that hear it."""
        self.urgent = asyncio.Event()
        """There is something to tell that should not wait."""
        self._topics: dict[str, Topic] = {}
        self._number = 0
        self._last: dict[tuple[str, str], int] = {}
        """By sender and topic."""

    def add(self, name: str, topic: Topic) -> None:
        self._topics[name] = topic

    def message(self, *names: str) -> bytes | None:
        """Of these topics, or of all. None: there is nothing to tell, or nobody to be told."""
        if not self.others:
            return None
        told = {name: told for name in names or self._topics if (told := self._topics[name].tell()) is not None}
        if not told:
            return None
        self._number += 1
        return _encode(_Message(self.name, self._number, told))

    def hear(self, raw: bytes) -> None:
        """Raises `msgspec.DecodeError`, `ValueError`, `TypeError`."""
        message = _decode(raw)
        if message.sender == self.name:
            return
        for name, told in message.topics.items():
            key = message.sender, name
            if name in self._topics and message.number > self._last.get(key, 0):
                self._last.pop(key, None)
                self._last[key] = message.number
                if len(self._last) > MAX_INGRESSES:
                    del self._last[next(iter(self._last))]
                self._topics[name].hear(message.sender, told)
