"""Use, quotas and garbage: one contract, on every database."""

from dataclasses import replace

import pytest
from sqlalchemy import insert

from cache.stores import schema
from cache.stores.base import ALL, Filter, Quota, Stats, model_scope, tag_scope
from cache.stores.garbage import LONGEST_REQUEST_S
from cache.stores.sql import SqlEntryStore, _row
from tests.cache.entries import make_entry, unit
from tests.cache.storing import NOW, apply, found, put


def test_use_is_counted_and_seen(store: SqlEntryStore) -> None:
    entry, other = make_entry(tokens=100, text="12345", answer=b"1234567890"), make_entry(tokens=1)
    put(store, entry, other)
    store.use({entry.id: 2, "unknown": 9}, NOW + 5)
    store.use({entry.id: 1}, NOW + 6)
    store.use({}, NOW)
    (info,) = store.page("a1", Filter(ids=[entry.id]), "", 10, NOW)
    assert (info.hits, info.last_used_at, info.tokens, info.size) == (3, NOW + 6, 100, 15)
    assert store.stats("a1", NOW) == Stats(entries=2, bytes=entry.size + other.size, hits=3, tokens_saved=300)
    assert store.stats("b2", NOW) == Stats(0, 0, 0, 0)


def test_pages_are_in_order_and_filtered(store: SqlEntryStore) -> None:
    entries = [make_entry(model="m1", tags=("t",)), make_entry(model="m2", tags=("t", "u")), make_entry(model="m1")]
    put(store, *entries, make_entry(namespace="b2"))

    def ids(wanted: Filter = Filter(), after: str = "", limit: int = 10) -> list[int]:  # noqa: B008
        return [[entry.id for entry in entries].index(info.id) for info in store.page("a1", wanted, after, limit, NOW)]

    assert ids() == [0, 1, 2]
    assert ids(limit=2) == [0, 1]
    assert ids(after=entries[0].id) == [1, 2]
    assert ids(Filter(model="m1")) == [0, 2]
    assert ids(Filter(tag="t")) == [0, 1]
    assert ids(Filter(tag="u", model="m1")) == []
    assert store.page("a1", Filter(), "", 10, NOW)[1].tags == ("t", "u")


def test_a_quota_ends_what_saves_least(store: SqlEntryStore) -> None:
    cheap, dear, popular, fresh = (make_entry(tokens=tokens, vector=unit(1, 0)) for tokens in (10, 1000, 10, 10))
    elsewhere = make_entry(namespace="b2")
    put(store, cheap, dear, popular, replace(fresh, created_at=NOW + 86_400 * 3), elsewhere)
    store.use({popular.id: 50}, NOW)
    assert store.evict("a1", Quota(max_entries=4), NOW) == 0
    assert store.evict("a1", Quota(max_entries=3), NOW) == 1
    assert found(store, cheap, dear, popular, fresh) == [dear.id, popular.id, fresh.id]
    assert store.evict("a1", Quota(max_bytes=2 * dear.size), NOW) == 1
    assert store.evict(None, Quota(max_entries=1), NOW) == 2
    assert len(found(store, cheap, dear, popular, fresh, elsewhere)) == 1


def test_evict_ends_thousands(store: SqlEntryStore) -> None:
    put(store, *(make_entry() for _ in range(1100)))
    assert store.evict("a1", Quota(max_entries=10), NOW) == 1090
    assert store.stats("a1", NOW).entries == 10


def test_garbage_goes_in_two_steps(store: SqlEntryStore) -> None:
    kept, expired, overtaken = (make_entry(vector=unit(1, 0), expires_at=NOW + 1000) for _ in range(3))
    put(store, replace(kept, epoch=9), replace(expired, expires_at=NOW + 1, epoch=9), overtaken)
    apply(store)
    store.invalidate("a1", ALL, NOW)
    first = store.collect(NOW + 1, 60, 100)
    assert (first.expired, first.invalidated, first.purged) == (1, 1, 0)
    assert store.collect(NOW + 100, 60, 100).purged == 0, "the index may still have them"
    assert apply(store) == {expired.id: False, overtaken.id: False}
    assert store.collect(NOW + 60, 60, 100).purged == 0
    assert store.collect(NOW + 61, 60, 1).purged == 1
    assert store.collect(NOW + 61, 60, 100).purged == 1
    assert store.count() == 1


def test_an_invalidation_is_forgotten_when_no_request_is_older(store: SqlEntryStore) -> None:
    put(store, make_entry(tags=("u",), expires_at=NOW + 1e9))
    store.invalidate("a1", tag_scope("t"), NOW)
    for seconds in (0, 61, LONGEST_REQUEST_S - 1):
        assert store.collect(NOW + seconds, 0, 100).invalidated == 0
        put(store, late := make_entry(tags=("t",), epoch=0, expires_at=NOW + 1e9))
        assert found(store, late) == []
    store.collect(NOW + LONGEST_REQUEST_S, 0, 100)
    put(store, anew := make_entry(tags=("t",), epoch=0, expires_at=NOW + 1e9))
    assert found(store, anew) == [anew.id]
    assert store.epoch("a1") >= 1, "the counter stays"


@pytest.mark.parametrize("scope", [ALL, model_scope("m"), tag_scope("t")])
def test_what_was_being_written_when_it_was_invalidated_is_collected_later(store: SqlEntryStore, scope: str) -> None:
    others = [make_entry(namespace="b2", tags=("t",)), *([] if scope == ALL else [make_entry(model="other", tags=("u",))])]
    put(store, *others, early := make_entry(tags=("t",), expires_at=NOW + 1e6))
    late = make_entry(tags=("t",), expires_at=NOW + 1e6)
    store.invalidate("a1", scope, NOW)
    assert store.collect(NOW, 1e9, 100).invalidated == 1
    with store._database.write() as connection:  # as a transaction that began before the invalidation, and ended after it
        connection.execute(insert(schema.entries), {**_row(late), "state": schema.LIVE})
        connection.execute(insert(schema.tags), {"entry_id": late.id, "tag": "t"})
    assert found(store, early, late) == []
    assert [store.collect(NOW + seconds, 1e9, 100).invalidated for seconds in (1, 59, 60, 61)] == [0, 0, 1, 0]
    assert found(store, *others) == [each.id for each in others]


def test_a_scope_that_is_invalidated_again_is_swept_again(store: SqlEntryStore) -> None:
    for turn in range(3):
        put(store, make_entry(tags=("t",), epoch=store.epoch("a1")))
        store.invalidate("a1", tag_scope("t"), NOW + turn)
        assert [store.collect(NOW + turn, 1e9, 100).invalidated for _ in range(2)] == [1, 0]


def test_sums_leave_out_what_was_invalidated_at_once_and_after_it_was_swept(store: SqlEntryStore) -> None:
    put(store, *(make_entry(tags=("t",), text=None, answer=b"x" * 5) for _ in range(3)), make_entry(text=None, answer=b"x"))
    put(store, make_entry(expires_at=NOW + 1), make_entry(namespace="b2", tags=("t",)))
    store.invalidate("a1", tag_scope("t"), NOW)
    for seconds in (2, 3, 90):
        assert store.stats("a1", NOW + seconds) == Stats(entries=1, bytes=1, hits=0, tokens_saved=0)
        assert store.stats("b2", NOW + seconds).entries == 1
        store.collect(NOW + seconds, 0, 100)
