"""One contract, on every store; then what only a store on disk can show."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache.entry import Entry
from cache.errors import StoreError
from cache.stores.base import EntryStore
from cache.stores.memory import MemoryEntryStore
from cache.stores.sql import open_store
from tests.cache.entries import make_entry, unit

NOW = 1_000_000.0


MARIADB = "mysql+pymysql://mygo:mygo@127.0.0.1:13306/mygo?charset=utf8mb4"
"""As `scripts/services up` starts it."""


@pytest.fixture(params=["memory", "sqlite", "mariadb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EntryStore]:
    opened: EntryStore
    if request.param == "memory":
        opened = MemoryEntryStore()
    elif request.param == "sqlite":
        opened = open_store(f"sqlite:///{tmp_path}/cache.sqlite")
    else:
        opened = empty_mariadb()
    yield opened
    opened.close()


def empty_mariadb() -> EntryStore:
    try:
        opened = open_store(MARIADB)
    except StoreError:
        pytest.skip("MariaDB is not up: scripts/services up")
    opened.evict(0, NOW)
    return opened


def put(store: EntryStore, *entries: Entry) -> None:
    for entry in entries:
        assert store.put(entry) is None


def ids(entries: list[Entry] | Iterator[Entry]) -> list[str]:
    return [entry.id for entry in entries]


def test_an_entry_comes_back_as_it_was(store: EntryStore) -> None:
    entry = make_entry(vector=unit(1, 2, 3), answer=bytes(range(256)), created_at=NOW + 0.123456, expires_at=NOW + 1e6 + 0.5)
    put(store, entry)
    found = store.find_exact(entry.namespace, entry.exact_key, NOW)
    assert found == entry
    assert found.vector is not None
    assert found.vector.dtype == np.float32
    np.testing.assert_array_equal(found.vector, unit(1, 2, 3))


TEXTS = {
    "none": None,
    "empty": "",
    "sql": "'; DROP TABLE entries; --",
    "metacharacters": '%_\\"\n:x?',
    "emoji": "🙂 日本 é",
    "nul": "a\0b",
    "long": "é" * 1_000_000,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_any_text_comes_back(store: EntryStore, text: str | None) -> None:
    entry = make_entry(text=text, model="'\";--", namespace="n'\";--%", fingerprint="f_%'")
    put(store, entry)
    assert store.find_exact(entry.namespace, entry.exact_key, NOW) == entry
    assert store.get_live(entry.namespace, entry.fingerprint, [entry.id], NOW) == [entry]


def test_a_large_answer_comes_back(store: EntryStore) -> None:
    entry = make_entry(answer=b"\0\xff" * 4_000_000)
    put(store, entry)
    assert store.find_exact(entry.namespace, entry.exact_key, NOW) == entry


def test_a_text_that_utf8_cannot_express_is_refused(store: EntryStore) -> None:
    with pytest.raises(StoreError):
        store.put(make_entry(text="\ud800"))
    assert store.count() == 0


def test_exact_key_is_found_in_its_namespace_only(store: EntryStore) -> None:
    mine, theirs = make_entry(namespace="a", exact_key="k"), make_entry(namespace="b", exact_key="k")
    put(store, mine, theirs)
    assert store.find_exact("a", "k", NOW) == mine
    assert store.find_exact("b", "k", NOW) == theirs
    assert store.find_exact("c", "k", NOW) is None
    assert store.find_exact("a", "K", NOW) is None
    assert store.find_exact("a%", "k", NOW) is None


def test_get_live_enforces_namespace_fingerprint_and_expiry_and_keeps_the_order(store: EntryStore) -> None:
    first, second, third = make_entry(), make_entry(), make_entry()
    other_namespace, other_fingerprint = make_entry(namespace="m"), make_entry(fingerprint="g")
    expired = make_entry(expires_at=NOW)
    put(store, first, second, third, other_namespace, other_fingerprint, expired)
    wanted = [third.id, other_namespace.id, first.id, "unknown", expired.id, other_fingerprint.id, second.id]
    assert ids(store.get_live("n", "f", wanted, NOW)) == [third.id, first.id, second.id]
    assert store.get_live("n", "f", [], NOW) == []


def test_nothing_is_read_from_the_moment_it_expires(store: EntryStore) -> None:
    entry = make_entry(expires_at=NOW + 10, vector=unit(1, 0))
    put(store, entry)
    for now, live in ((NOW + 9.999, [entry.id]), (NOW + 10, []), (NOW + 10.001, [])):
        found = store.find_exact("n", entry.exact_key, now)
        assert ([] if found is None else [found.id]) == live
        assert ids(store.get_live("n", "f", [entry.id], now)) == live
        assert ids(store.scan(now)) == live
    assert store.count() == 1


def test_put_replaces_the_entry_with_its_key(store: EntryStore) -> None:
    old, other = make_entry(exact_key="k"), make_entry()
    new = make_entry(exact_key="k", fingerprint="g", answer=b"new")
    put(store, old, other)
    assert store.put(new) == old.id
    assert store.find_exact("n", "k", NOW) == new
    assert store.get_live("n", "f", [old.id, new.id, other.id], NOW) == [other]
    assert store.count() == 2


def test_put_replaces_an_expired_entry_and_one_with_the_same_id(store: EntryStore) -> None:
    old = make_entry(exact_key="k", expires_at=NOW - 1)
    put(store, old)
    again = replace(old, expires_at=NOW + 1, answer=b"again")
    assert store.put(again) == old.id
    assert store.find_exact("n", "k", NOW) == again
    assert store.count() == 1


def test_an_id_in_use_under_another_key_is_refused_and_nothing_changes(store: EntryStore) -> None:
    first, second = make_entry(), make_entry()
    put(store, first, second)
    with pytest.raises(StoreError):
        store.put(replace(second, id=first.id))
    with pytest.raises(StoreError):
        store.put(replace(first, namespace="thief"))
    assert store.find_exact("n", first.exact_key, NOW) == first
    assert store.find_exact("n", second.exact_key, NOW) == second
    assert store.find_exact("thief", first.exact_key, NOW) is None


def test_scan_gives_every_live_entry_with_a_vector_once(store: EntryStore) -> None:
    with_vector = [make_entry(vector=unit(1, number), namespace=f"n{number % 3}") for number in range(1203)]
    put(store, *with_vector, make_entry(), make_entry(vector=unit(1, 0), expires_at=NOW))
    assert sorted(ids(store.scan(NOW))) == sorted(ids(with_vector))


def test_the_store_can_be_written_while_it_is_scanned(store: EntryStore) -> None:
    put(store, *(make_entry(vector=unit(1, number)) for number in range(600)))
    scan = store.scan(NOW)
    first = next(scan)
    store.put(replace(first, answer=b"new"))
    assert len({first.id, *ids(scan)}) == 600


def test_evict_removes_the_expired_first_then_the_least_recently_used(store: EntryStore) -> None:
    oldest, old, touched, young = (make_entry(created_at=NOW + age) for age in range(4))
    expired = make_entry(created_at=NOW + 50, expires_at=NOW + 60)
    put(store, young, expired, touched, old, oldest)
    store.touch(oldest.id, NOW + 10)
    store.touch(touched.id, NOW + 9)
    assert store.evict(10, NOW + 20) == []
    assert store.evict(4, NOW + 60) == [expired.id]
    assert store.evict(2, NOW + 60) == [old.id, young.id]
    assert store.evict(0, NOW + 60) == [touched.id, oldest.id]
    assert store.count() == 0


def test_evict_removes_thousands(store: EntryStore) -> None:
    put(store, *(make_entry(expires_at=NOW + number % 2) for number in range(2600)))
    assert len(store.evict(100, NOW)) == 2500
    assert store.count() == 100


def test_touch_ignores_an_unknown_id(store: EntryStore) -> None:
    store.touch("unknown", NOW)
    assert store.count() == 0


def test_close_twice_is_harmless(store: EntryStore) -> None:
    store.close()
    store.close()


def in_threads(count: int, work: Callable[[int], object]) -> None:
    """Runs `work` in threads that start together; raises what any of them raised."""
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        barrier.wait()
        work(number)

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(run, range(count)))


def test_threads_that_put_one_key_leave_one_entry_and_each_replaced_id_is_reported_once(store: EntryStore) -> None:
    replaced: list[str | None] = []
    in_threads(8, lambda _: replaced.extend(store.put(make_entry(exact_key="k")) for _ in range(10)))
    left = store.find_exact("n", "k", NOW)
    assert left is not None
    assert store.count() == 1
    assert replaced.count(None) == 1
    assert len({left.id, *replaced}) == 81


def test_threads_read_write_and_evict_at_once(store: EntryStore) -> None:
    def work(number: int) -> None:
        for step in range(25):
            entry = make_entry(namespace=f"n{number}", vector=unit(1, step))
            store.put(entry)
            found = store.find_exact(entry.namespace, entry.exact_key, NOW)
            assert found is None or found == entry
            assert all(live.namespace == f"n{number}" for live in store.get_live(f"n{number}", "f", [entry.id], NOW))
            store.touch(entry.id, NOW + step)
            store.evict(20, NOW)

    in_threads(6, work)
    assert store.count() <= 20
