"""Prefixes that many ask for at the same time are worth a second copy."""

import pytest

from cache.prefix import heat as module
from cache.prefix.heat import Heat
from cache.prefix.ledger import Ledger
from cache.prefix.profile import PrefillProfile
from cache.prefix.router import LeastCost


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_requests_are_counted_and_forgotten_with_time() -> None:
    clock = Clock()
    heat = Heat(clock)
    assert [heat.touch(1) for _ in range(3)] == [0, 1, 2]
    assert heat.touch(2) == 0
    clock.now = 10.0
    assert [heat.of(1), heat.of(1), heat.of(3)] == [pytest.approx(1.5), pytest.approx(1.5), 0]
    assert heat.touch(1) == pytest.approx(1.5)
    clock.now = 1000.0
    assert heat.touch(1) == pytest.approx(0, abs=1e-6)


def test_what_was_asked_for_last_is_remembered_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX", 100)
    heat = Heat(Clock())
    for key in range(10_000):
        heat.touch(-1)
        heat.touch(key)
    assert len(heat._counts) <= 101
    assert heat.touch(-1) == 10_000


def ledgers() -> list[Ledger]:
    busy = Ledger("holder", lambda sample: None)
    busy.others_backlog_s = 0.5
    return [busy, Ledger("idle", lambda sample: None)]


@pytest.mark.parametrize(("heat", "first"), [(0.0, 0), (0.2, 0), (50.0, 1)])
def test_the_hotter_a_prefix_the_sooner_it_spreads(heat: float, first: int) -> None:
    policy = LeastCost(PrefillProfile(tokens_per_s=10_000, overhead_s=0), repeat=6)
    # Computing 1,000 tokens again takes 0.1 s, and counts 0.6 s more if nobody else needs them; waiting takes half a second.
    assert policy.order(ledgers(), [1000, 0], 1100, 0.0, heat)[0] == first
