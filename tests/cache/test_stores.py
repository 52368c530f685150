"""What is kept, found and ended: one contract, on every database."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cache.errors import StoreError
from cache.stores.base import ALL, Candidate, Filter, Known, model_scope, tag_scope
from cache.stores.sql import SqlEntryStore, open_database
from tests.cache.entries import make_entry, unit
from tests.cache.storing import NOW, apply, found, put


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
    assert store.candidates(entry.namespace, "f2", [entry.id], "k", NOW) == []
    assert store.delete("b2", [entry.id], NOW) == 0
    assert found(store, entry) == [entry.id]


def test_candidates_keep_the_order_and_leave_out_entries_without_text(store: SqlEntryStore) -> None:
    first, second, silent = make_entry(), make_entry(), make_entry(text=None)
    put(store, first, second, silent)
    candidates = store.candidates("a1", "f1", [second.id, "unknown", silent.id, first.id], "k", NOW)
    assert candidates == [Candidate(second.id, str(second.text)), Candidate(first.id, str(first.text))]


def test_the_newest_entry_with_a_normal_form_is_found(store: SqlEntryStore) -> None:
    old, new = make_entry(normal_key="k", created_at=NOW - 2), make_entry(normal_key="k", created_at=NOW - 1)
    put(store, new, old, make_entry(normal_key="k", fingerprint="f2"), make_entry(normal_key="k", namespace="b2"), make_entry())
    assert store.look_up("a1", "another key", "f1", "k", NOW) == Known(0, reworded=new)
    store.delete("a1", [new.id], NOW)
    assert store.look_up("a1", "another key", "f1", "k", NOW) == Known(1, reworded=old)
    assert store.look_up("a1", old.exact_key, "f1", "k", NOW) == store.look_up("a1", old.exact_key, "f1", None, NOW) == Known(1, exact=old)
    for key in ("K", None):
        assert store.look_up("a1", "another key", "f1", key, NOW) == Known(1)


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


def test_close_twice_is_harmless(store: SqlEntryStore) -> None:
    store.close()
    store.close()


def test_the_order_of_ids_is_that_of_python(store: SqlEntryStore) -> None:
    """The reconciler walks through store and index side by side: both must agree in what "above" means."""
    ids: Sequence[str] = ["0", "9", "A", "Z", "a", "z", "a-1", "aa", "-"]
    put(store, *(make_entry(id=each) for each in ids))
    assert [info.id for info in store.page("a1", Filter(), "", 100, NOW)] == sorted(ids)
