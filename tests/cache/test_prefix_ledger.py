"""What is under way on a replica: the prefills before a new one, and what their times teach."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.prefix.ledger import Ledger, Work
from cache.prefix.profile import Sample


@pytest.fixture
def samples() -> list[Sample]:
    return []


@pytest.fixture
def ledger(samples: list[Sample]) -> Ledger:
    return Ledger("r", samples.append)


def work(seconds: float = 1.0, cached: int = 0, new: int = 100, is_whole: bool = False) -> Work:
    return Work(cached, new, seconds, is_whole)


def admitted(ledger: Ledger, now: float, *works: Work) -> tuple[Work, ...]:
    for each in works:
        ledger.admit(each, now)
    return works


def test_the_backlog_falls_with_time_but_never_past_the_oldest(ledger: Ledger) -> None:
    admitted(ledger, 100, work(2), work(3))
    assert [ledger.backlog_s(now) for now in (100, 101, 102, 103, 200)] == [5, 4, 3, 3, 3]


def test_each_prefill_that_ends_starts_the_next(ledger: Ledger) -> None:
    first, second, third = admitted(ledger, 0, work(2), work(3), work(4))
    ledger.prefilled(first, 1.5)
    assert [ledger.backlog_s(now) for now in (1.5, 2.5, 9)] == [7, 6, 4]
    ledger.prefilled(second, 6)
    ledger.prefilled(third, 9)
    assert ledger.backlog_s(9) == 0
    assert (len(ledger.waiting), ledger.decoding, ledger.ongoing) == (0, 3, 3)


def test_an_idle_replica_has_no_backlog_and_owes_nothing_for_the_past(ledger: Ledger) -> None:
    assert ledger.backlog_s(1000) == 0
    (first,) = admitted(ledger, 0, work(0.1))
    ledger.prefilled(first, 5)
    admitted(ledger, 50, work(1))
    assert ledger.backlog_s(50) == 1


def test_others_requests_lie_before_a_new_one_too(ledger: Ledger) -> None:
    ledger.others_backlog_s, ledger.others_waiting, ledger.others_decoding = 2.5, 3, 4
    admitted(ledger, 0, work(1))
    assert (ledger.backlog_s(0), ledger.backlog_s(9), ledger.ongoing) == (3.5, 2.5, 8)
    ledger.others_at = 0.0
    assert [ledger.backlog_s(now) for now in (0, 0.5, 2, 9)] == [3.5, 3.0, 2.5, 2.5]  # one thing at a time


def test_what_others_have_waiting_passes_with_time(ledger: Ledger) -> None:
    ledger.told(2.5, 3, 4, 10.0)
    assert [ledger.backlog_s(now) for now in (9.0, 10.0, 11.0, 20.0)] == [2.5, 2.5, 1.5, 0.0]


def test_a_prefill_begins_when_the_one_of_another_ingress_before_it_has_ended(ledger: Ledger, samples: list[Sample]) -> None:
    """So it is not learnt to be slower than it is."""
    ledger.told(2.0, 1, 0, 0.0)
    one = work(1)
    admitted(ledger, 0, one)
    assert ledger.backlog_s(1) == 2.0
    ledger.told(0.0, 0, 1, 2.0)
    assert ledger.backlog_s(2.5) == 0.5
    ledger.prefilled(one, 3.0)
    assert [sample.seconds for sample in samples] == [1.0]


def test_one_that_leaves_the_queue_takes_nothing_from_what_the_oldest_has_done(ledger: Ledger) -> None:
    _, second, _ = admitted(ledger, 0, work(10), work(2), work(3))
    ledger.end(second, 9)
    assert ledger.backlog_s(9) == 1 + 3


def test_a_first_token_out_of_turn_took_its_time_from_the_oldest(ledger: Ledger) -> None:
    _, second = admitted(ledger, 0, work(10), work(2))
    ledger.prefilled(second, 9)
    assert ledger.backlog_s(9) == 10 - (9 - 2)


def test_ending_twice_or_answering_after_the_end_is_harmless(ledger: Ledger, samples: list[Sample]) -> None:
    first, second = admitted(ledger, 0, work(1), work(1))
    for now in (1, 2, 3):
        ledger.prefilled(first, now)
    for now in (4, 5):
        ledger.end(first, now)
        ledger.end(second, now)
        ledger.prefilled(second, now)
        ledger.prefilled(first, now)
    assert (ledger.ongoing, ledger.backlog_s(5)) == (0, 0)
    assert sum(sample.count for sample in samples) <= 1


def test_a_prefill_is_learnt_when_the_queue_is_empty(ledger: Ledger, samples: list[Sample]) -> None:
    (only,) = admitted(ledger, 10, work(1, cached=64, new=100))
    ledger.prefilled(only, 10.25)
    assert samples == [Sample(1, 100, 100 * (64 + 50), 0, 0, 0.25)]


def test_a_busy_period_is_one_sample_and_what_decodes_is_beside(ledger: Ledger, samples: list[Sample]) -> None:
    ledger.others_decoding = 1
    first, second = admitted(ledger, 0, work(new=100), work(new=200))
    ledger.prefilled(first, 1)
    assert samples == []
    ledger.prefilled(second, 4)
    assert samples == [Sample(2, 300, 100 * 50 + 200 * 100, 300, 100 * 1 + 200 * 2, 4)]


def test_a_long_busy_period_is_learnt_in_parts(ledger: Ledger, samples: list[Sample]) -> None:
    works = admitted(ledger, 0, *(work(new=1000) for _ in range(5)))
    for now, each in enumerate(works, 1):
        ledger.prefilled(each, now)
    assert [(sample.count, sample.new, sample.seconds) for sample in samples] == [(3, 3000, 3), (2, 2000, 2)]


def test_first_tokens_out_of_turn_are_learnt_together(ledger: Ledger, samples: list[Sample]) -> None:
    first, second = admitted(ledger, 0, work(new=3000), work(new=3000))
    ledger.prefilled(second, 5)
    ledger.prefilled(first, 5)
    assert [(sample.count, sample.seconds) for sample in samples] == [(2, 5)]


def test_the_time_of_one_that_failed_is_not_learnt(ledger: Ledger, samples: list[Sample]) -> None:
    first, second = admitted(ledger, 0, work(), work())
    ledger.end(first, 9)
    ledger.prefilled(second, 10)
    assert [sample.seconds for sample in samples] == [1]
    (failed,) = admitted(ledger, 20, work())
    ledger.end(failed, 90)
    (third,) = admitted(ledger, 100, work())
    ledger.prefilled(third, 102)
    assert [(sample.count, sample.seconds) for sample in samples] == [(1, 1), (1, 2)]


def test_one_that_gives_up_in_the_queue_leaves_the_oldest_its_time(ledger: Ledger, samples: list[Sample]) -> None:
    first, second = admitted(ledger, 0, work(), work())
    ledger.end(second, 9)
    ledger.prefilled(first, 10)
    assert [(sample.count, sample.seconds) for sample in samples] == [(1, 10)]


def test_answers_in_one_piece_are_taken_for_prefilled_when_their_time_is_over(ledger: Ledger, samples: list[Sample]) -> None:
    whole = work(2, is_whole=True)
    admitted(ledger, 0, whole, replace(whole), work(3))
    ledger.settle(1.9)
    assert len(ledger.waiting) == 3
    ledger.settle(3)
    assert (len(ledger.waiting), ledger.decoding, whole.is_prefilled) == (2, 1, True)
    assert ledger.backlog_s(3) == 4
    ledger.settle(6)
    assert (len(ledger.waiting), ledger.backlog_s(6)) == (1, 1)
    ledger.settle(600)
    assert len(ledger.waiting) == 1
    ledger.end(whole, 601)
    assert (ledger.decoding, samples) == (1, [])


def test_new_work_sees_a_settled_queue(ledger: Ledger) -> None:
    admitted(ledger, 0, work(2, is_whole=True))
    admitted(ledger, 100, work(1))
    assert ledger.backlog_s(100) == 1


def test_an_answer_in_one_piece_does_not_pass_its_decoding_off_as_prefill(ledger: Ledger, samples: list[Sample]) -> None:
    (whole,) = admitted(ledger, 0, work(0.5, is_whole=True))
    ledger.prefilled(whole, 60)
    assert samples == []
    ledger.end(whole, 60)
    assert ledger.ongoing == 0
    (streamed,) = admitted(ledger, 100, work())
    ledger.prefilled(streamed, 101)
    assert [(sample.count, sample.seconds) for sample in samples] == [(1, 1)]


def test_what_waits_behind_an_answer_in_one_piece_is_not_charged_for_it(ledger: Ledger, samples: list[Sample]) -> None:
    _, streamed = admitted(ledger, 0, work(2, is_whole=True), work(1))
    ledger.prefilled(streamed, 3.5)
    assert [(sample.count, sample.seconds) for sample in samples] == [(1, 1.5)]


requests = st.tuples(st.just("admit"), st.integers(1, 3000), st.booleans())
others = st.tuples(st.sampled_from(["prefilled", "end", "settle", "wait"]), st.integers(0, 99), st.just(value=False))


@given(st.lists(st.one_of(requests, others, others), max_size=40))
def test_whatever_happens_the_backlog_only_grows_by_what_is_admitted(steps: list[tuple[str, int, bool]]) -> None:
    samples: list[Sample] = []
    ledger, works, now, busy = Ledger("r", samples.append), list[Work](), 0.0, 0.0
    for action, number, is_whole in steps:
        before, grows = ledger.backlog_s(now), 0.0
        if action == "admit":
            works.append(work(number / 100, cached=number % 7, new=number, is_whole=is_whole))
            ledger.admit(works[-1], now)
            grows = works[-1].seconds
        elif action == "wait":
            busy += number / 10 if ledger.waiting else 0.0
            now += number / 10
        elif action == "settle":
            ledger.settle(now)
        elif works:
            each = works[number % len(works)]
            (ledger.prefilled if action == "prefilled" else ledger.end)(each, now)
        assert -1e-9 <= ledger.backlog_s(now) <= before + grows + 1e-6
        assert ledger.decoding == sum(each.is_prefilled and not each.is_over for each in works)
        assert sum(sample.seconds for sample in samples) <= busy + 1e-6
        assert all(sample.count >= 1 and sample.seconds >= 0 for sample in samples)
    for each in works:
        ledger.end(each, now)
    assert (ledger.ongoing, ledger.backlog_s(now)) == (0, 0)


@given(st.lists(st.tuples(st.integers(1, 3000), st.integers(0, 9)), min_size=1, max_size=20), st.data())
def test_streams_that_all_answer_are_learnt_to_the_last_token_and_second(arrivals: list[tuple[int, int]], data: st.DataObject) -> None:
    samples: list[Sample] = []
    ledger, now, busy = Ledger("r", samples.append), 0, 0
    waiting: list[Work] = []
    for tokens, pause in [*arrivals, *[(0, 1)] * len(arrivals)]:
        if tokens:
            waiting += admitted(ledger, now, work(new=tokens))
        busy += pause if waiting else 0
        now += pause
        if waiting and (not tokens or data.draw(st.booleans())):
            place = data.draw(st.integers(0, len(waiting) - 1))
            ledger.prefilled(waiting.pop(place), now)
    assert sum(sample.count for sample in samples) == len(arrivals)
    assert sum(sample.new for sample in samples) == sum(tokens for tokens, _ in arrivals)
    assert sum(sample.seconds for sample in samples) == pytest.approx(busy)
