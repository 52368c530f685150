"""Each ingress is told of the other ingresses' requests, and not of its own."""

import pytest

from cache.prefix.ledger import Work
from deployments import accounts
from deployments.accounts import Accounts, read_work, write_work
from deployments.engines.base import Load

LOAD = Load(running=3, waiting=2, kv_usage=0.5)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_ingress_is_told_of_the_others_requests() -> None:
    clock = Clock()
    ledger = Accounts(clock)
    first, second = ledger.admit("one", Work(0, 100, 2.0)), ledger.admit("one", Work(0, 100, 3.0))
    told = ledger.activity("two", LOAD, False)
    assert (told.others_waiting, told.others_decoding, told.others_backlog_s) == (2, 0, 5.0)
    assert (told.running, told.waiting, told.kv_usage, told.draining) == (3, 2, 0.5, False)
    own = ledger.activity("one", LOAD, True)
    assert (own.others_waiting, own.others_decoding, own.others_backlog_s, own.draining) == (0, 0, 0.0, True)
    clock.now = 1.0
    assert ledger.activity("two", LOAD, False).others_backlog_s == 4.0
    first.answered()
    told = ledger.activity("two", LOAD, False)
    assert (told.others_waiting, told.others_decoding) == (1, 1)
    first.end()
    second.end()
    second.end()
    told = ledger.activity("two", LOAD, False)
    assert (told.others_waiting, told.others_decoding, told.others_backlog_s) == (0, 0, 0.0)


def test_what_waits_and_what_came_is_summed_for_autoscaling() -> None:
    clock = Clock()
    ledger = Accounts(clock)
    first = ledger.admit("one", Work(0, 100, 2.0))
    ledger.admit("two", Work(0, 100, 3.0))
    clock.now = 10.0
    first.answered()
    assert ledger.prefills() == (3.0, 0.5)
    clock.now = 12.0
    ledger.admit("two", Work(0, 100, 4.0))
    clock.now = 14.0
    assert ledger.prefills() == (4.0, 1.0)
    first.end()


def test_ingresses_that_have_gone_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "MAX_INGRESSES", 3)
    ledger = Accounts(Clock())
    kept = ledger.admit("kept", Work(0, 1, 1.0))
    for number in range(10):
        ledger.admit(f"passing {number}", Work(0, 1, 1.0)).end()
    assert len(ledger._ledgers) <= 3
    assert ledger.activity("another", LOAD, False).others_waiting == 1
    kept.end()


def test_work_travels_in_a_header() -> None:
    work = read_work(write_work(Work(64, 100, 1.25, is_whole=True)))
    assert (work.cached, work.new, work.seconds, work.is_whole) == (64, 100, 1.25, True)


@pytest.mark.parametrize("header", ["", "1 2 3", "a b c 0", "1 2 3 0 5"])
def test_a_header_that_says_nothing_is_refused(header: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        read_work(header)


def test_others_requests_are_told_as_the_engine_has_them_one_after_the_other() -> None:
    clock = Clock()
    accounts = Accounts(clock)
    first, second = accounts.admit("one", Work(0, 100, 2.0)), accounts.admit("two", Work(0, 100, 3.0))
    clock.now = 1.0
    assert accounts.activity("three", LOAD, False).others_backlog_s == 4.0
    clock.now = 2.0
    first.answered()
    assert accounts.activity("three", LOAD, False).others_backlog_s == 3.0
    # What "two" counts itself is left out: for it, its own has been computed all the time.
    assert accounts.activity("two", LOAD, False).others_backlog_s == 2.0
    second.end()
    first.end()
    assert accounts.activity("three", LOAD, False).others_backlog_s == 0.0
