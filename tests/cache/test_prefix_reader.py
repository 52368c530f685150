"""Event batches reach the sink in order and once, whatever is lost on the way."""

import random
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.prefix.events import AllBlocksCleared, Event, KVEventBatch
from cache.prefix.reader import EventReader
from tests.cache.kv import removed, stored, written


class Seen:
    """A sink that keeps the timestamps of its batches."""

    def __init__(self) -> None:
        self.batches: list[float] = []
        self.cleared = 0

    def apply(self, batch: KVEventBatch) -> None:
        self.batches.append(batch.ts)

    def clear(self) -> None:
        self.cleared += 1
        self.batches.clear()


@pytest.fixture
def sink() -> Seen:
    return Seen()


@pytest.fixture
def reader(sink: Seen) -> EventReader:
    return EventReader(sink)


def payload(number: float) -> bytes:
    return written(AllBlocksCleared(), ts=number)


def live(reader: EventReader, *numbers: int, run: float = 0.0) -> None:
    for number in numbers:
        reader.live(number, payload(number + run))


def replay(reader: EventReader, *numbers: int, run: float = 0.0) -> None:
    reader.replayed([(number, payload(number + run)) for number in numbers])


def counts(reader: EventReader) -> dict[str, int]:
    """What is not zero."""
    assert reader.missing is None
    numbers = {name: getattr(reader, name) for name in ("restarts", "replays", "losses", "damaged")}
    return {name: number for name, number in numbers.items() if number}


def test_batches_in_order_go_straight_through(reader: EventReader, sink: Seen) -> None:
    live(reader, 0, 1, 2)
    assert sink.batches == [0, 1, 2]
    assert counts(reader) == {}


def test_events_arrive_as_they_were_sent() -> None:
    class Kept(Seen):
        def apply(self, batch: KVEventBatch) -> None:
            assert batch == KVEventBatch(1.5, events)
            super().apply(batch)

    events: list[Event] = [stored([b"a", 7], range(8), extra_keys=[("salt",), None]), removed(b"a", medium=None), AllBlocksCleared()]
    sink = Kept()
    EventReader(sink).live(0, written(*events, ts=1.5))
    assert sink.batches == [1.5]


def test_a_gap_says_from_where_and_a_replay_closes_it(reader: EventReader, sink: Seen) -> None:
    live(reader, 0, 1, 4, 5)
    assert (sink.batches, reader.missing) == ([0, 1], 2)
    replay(reader, 2, 3)
    live(reader, 6)
    assert sink.batches == [0, 1, 2, 3, 4, 5, 6]
    assert counts(reader) == {"replays": 1}


def test_one_that_comes_late_needs_the_beginning(reader: EventReader, sink: Seen) -> None:
    live(reader, 7)
    assert (sink.batches, reader.missing) == ([], 0)
    replay(reader, *range(8))
    assert sink.batches == [*range(8)]
    assert counts(reader) == {"replays": 1}


def test_what_a_replay_brings_twice_is_ignored(reader: EventReader, sink: Seen) -> None:
    live(reader, 0, 1, 4)
    replay(reader, 0, 1, 2, 3, 4)
    replay(reader, 0, 1, 2, 3, 4, 5)
    assert sink.batches == [0, 1, 2, 3, 4, 5]
    assert counts(reader) == {"replays": 2}


def test_a_replay_may_overtake_what_was_published(reader: EventReader, sink: Seen) -> None:
    live(reader, 0, 3)
    replay(reader, 1, 2, 3, 4, 5, 6)
    live(reader, 5, 6, 7)
    assert sink.batches == [*range(8)]
    assert counts(reader) == {"replays": 1}


def test_a_restart_is_seen_even_where_a_replay_was_ahead(reader: EventReader, sink: Seen) -> None:
    replay(reader, 0, 1, 2)
    live(reader, 0, run=0.5)
    assert (sink.batches, reader.restarts) == ([0.5], 1)


def test_a_replay_before_anything_was_published_live(reader: EventReader, sink: Seen) -> None:
    replay(reader)
    replay(reader, 0, 1)
    live(reader, 2)
    assert sink.batches == [0, 1, 2]
    assert counts(reader) == {"replays": 2}


def test_an_engine_that_was_restarted_starts_anew(reader: EventReader, sink: Seen) -> None:
    live(reader, 0, 1, 2)
    live(reader, 0, 1, run=0.5)
    assert (sink.batches, sink.cleared) == ([0.5, 1.5], 1)
    assert counts(reader) == {"restarts": 1}


def test_the_first_batch_seen_after_a_restart_need_not_be_the_first(reader: EventReader, sink: Seen) -> None:
    live(reader, 0, 1, 2, 3)
    live(reader, 2, run=0.5)
    assert (sink.batches, sink.cleared, reader.missing) == ([], 1, 0)
    replay(reader, 0, 1, 2, run=0.5)
    assert sink.batches == [0.5, 1.5, 2.5]
    assert counts(reader) == {"restarts": 1, "replays": 1}


def test_a_restart_forgets_what_was_held(reader: EventReader, sink: Seen) -> None:
    live(reader, 0, 1, 5)
    live(reader, 0, run=0.5)
    assert (sink.batches, reader.missing) == ([0.5], None)
    live(reader, 1, 2, 3, 4, run=0.5)
    assert sink.batches == [0.5, 1.5, 2.5, 3.5, 4.5]


def test_what_no_replay_can_bring_back_is_counted(reader: EventReader, sink: Seen) -> None:
    live(reader, 0, 9)
    replay(reader, 4, 5, 6, 7, 8, 9)
    assert (sink.batches, reader.losses, reader.missing) == ([0, 4, 5, 6, 7, 8, 9], 3, None)
    live(reader, 10, 12)
    replay(reader)
    assert (sink.batches[-2:], reader.losses, reader.missing) == ([10, 12], 4, None)


@pytest.mark.parametrize("bad", [b"", b"\xc1", b"nonsense", written()[:-1], b"\x92\x00\x91\x81\xa4type\xa7Unheard"])
def test_a_damaged_batch_is_counted_and_passed_over(reader: EventReader, sink: Seen, bad: bytes) -> None:
    live(reader, 0)
    reader.live(1, bad)
    live(reader, 2, 5)
    reader.replayed([(3, bad), (4, payload(4))])
    assert sink.batches == [0, 2, 4, 5]
    assert counts(reader) == {"replays": 1, "damaged": 2}


def test_what_is_held_is_bounded_and_the_rest_is_replayed(reader: EventReader, sink: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cache.prefix.reader._MAX_HELD", 3)
    live(reader, *range(1, 9))
    replay(reader, 0)
    assert (sink.batches, reader.missing) == ([0, 1, 2, 3], None)
    live(reader, 9)
    assert reader.missing == 4
    replay(reader, *range(4, 10))
    assert sink.batches == [*range(10)]
    assert reader.losses == reader.restarts == 0


@given(st.lists(st.sampled_from(["publish", "lose", "deliver", "replay"]), max_size=60), st.integers(0, 99))
def test_any_losses_and_replays_end_with_each_batch_once_and_in_order(steps: list[str], seed: int) -> None:
    sink = Seen()
    reader = EventReader(sink)
    chance = random.Random(seed)
    published, travelling = 0, deque[int]()
    for step in steps:
        if step in ("publish", "lose"):
            if step == "publish":
                travelling.append(published)
            published += 1
        elif step == "deliver":
            for _ in range(min(len(travelling), chance.randint(1, 4))):
                live(reader, travelling.popleft())
        else:
            replay(reader, *range(reader.missing or 0, published))
        assert sink.batches == [*range(len(sink.batches))]
    live(reader, *travelling)
    live(reader, published)
    replay(reader, *range(reader.missing or 0, published + 1))
    assert sink.batches == [*range(published + 1)]
    assert reader.restarts == reader.losses == reader.damaged == 0
