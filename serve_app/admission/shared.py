"""What tenants and keys have had in all ingresses together.

Each ingress tells the others (`deployments/gossip.py`) what it has let pass, in sums, of those that have just had something or have open
requests; the others take it from their own buckets, which may owe then. Names do not travel, only keyed hashes of them.

The bound: in any W seconds all ingresses together let pass a limit's burst, its rate times W, and what the others let pass before the news
of it came (`fleet_watch.TELL_S` and the message's way, 0.2 s or so; a lost message adds as much). At worst that is one burst for each
further ingress, once: it is owed, and has to fill up before more passes. An ingress that starts takes from its buckets what the others
have let pass in a minute on the average; if they had it all at once, it adds a burst. Of more than `MAX_TOLD` at a time news is slower.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from serve_app.admission.bucket import SECONDS

TOPIC = "limits"
MAX_TOLD = 512
"""Tenants and keys in one message; the next ones are in the next."""
REPEAT_S = 1.0
"""So long a change is told again: a message may be lost."""
OPEN_S = 5.0
"""Requests that an ingress has open count for so long after it has said so: it may be dead."""
SLOT_S = 5.0
"""What was had within so many seconds is remembered together."""
MAX_REMEMBERED = 10_000
"""Tenants and keys of which is remembered what others told."""


class Had(NamedTuple):
    """By one tenant or key in one ingress, since that counts."""

    name: bytes
    requests: int
    tokens: float
    running: int
    for_s: float
    """So long it counts."""


@dataclass(slots=True)
class Count:
    """Of one tenant or key, in this ingress."""

    name: bytes
    since: float
    requests: int = 0
    tokens: float = 0.0
    running: int = 0
    changed_at: float = 0.0


@dataclass(slots=True)
class _Elsewhere:
    """What the others have let pass of one tenant or key."""

    ingresses: dict[str, tuple[Had, float]] = field(default_factory=dict)
    """What each told last, and when."""
    slots: deque[tuple[float, float, float]] = field(default_factory=deque)
    """Of the last minute: when each began, requests, tokens."""


class SharedCounts:
    """A `deployments.gossip.Topic`. `take`: is told what others have let pass (name, requests, tokens)."""

    def __init__(self, secret: bytes, clock: Callable[[], float], take: Callable[[bytes, float, float], None]) -> None:
        self._secret = secret
        self._clock = clock
        self._take = take
        self._due: OrderedDict[bytes, Count] = OrderedDict()
        """To be told, in this order."""
        self._elsewhere: OrderedDict[bytes, _Elsewhere] = OrderedDict()

    def count(self, name: str) -> Count:
        """A new one."""
        return Count(blake2b(name.encode(), key=self._secret[:64], digest_size=8).digest(), self._clock())

    def changed(self, count: Count) -> None:
        count.changed_at = self._clock()
        self._due[count.name] = count

    def running(self, name: bytes) -> int:
        """Requests that others have open."""
        elsewhere, now = self._elsewhere.get(name), self._clock()
        return sum(had.running for had, at in elsewhere.ingresses.values() if now - at <= OPEN_S) if elsewhere else 0

    def lately(self, name: bytes) -> list[tuple[float, float, float]]:
        """Of the last minute, in order: when, requests and tokens that others have let pass."""
        elsewhere, now = self._elsewhere.get(name), self._clock()
        return [slot for slot in elsewhere.slots if now - slot[0] <= SECONDS] if elsewhere else []

    def tell(self) -> Any:
        now, told = self._clock(), []
        for name in list(islice(self._due, MAX_TOLD)):
            count = self._due.pop(name)
            told.append(Had(name, count.requests, count.tokens, count.running, now - count.since))
            if count.running or now - count.changed_at < REPEAT_S:
                self._due[name] = count  # behind the others
        return told or None

    def hear(self, ingress: str, told: Any) -> None:
        for had in msgspec.convert(told, list[Had], strict=False):
            self._hear(ingress, had)

    def _hear(self, ingress: str, had: Had) -> None:
        now = self._clock()
        elsewhere = self._elsewhere.pop(had.name, None) or _Elsewhere()
        self._elsewhere[had.name] = elsewhere
        if len(self._elsewhere) > MAX_REMEMBERED:
            self._elsewhere.popitem(last=False)
        before, _ = elsewhere.ingresses.get(ingress, (None, 0.0))
        if before is None or had.for_s < before.for_s:  # nothing is known of it: what it has had in a minute, on the average
            share = min(1.0, SECONDS / max(had.for_s, 1.0))
            requests, tokens = had.requests * share, had.tokens * share
        else:
            requests, tokens = float(had.requests - before.requests), had.tokens - before.tokens
        elsewhere.ingresses = {name: each for name, each in elsewhere.ingresses.items() if now - each[1] <= SECONDS}
        elsewhere.ingresses[ingress] = had, now
        if requests or tokens:
            self._remember(elsewhere, now, requests, tokens)
            self._take(had.name, requests, tokens)

    def _remember(self, elsewhere: _Elsewhere, now: float, requests: float, tokens: float) -> None:
        slots = elsewhere.slots
        while slots and now - slots[0][0] > SECONDS:
            slots.popleft()
        if slots and now - slots[-1][0] < SLOT_S:
            at, had_requests, had_tokens = slots.pop()
            slots.append((at, had_requests + requests, had_tokens + tokens))
        else:
            slots.append((now, requests, tokens))
