"""What each ingress has under way on this replica, so that every ingress can be told of the others' requests."""

import time
from collections.abc import Callable
from dataclasses import replace

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
        self._all = Ledger("", _learn_nothing)
        """The requests of all ingresses, as the engine has them: one after the other."""
        self._admitted_s = 0.0
        self._asked_at = clock()

    def admit(self, ingress: str, work: Work) -> "Account":
        ledger = self._ledgers.get(ingress)
        if ledger is None:
            if len(self._ledgers) >= MAX_INGRESSES:
                self._ledgers = {name: each for name, each in self._ledgers.items() if each.ongoing}
            ledger = self._ledgers[ingress] = Ledger(ingress, _learn_nothing)
        same = replace(work)
        ledger.admit(work, self._clock())
        self._all.admit(same, self._clock())
        self._admitted_s += work.seconds
        return Account((ledger, self._all), (work, same), self._clock)

    def prefills(self) -> tuple[float, float]:
        """Seconds of prefill that wait, of all ingresses; and those that were admitted in each second since the last call."""
        now = self._clock()
        self._all.settle(now)
        share = self._admitted_s / max(now - self._asked_at, 1e-3)
        self._admitted_s, self._asked_at = 0.0, now
        return self._all.backlog_s(now), share

    def activity(self, ingress: str, load: Load, draining: bool) -> Activity:
        """For one ingress: what it does not know by itself."""
        now = self._clock()
        others = [ledger for name, ledger in self._ledgers.items() if name != ingress and ledger.ongoing]
        own = self._ledgers.get(ingress)
        for ledger in (self._all, *others, *((own,) if own else ())):
            ledger.settle(now)
        return Activity(
            load.running,
            load.waiting,
            load.kv_usage,
            draining,
            max(self._all.backlog_s(now) - (own.backlog_s(now) if own else 0.0), 0.0),
            sum(len(ledger.waiting) for ledger in others),
            sum(ledger.decoding for ledger in others),
        )


class Account:
    """One request's."""

    def __init__(self, ledgers: tuple[Ledger, Ledger], works: tuple[Work, Work], clock: Callable[[], float]) -> None:
        """`works`: the same one, as it stands in each of the ledgers."""
        self._works = tuple(zip(ledgers, works, strict=True))
        self._clock = clock

    def answered(self) -> bool:
        """Its first token has come, or another one; whether it was the first."""
        was_prefilled = self._works[0][1].is_prefilled
        for ledger, work in self._works:
            ledger.prefilled(work, self._clock())
        return not was_prefilled

    def end(self) -> None:
        for ledger, work in self._works:
            ledger.end(work, self._clock())


def read_work(header: str) -> Work:
    """What an ingress predicts. Raises `ValueError`."""
    cached, new, seconds, is_whole = header.split()
    return Work(int(cached), int(new), float(seconds), is_whole == "1")


def write_work(work: Work) -> str:
    return f"{work.cached} {work.new} {work.seconds:.6f} {int(work.is_whole)}"
