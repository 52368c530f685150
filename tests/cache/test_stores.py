"""One contract, on every database."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache.entry import Entry
from cache.errors import StoreError
from cache.stores.base import ALL, Filter, Quota, Stats, model_scope, tag_scope
from cache.stores.sql import SqlEntryStore, open_database
from tests.cache.entries import make_entry, unit

NOW = 1_000_000.0


def put(store: SqlEntryStore, *entries: Entry) -> None:
    for entry in entries:
        store.put(entry)


def apply(store: SqlEntryStore, now: float = NOW, embedder: str = "") -> dict[str, bool]:
    """Applies the outbox to an index that is only a dictionary: which ids it was told to hold, and which to drop."""
    told: dict[str, bool] = {}
    while changes := store.claim(100, now, 60, embedder):
        told |= {change.entry_id: change.record is not None for change in changes}
        store.confirm(changes)
    return told


def found(store: SqlEntryStore, *entries: Entry, now: float = NOW) -> list[str]:
    """The ids of those that are servable, by the three ways to read them, which must agree."""
    by_key = [entry.id for entry in entries if (hit := store.find_exact(entry.namespace, entry.exact_key, now)) and hit.id == entry.id]
    by_id = [entry.id for entry in entries if store.get(entry.namespace, entry.id, now)]
    with_text = [entry for entry in entries if entry.text is not None]
    as_candidates = [
        candidate.id for entry in with_text for candidate in store.candidates(entry.namespace, entry.fingerprint, [entry.id], now)
    ]
    assert by_key == by_id
    assert as_candidates == [entry.id for entry in with_text if entry.id in by_id]
    return by_id


def test_an_entry_comes_back_as_it_was(store: SqlEntryStore) -> None:
    entry = make_entry(
        answer=bytes(range(256)),
        created_at=NOW + 0.123456,
        expires_at=NOW + 1e6 + 0.5,
        stale_at=NOW + 9.25,
        tokens=7,
        tags=("a", "b"),
        epoch=3,
        normal_key="k",
    )
    put(store, entry, make_entry(tags=("c",)))
    assert store.find_exact(entry.namespace, entry.exact_key, NOW) == entry
    assert store.get(entry.namespace, entry.id, NOW) == entry


TEXTS = {
    "none": None,
    "empty": "",
    "sql": "'; DROP TABLE cache_entries; --",
    "metacharacters": '%_\\"\n:x?',
    "emoji": "🙂 日本 é",
    "nul": "a\0b",
    "long": "é" * 1_000_000,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_any_text_comes_back(store: SqlEntryStore, text: str | None) -> None:
    entry = make_entry(text=text, model="'\";--", namespace="n'\";--%", fingerprint="f_%'", tags=("'\"%_;--",))
    put(store, entry)
    assert store.find_exact(entry.namespace, entry.exact_key, NOW) == entry
    assert found(store, entry) == [entry.id]


def test_a_large_answer_comes_back(store: SqlEntryStore) -> None:
    entry = make_entry(answer=b"\xff" * (4 * 1024 * 1024))
    put(store, entry)
    assert store.get(entry.namespace, entry.id, NOW) == entry


def test_a_text_that_utf8_cannot_express_is_refused(store: SqlEntryStore) -> None:
    with pytest.raises(StoreError):
        store.put(make_entry(text="\ud800"))
    assert store.count() == 0


def test_namespace_and_fingerprint_are_walls(store: SqlEntryStore) -> None:
    entry = make_entry()
    put(store, entry)
    for other in (replace(entry, namespace="b2"), replace(entry, namespace=entry.namespace.upper())):
        assert found(store, other) == []
    assert store.candidates(entry.namespace, "f2", [entry.id], NOW) == []
    assert store.delete("b2", [entry.id], NOW) == 0
    assert found(store, entry) == [entry.id]


def test_candidates_keep_the_order_and_leave_out_entries_without_text(store: SqlEntryStore) -> None:
    first, second, silent = make_entry(), make_entry(stale_at=NOW + 1), make_entry(text=None)
    put(store, first, second, silent)
    candidates = store.candidates("a1", "f1", [second.id, "unknown", silent.id, first.id], NOW)
    assert [(each.id, each.text, each.stale_at) for each in candidates] == [(second.id, second.text, NOW + 1), (first.id, first.text, None)]


def test_the_newest_entry_with_a_normal_form_is_found(store: SqlEntryStore) -> None:
    old, new = make_entry(normal_key="k", created_at=NOW - 2), make_entry(normal_key="k", created_at=NOW - 1)
    put(store, new, old, make_entry(normal_key="k", fingerprint="f2"), make_entry(normal_key="k", namespace="b2"), make_entry())
    assert store.find_normal("a1", "f1", "k", NOW) == new
    store.delete("a1", [new.id], NOW)
    assert store.find_normal("a1", "f1", "k", NOW) == old
    assert store.find_normal("a1", "f1", "K", NOW) is None


def test_nothing_is_read_from_the_moment_it_expires(store: SqlEntryStore) -> None:
    entry = make_entry(expires_at=NOW + 10)
    put(store, entry)
    assert found(store, entry, now=NOW + 9.999) == [entry.id]
    assert found(store, entry, now=NOW + 10) == []
    assert found(store, entry, now=NOW - 1e9) == [entry.id], "a clock that goes back revives nothing that was ended, and ends nothing"


def test_a_second_entry_takes_the_place_of_the_first_and_says_so(store: SqlEntryStore) -> None:
    first = make_entry(vector=unit(1, 0))
    second = make_entry(exact_key=first.exact_key, vector=unit(0, 1))
    put(store, first)
    before = store.epoch("a1")
    put(store, second)
    assert found(store, first, second) == [second.id]
    assert store.epoch("a1") > before
    assert apply(store) == {first.id: False, second.id: True}


def test_an_id_in_use_is_refused_and_nothing_changes(store: SqlEntryStore) -> None:
    entry = make_entry()
    put(store, entry)
    with pytest.raises(StoreError):
        store.put(make_entry(id=entry.id))
    with pytest.raises(StoreError):
        store.put(replace(entry, answer=b"other"))
    assert store.find_exact("a1", entry.exact_key, NOW) == entry


# Deletion and invalidation


def test_a_deleted_entry_is_gone_at_once_and_for_good(store: SqlEntryStore) -> None:
    entry, other = make_entry(vector=unit(1, 0)), make_entry()
    put(store, entry, other)
    apply(store)
    epoch = store.epoch("a1")
    assert store.delete("a1", [entry.id, entry.id, "unknown"], NOW) == 1
    assert store.delete("a1", [entry.id], NOW) == 0
    assert found(store, entry, other) == [other.id]
    assert store.epoch("a1") == epoch + 2, "a process may hold in memory what the store does not have"
    assert apply(store) == {entry.id: False}


def test_what_was_overtaken_by_an_invalidation_ends_nothing(store: SqlEntryStore) -> None:
    began = store.epoch("a1")
    store.invalidate("a1", tag_scope("t"), NOW)
    newer = make_entry(exact_key="k", epoch=store.epoch("a1"))
    put(store, newer, make_entry(exact_key="k", epoch=began, tags=("t",)))
    assert found(store, newer) == [newer.id]


@pytest.mark.parametrize(
    ("scope", "ended"),
    [(ALL, "xyz"), (model_scope("m"), "xy"), (model_scope("M"), ""), (tag_scope("t"), "y"), (tag_scope("T"), ""), (model_scope("t"), "")],
)
def test_a_scope_is_invalidated_for_what_was_asked_before(store: SqlEntryStore, scope: str, ended: str) -> None:
    entries = {"x": make_entry(), "y": make_entry(tags=("s", "t")), "z": make_entry(model="other")}
    elsewhere = make_entry(namespace="b2", tags=("t",))
    put(store, *entries.values(), elsewhere)
    epoch = store.invalidate("a1", scope, NOW)
    assert epoch == store.epoch("a1") == 1
    assert found(store, *entries.values(), elsewhere) == [each.id for name, each in entries.items() if name not in ended] + [elsewhere.id]
    late = make_entry(tags=("t",), epoch=epoch - 1)
    anew = make_entry(tags=("t",), epoch=epoch)
    put(store, late, anew)
    assert found(store, late) == ([] if "y" in ended else [late.id]), "its request came in before"
    assert found(store, anew) == [anew.id]


def test_epochs_of_namespaces_are_their_own(store: SqlEntryStore) -> None:
    for expected in (1, 2, 3):
        assert store.invalidate("a1", ALL, NOW) == expected
    assert (store.epoch("a1"), store.epoch("b2")) == (3, 0)


def test_another_connection_sees_an_invalidation_at_its_next_read(store: SqlEntryStore, tmp_path: Path) -> None:
    entry = make_entry()
    put(store, entry)
    other = SqlEntryStore(open_database(store._database.url))
    assert found(other, entry) == [entry.id]
    store.invalidate("a1", ALL, NOW)
    assert found(other, entry) == []
    other.close()


# The outbox


def test_a_line_is_one_workers_until_its_time_is_over(store: SqlEntryStore) -> None:
    entry = make_entry(vector=unit(1, 0))
    put(store, entry)
    (change,) = store.claim(10, NOW, 60, "")
    assert change.record is not None
    assert (change.record.id, change.record.namespace, change.record.fingerprint) == (entry.id, "a1", "f1")
    np.testing.assert_array_equal(change.record.vector, unit(1, 0))
    assert store.claim(10, NOW + 59, 60, "") == []
    assert [each.seq for each in store.claim(10, NOW + 60, 60, "")] == [change.seq], "the worker died: the line passes on"
    store.confirm([change])
    assert (store.backlog(), store.claim(10, NOW + 999, 60, "")) == (0, [])


def test_lines_come_oldest_first_and_no_more_than_asked(store: SqlEntryStore) -> None:
    entries = [make_entry(vector=unit(1, 0)) for _ in range(5)]
    put(store, *entries)
    assert [change.entry_id for change in store.claim(3, NOW, 60, "")] == [entry.id for entry in entries[:3]]
    assert [change.entry_id for change in store.claim(3, NOW, 60, "")] == [entry.id for entry in entries[3:]]


def test_entries_without_vector_do_not_concern_the_index(store: SqlEntryStore) -> None:
    entry = make_entry()
    put(store, entry)
    store.delete("a1", [entry.id], NOW)
    assert store.backlog() == 0


def test_an_entry_that_dies_while_it_is_applied_is_dropped_again(store: SqlEntryStore) -> None:
    entry = make_entry(vector=unit(1, 0))
    put(store, entry)
    slow = store.claim(10, NOW, 60, "")
    store.delete("a1", [entry.id], NOW)
    assert apply(store) == {entry.id: False}
    store.confirm(slow)  # the slow worker has only now written the vector
    assert apply(store) == {entry.id: False}
    assert store.backlog() == 0


def test_scan_gives_what_the_index_must_hold(store: SqlEntryStore) -> None:
    held = [make_entry(vector=unit(1, number), embedder="e") for number in range(5)]
    expired, deleted, foreign = (make_entry(vector=unit(1, 0), embedder="e") for _ in range(3))
    expired, foreign = replace(expired, expires_at=NOW), replace(foreign, embedder="other")
    put(store, *held, expired, deleted, foreign, make_entry())
    assert store.scan("", 100, NOW, "e") == [], "pending"
    apply(store, embedder="e")
    store.delete("a1", [deleted.id], NOW)
    ids = sorted(entry.id for entry in held)
    assert [record.id for record in store.scan("", 3, NOW, "e")] == ids[:3]
    assert [record.id for record in store.scan(ids[2], 3, NOW, "e")] == ids[3:]
    np.testing.assert_array_equal(store.scan("", 1, NOW, "e")[0].vector, unit(1, 0))
    store.enqueue(ids[:1])
    assert [record.id for record in store.scan("", 100, NOW, "e")] == ids[1:], "the outbox has a line"


def test_known_are_the_living_and_those_in_the_outbox(store: SqlEntryStore) -> None:
    live, dying, dead = (make_entry(vector=unit(1, 0)) for _ in range(3))
    put(store, live, dying, dead)
    apply(store)
    store.delete("a1", [dead.id], NOW)
    apply(store)
    store.delete("a1", [dying.id], NOW)
    assert store.known([live.id, dying.id, dead.id, "unknown"]) == {live.id, dying.id}


def test_another_embedder_gets_every_text_and_nothing_is_lost(store: SqlEntryStore) -> None:
    old = [make_entry(text=f"text {number}", vector=unit(1, 0), embedder="old") for number in range(3)]
    new, silent, dead = make_entry(vector=unit(0, 1), embedder="new"), make_entry(text=None), make_entry(vector=unit(1, 0), embedder="old")
    put(store, *old, new, silent, dead)
    assert apply(store, embedder="new") == {new.id: True} | dict.fromkeys([each.id for each in (*old, dead)], False)
    store.delete("a1", [dead.id], NOW)
    apply(store, embedder="new")
    assert store.outdated("new", "", 2, NOW) == [(each.id, each.text) for each in old[:2]]
    assert store.outdated("new", old[1].id, 2, NOW) == [(old[2].id, old[2].text)]
    store.embed({each.id: unit(1, 1) for each in (*old, dead)} | {"unknown": unit(1, 1)}, "new")
    assert store.outdated("new", "", 9, NOW) == []
    assert apply(store, embedder="new") == dict.fromkeys([each.id for each in old], True)
    assert len(store.scan("", 9, NOW, "new")) == 4
    assert found(store, *old, new, silent, dead) == [each.id for each in (*old, new, silent)]


# Use, quotas, garbage


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


def test_an_invalidation_is_forgotten_when_nothing_is_older(store: SqlEntryStore) -> None:
    entry = make_entry(expires_at=NOW + 1e9)
    put(store, entry)
    store.invalidate("a1", tag_scope("t"), NOW)
    day = 86_400
    assert store.collect(NOW + 2 * day, 0, 100).invalidated == 0
    put(store, again := make_entry(tags=("t",), epoch=0, expires_at=NOW + 1e9))
    assert found(store, again) == [], "an older entry is there, so the invalidation is too"
    store.delete("a1", [entry.id], NOW)
    store.collect(NOW + 2 * day, 0, 100)
    store.collect(NOW + 2 * day, 0, 100)
    put(store, anew := make_entry(tags=("t",), epoch=0, expires_at=NOW + 1e9))
    assert found(store, anew) == [anew.id]
    assert store.epoch("a1") >= 1, "the counter stays"


# Many at once


def at_once(work: Callable[[int], object], times: int) -> None:
    barrier = threading.Barrier(times)

    def start(number: int) -> None:
        barrier.wait()
        work(number)

    with ThreadPoolExecutor(times) as pool:
        list(pool.map(start, range(times)))


def test_threads_that_put_one_key_leave_one_entry(store: SqlEntryStore) -> None:
    entries = [make_entry(exact_key="k", vector=unit(1, 0)) for _ in range(8)]
    at_once(lambda number: store.put(entries[number]), 8)
    (survivor,) = found(store, *entries)
    assert apply(store) == {entry.id: entry.id == survivor for entry in entries}


def test_threads_that_invalidate_get_an_epoch_each(store: SqlEntryStore) -> None:
    epochs: list[int] = []
    at_once(lambda number: epochs.append(store.invalidate("a1", tag_scope(str(number % 2)), NOW)), 8)
    assert sorted(epochs) == list(range(1, 9))


def test_workers_share_the_outbox(store: SqlEntryStore) -> None:
    put(store, *(make_entry(vector=unit(1, 0)) for _ in range(60)))
    claimed: list[int] = []

    def work(number: int) -> None:
        while changes := store.claim(7, NOW, 60, ""):
            claimed.extend(change.seq for change in changes)
            store.confirm(changes)

    at_once(work, 4)
    while changes := store.claim(7, NOW, 60, ""):  # a worker may have seen nothing free while another held the rest
        claimed.extend(change.seq for change in changes)
        store.confirm(changes)
    assert len(claimed) == len(set(claimed)) == 60
    assert store.backlog() == 0


def test_threads_do_everything_at_once(store: SqlEntryStore) -> None:
    def work(number: int) -> None:
        for _ in range(10):
            entry = make_entry(namespace=f"a{number % 2}", vector=unit(1, 0))
            store.put(entry)
            store.use({entry.id: 1}, NOW)
            if number % 3 == 0:
                store.delete(entry.namespace, [entry.id], NOW)
            store.confirm(store.claim(5, NOW, 60, ""))
            store.evict(entry.namespace, Quota(max_entries=20), NOW)
            store.collect(NOW, 0, 5)

    at_once(work, 6)
    apply(store)
    assert store.backlog() == 0
    assert all(store.stats(f"a{number}", NOW).entries <= 20 for number in (0, 1))


def test_close_twice_is_harmless(store: SqlEntryStore) -> None:
    store.close()
    store.close()


def test_the_order_of_ids_is_that_of_python(store: SqlEntryStore) -> None:
    """The reconciler walks through store and index side by side: both must agree in what "above" means."""
    ids: Sequence[str] = ["0", "9", "A", "Z", "a", "z", "a-1", "aa", "-"]
    put(store, *(make_entry(id=each) for each in ids))
    assert [info.id for info in store.page("a1", Filter(), "", 100, NOW)] == sorted(ids)
