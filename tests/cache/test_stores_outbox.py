"""The outbox: one contract, on every database."""

from dataclasses import replace

import numpy as np

from cache.stores.sql import SqlEntryStore
from tests.cache.entries import make_entry, unit
from tests.cache.storing import NOW, apply, found, put


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
