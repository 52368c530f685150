"""What each ingress has under way on this replica, so that every ingress can be told of the others' requests."""

import time
from collections.abc import Callable

from cache.prefix.ledger import Ledger, Work
from cache.prefix.profile import Sample
from deployments.engines.base import Load
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
        self._admitted_s = 0.0
        self._asked_at = clock()

    def admit(self, ingress: str, work: Work) -> "Account":
        ledger = self._ledgers.get(ingress)
        if ledger is None:
            if len(self._ledgers) >= MAX_INGRESSES:
                self._ledgers = {name: each for name, each in self._ledgers.items() if each.ongoing}
            ledger = self._ledgers[ingress] = Ledger(ingress, _learn_nothing)
        ledger.admit(work, self._clock())
        self._admitted_s += work.seconds
        return Account(ledger, work, self._clock)

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
