"""Many at once: one contract, on every database."""

from cache.stores.base import Quota, tag_scope
from cache.stores.sql import SqlEntryStore
from tests.cache.entries import make_entry, unit
from tests.cache.storing import NOW, apply, at_once, found, put


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
