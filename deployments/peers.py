"""Whose turn it is among ingresses: as in one queue, the tenant's that has had the least, whichever ingress its request waits in.

Each tells the others which tenants' requests wait in it, and what it has charged them (`cache/prefix/fair.py`). News of what was sent
travels with the request itself: its replica passes it on together with its new load, so nobody takes a place that is taken.
"""

from collections.abc import Callable
from typing import Any
from zlib import crc32

import msgspec

from cache.prefix.fair import FairQueue, FlowAccount

TOPIC = "turns"
MAX_TOLD = 16
"""Flows that wait, least counters first, and as many that were charged last."""
FRESH_S = 1.5
"""What was told longer ago is not true any more."""
PATIENCE_S = 0.05
"""Others whose turn it is, and that do not take it for so long, are not waited for."""
NEWS_S = 0.01
"""What all ingresses send in that time need not be in order: nobody knows of it yet, and engines would wait for news of each request."""
_SAME = 1.0
"""Counters that are as near as that are equal."""


class _Peer:
    def __init__(self) -> None:
        self.told_at = float("-inf")
        self.sent = 0
        """Requests, ever."""
        self.pace = 0.0
        """Of its queue, in tokens a second."""
        self.flows: dict[str, FlowAccount] = {}


class Peers:
    """As one ingress sees them. `name`: its own, as others know it; `clock` never goes back; `pace`: of its queue, in tokens a second."""

    def __init__(self, queue: FairQueue[Any], name: str, clock: Callable[[], float], pace: Callable[[], float]) -> None:
        self._queue = queue
        self._pace = pace
        self._name = name
        self._clock = clock
        self._peers: dict[str, _Peer] = {}
        self._is_told = False
        """That something waits here."""
        self._sent = 0
        self._let: tuple[str, int] | None = None
        """Who is let first, and how many requests it had sent then."""
        self._let_at = 0.0

    @property
    def are_waiting(self) -> bool:
        """Others have requests that wait."""
        return any(account.waiting for peer in self._fresh().values() for account in peer.flows.values())

    def waiting(self, flow: str) -> int:
        """A flow's requests that wait elsewhere."""
        return sum(peer.flows[flow].waiting for peer in self._fresh().values() if flow in peer.flows)

    def share(self, flow: str, weight: float) -> float:
        """Tokens a second that are a flow's for a weight of 1 if it waits as well; 0: that is not known."""
        weights, pace = {**self._queue.weights, flow: weight}, self._pace()
        for peer in self._fresh().values():
            weights |= {account.flow: account.weight for account in peer.flows.values() if account.waiting}
            pace += peer.pace
        return pace / sum(weights.values())

    def tell(self) -> Any:
        if not (len(self._queue) or self.are_waiting or self._is_told):
            return None
        self._is_told = len(self._queue) > 0
        return [self._sent, self._pace(), self._queue.accounts(MAX_TOLD)]

    def hear(self, ingress: str, told: Any) -> None:
        sent, pace, accounts = told
        peer = self._peers.setdefault(ingress, _Peer())
        flows = {account.flow: account for account in msgspec.convert(accounts, list[FlowAccount])}
        for account in flows.values():
            self._queue.hear(account, peer.flows.get(account.flow))
        peer.told_at, peer.sent, peer.pace, peer.flows = self._clock(), int(sent), float(pace), flows
        self.look()
        self._queue.lift()

    def look(self) -> None:
        """Has the queue know what waits elsewhere."""
        self._queue.least_elsewhere = min((counter for counter, _ in self._heads().values()), default=float("inf"))

    def sent(self) -> None:
        """This ingress has sent a request."""
        self._sent += 1
        self._let = None

    def go_first(self) -> bool:
        """Whether the others do. To be asked when a request could be sent."""
        if not len(self._queue):
            return False
        flow, counter = self._queue.head()
        own = counter - self._slack(flow), self._tie(self._name)
        first, name = min(((self._key(head, own[0]), name) for name, head in self._heads().items()), default=((float("inf"), 0), ""))
        if first >= own:
            return False
        let = name, self._peers[name].sent
        if let != self._let:
            self._let, self._let_at = let, self._clock()
        return self._clock() - self._let_at <= PATIENCE_S

    def _slack(self, flow: str) -> float:
        """Whole requests of a flow, as its counter counts them."""
        pace, cost = self._pace() + sum(peer.pace for peer in self._peers.values()), self._queue.mean_cost(flow)
        return pace * NEWS_S // max(cost, 1.0) * cost

    def _key(self, head: tuple[float, int], own: float) -> tuple[float, int]:
        return (own if abs(head[0] - own) <= _SAME else head[0]), head[1]

    def _heads(self) -> dict[str, tuple[float, int]]:
        """Of each that has requests waiting: its least counter, as it is known here, and what decides between equal ones."""
        heads = {}
        for name, peer in self._fresh().items():
            counters = [self._counter(account) for account in peer.flows.values() if account.waiting]
            if counters:
                heads[name] = min(counters), self._tie(name)
        return heads

    def _counter(self, account: FlowAccount) -> float:
        counter = self._queue.counter(account.flow)
        return account.counter if counter is None else counter

    def _tie(self, name: str) -> int:
        """By chance, but the same everywhere, and another one for each request that anybody sends."""
        return crc32(f"{self._sent + sum(peer.sent for peer in self._peers.values())} {name}".encode())

    def _fresh(self) -> dict[str, _Peer]:
        now = self._clock()
        for name in [name for name, peer in self._peers.items() if now - peer.told_at > FRESH_S]:
            del self._peers[name]
        return self._peers
