"""What each ingress has under way on this replica, so that every ingress can be told of the others' requests."""

import time
from collections.abc import Callable

from cache.prefix.ledger import Ledger, Work
from cache.prefix.profile import Sample
from deployments.engines.base import Load
from deployments.peers import FRESH_S
from deployments.reports import Activity

MAX_INGRESSES = 1024
"""Names that are told apart; ingresses that have gone make room."""


def _learn_nothing(sample: Sample) -> None:
    """The ingresses learn: they see what clients see."""


class Accounts:
    """Of one replica."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ledgers: dict[str, Ledger] = {}
        self._queued: dict[str, tuple[float, float]] = {}
        """By ingress: weights of its tenants that wait, and when it said so."""
        self._sent: dict[str, int] = {}
        """By ingress, tokens."""
        self._admitted_s = 0.0
        self._asked_at = clock()

    def admit(self, ingress: str, work: Work) -> "Account":
        ledger = self._ledgers.get(ingress)
        if ledger is None:
            if len(self._ledgers) >= MAX_INGRESSES:
                self._ledgers = {name: each for name, each in self._ledgers.items() if each.ongoing}
                self._sent = {name: each for name, each in self._sent.items() if name in self._ledgers}
            ledger = self._ledgers[ingress] = Ledger(ingress, _learn_nothing)
        self._sent[ingress] = self._sent.get(ingress, 0) + work.new
        ledger.admit(work, self._clock())
        self._admitted_s += work.seconds
        return Account(ledger, work, self._clock)

    def queue(self, ingress: str, weight: float) -> None:
        """Weights of its tenants whose requests wait; good for `peers.FRESH_S` seconds."""
        now = self._clock()
        self._queued = {name: each for name, each in self._queued.items() if now - each[1] <= FRESH_S}
        if weight > 0 and len(self._queued) < MAX_INGRESSES:
            self._queued[ingress] = weight, now
        else:
            self._queued.pop(ingress, None)

    def prefills(self) -> tuple[float, float]:
        """Seconds of prefill that wait, of all ingresses; and those that were admitted in each second since the last call."""
        now = self._clock()
        for ledger in self._ledgers.values():
            ledger.settle(now)
        share = self._admitted_s / max(now - self._asked_at, 1e-3)
        self._admitted_s, self._asked_at = 0.0, now
        return sum(ledger.backlog_s(now) for ledger in self._ledgers.values()), share

    def activity(self, ingress: str, load: Load, draining: bool) -> Activity:
        """For one ingress: what it does not know by itself."""
        now = self._clock()
        others = [ledger for name, ledger in self._ledgers.items() if name != ingress and ledger.ongoing]
        for ledger in others:
            ledger.settle(now)
        return Activity(
            load.running,
            load.waiting,
            load.kv_usage,
            draining,
            sum(ledger.backlog_s(now) for ledger in others),
            sum(len(ledger.waiting) for ledger in others),
            sum(ledger.decoding for ledger in others),
            sum(weight for name, (weight, at) in self._queued.items() if name != ingress and now - at <= FRESH_S),
            sum(sent for name, sent in self._sent.items() if name != ingress),
        )


class Account:
    """One request's."""

    def __init__(self, ledger: Ledger, work: Work, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._work = work
        self._clock = clock

    def answered(self) -> bool:
        """Its first token has come, or another one; whether it was the first."""
        was_prefilled = self._work.is_prefilled
        self._ledger.prefilled(self._work, self._clock())
        return not was_prefilled

    def end(self) -> None:
        self._ledger.end(self._work, self._clock())


def read_work(header: str) -> Work:
    """What an ingress predicts. Raises `ValueError`."""
    cached, new, seconds, is_whole = header.split()
    return Work(int(cached), int(new), float(seconds), is_whole == "1")


def write_work(work: Work) -> str:
    return f"{work.cached} {work.new} {work.seconds:.6f} {int(work.is_whole)}"
