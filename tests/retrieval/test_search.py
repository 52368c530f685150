"""Collections are opened at the newest version, from whatever is kept of them."""

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrieval.errors import IndexFileError, UnknownStoreError
from retrieval.filters import parse_filter
from retrieval.indexes.base import Kind
from retrieval.search import CollectionCache
from retrieval.sources import index_name
from retrieval.store import DocumentStore
from tests.retrieval.searching import KINDS, QUERY, agrees, collections, directory_of, put, search_of, source_of, tend, texts
from tests.retrieval.tiers import QuickEncoder

pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture
def store(url: str) -> Iterator[DocumentStore]:
    yield from collections(url, "vs_1")


def opened_from_file(indexes: Path) -> bool:
    """Whether a process that starts now would find a saved index."""
    try:
        source_of(indexes)._files(index_name("a", "vs_1")).open_newest(8, QuickEncoder().name)  # type: ignore[union-attr]
    except IndexFileError:
        return False
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_a_restart_maps_what_was_saved_and_takes_what_has_changed(store: DocumentStore, indexes: Path, kind: Kind) -> None:
    search = search_of(store, indexes, kind)
    put(store, texts(100))
    search.open("a", "vs_1")
    tend(search)
    search.close()
    put(store, {"d3": "otherwise", "new": "new"}, chunks=2)
    store.delete_document("a", "vs_1", "d7", 2.0)
    reads: list[int] = []
    vectors_of = store.vectors_of

    def counted(namespace: str, store_id: str, numbers: Any) -> Any:
        reads.append(len(numbers))
        return vectors_of(namespace, store_id, numbers)

    store.vectors_of = counted  # type: ignore[method-assign]
    again = search_of(store, indexes, kind).open("a", "vs_1")
    assert sum(reads) < 20  # those that are compared, and four new ones
    assert agrees(store, again)
    assert again.index.kind == {"auto": "ivf"}.get(kind, kind)


def test_a_small_collection_needs_no_files(store: DocumentStore, indexes: Path) -> None:
    search = search_of(store, indexes)
    put(store, texts(19))
    assert agrees(store, search.open("a", "vs_1"))
    tend(search)
    assert not directory_of(indexes).exists()


@pytest.mark.parametrize("name", ["header.json", "vectors.f32", "rows.i64", "structure.faiss"])
def test_a_damaged_index_is_made_anew(store: DocumentStore, indexes: Path, name: str) -> None:
    search = search_of(store, indexes)
    put(store, texts(100))
    search.open("a", "vs_1")
    tend(search)
    (path,) = directory_of(indexes).glob(f"*/{name}")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    again = search_of(store, indexes)
    assert agrees(store, again.open("a", "vs_1"))
    tend(again)
    assert opened_from_file(indexes)


def test_an_index_of_another_encoder_is_made_anew(store: DocumentStore, indexes: Path) -> None:
    put(store, texts(100))
    CollectionCache(store, source_of(indexes, embedder="another"), 2).open("a", "vs_1")
    assert agrees(store, search_of(store, indexes).open("a", "vs_1"))


def test_an_index_of_a_state_that_was_given_up_is_made_anew(store: DocumentStore, url: str, indexes: Path) -> None:
    """A backup is brought back: numbers of rows are given again, to other texts."""
    put(store, texts(50))
    path = Path(url.removeprefix("sqlite:///"))
    store.close()
    backup = path.read_bytes()
    for name, versions in (("lost", 1), ("kept", 2)):
        path.write_bytes(backup)
        store = DocumentStore(url, QuickEncoder().name)
        search = search_of(store, indexes)
        for number in range(versions):
            put(store, {f"{name}_{number}": f"{name} {number}"}, chunks=30)
        collection = search.open("a", "vs_1")
        assert agrees(store, collection)
        tend(search)
        store.close()
    assert collection.version == 3


def test_a_version_that_was_saved_and_then_given_up_is_not_used(store: DocumentStore, url: str, indexes: Path) -> None:
    put(store, texts(50))
    path = Path(url.removeprefix("sqlite:///"))
    store.close()
    backup = path.read_bytes()
    store = DocumentStore(url, QuickEncoder().name)
    put(store, texts(50, 50))
    search_of(store, indexes).open("a", "vs_1")
    store.close()
    path.write_bytes(backup)
    store = DocumentStore(url, QuickEncoder().name)
    assert agrees(store, search_of(store, indexes).open("a", "vs_1"))
    store.close()


def test_changes_that_are_forgotten_cost_a_comparison(store: DocumentStore, indexes: Path) -> None:
    search = search_of(store, indexes)
    put(store, texts(100))
    search.open("a", "vs_1")
    put(store, texts(10), chunks=3)
    store.delete_document("a", "vs_1", "d50", 1.0)
    while store.sweep(1e10):
        pass
    assert store.changes("a", "vs_1", 1).gone is None
    assert agrees(store, search.open("a", "vs_1"))


def test_attributes_are_of_the_version(store: DocumentStore) -> None:
    search = search_of(store, None)
    put(store, texts(30), kind="old")
    put(store, texts(30, 30), kind="new")
    where = parse_filter({"type": "eq", "key": "kind", "value": "old"}, "filters")
    old = search.open("a", "vs_1")
    assert len(old.search(QUERY, 100, where)) == 30
    put(store, texts(10), kind="new")
    assert len(old.search(QUERY, 100, where)) == 30
    assert {old.members.attributes_of(hit.row)["kind"] for hit in old.search(QUERY, 100, where)} == {"old"}
    assert len(search.open("a", "vs_1").search(QUERY, 100, where)) == 20


def test_prepared_filters_are_bounded(store: DocumentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, texts(30), kind="x")
    collection = search_of(store, None).open("a", "vs_1")
    for number in range(50):
        where = parse_filter({"type": "ne", "key": "kind", "value": number}, "filters")
        assert len(collection.search(QUERY, 100, where)) == 30
        assert len(collection._selections) == 1  # all rows are in each
    for number in range(50):
        where = parse_filter({"type": "eq", "key": "kind", "value": number}, "filters")
        assert collection.search(QUERY, 100, where) == []
    assert len(collection._selections) == 16


def test_a_prepared_filter_is_not_kept_with_its_text(store: DocumentStore) -> None:
    """It may have megabytes."""
    put(store, texts(30), kind="x")
    collection = search_of(store, None).open("a", "vs_1")
    long = {"type": "nin", "key": "kind", "value": ["\U0001f600" * 500 + str(number) for number in range(256)]}
    for raw in (long, {"type": "or", "filters": [long, {**long, "key": "other"}]}):
        assert len(collection.search(QUERY, 100, parse_filter(raw, "filters"))) == 30
    assert len(collection._selections) == 1  # all rows are in each
    assert sum(len(name) for name in collection._selections) < 100


def test_a_deleted_collection_is_gone_with_its_files(store: DocumentStore, indexes: Path) -> None:
    search = search_of(store, indexes)
    put(store, texts(100))
    search.open("a", "vs_1")
    assert directory_of(indexes).exists()
    store.delete_store("a", "vs_1")
    search.forget("a", "vs_1")
    tend(search)
    assert not directory_of(indexes).exists()
    with pytest.raises(UnknownStoreError):
        search.open("a", "vs_1")


def test_what_was_deleted_while_nobody_was_there_goes_at_the_start(store: DocumentStore, indexes: Path) -> None:
    store.create_store("a", "vs_2", "", {}, 1.0)
    search = search_of(store, indexes)
    for name in ("vs_1", "vs_2"):
        put(store, texts(100), name)
        search.open("a", name)
    store.delete_store("a", "vs_1")
    again = search_of(store, indexes)
    tend(again)
    assert [path.name for path in indexes.iterdir()] == [index_name("a", "vs_2")]


def test_a_collection_of_the_same_id_is_another_one(store: DocumentStore, indexes: Path) -> None:
    search = search_of(store, indexes)
    for turn in range(3):
        put(store, {f"d{number}": f"{turn} {number}" for number in range(100 - turn)})
        assert agrees(store, search.open("a", "vs_1"))
        tend(search)
        store.delete_store("a", "vs_1")
        store.create_store("a", "vs_1", "", {}, 1.0)
    assert agrees(store, search.open("a", "vs_1"))


def test_a_disk_that_takes_nothing_costs_the_files_only(store: DocumentStore, indexes: Path, caplog: pytest.LogCaptureFixture) -> None:
    indexes.write_text("no directory")
    search = search_of(store, indexes)
    put(store, texts(100))
    with caplog.at_level(logging.WARNING, "ray.serve"):
        assert agrees(store, search.open("a", "vs_1"))
    assert "check space and rights" in caplog.text
    assert not [each for each in iter(search.tend, False) if not each]
    assert agrees(store, search.open("a", "vs_1"))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 9), st.integers(1, 12)),
        st.tuples(st.just("delete"), st.integers(0, 9), st.just(0)),
        st.tuples(st.sampled_from(["search", "tend", "restart", "sweep"]), st.just(0), st.just(0)),
    ),
    max_size=25,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS, st.sampled_from(KINDS))
def test_whatever_happens_a_search_finds_what_sql_has(
    store: DocumentStore, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]], kind: Kind
) -> None:
    indexes = tmp_path_factory.mktemp("indexes")
    store.create_store("a", "vs_x", "", {}, 1.0)
    search, old = search_of(store, indexes, kind), []
    for turn, (step, number, count) in enumerate(steps):
        if step == "put":
            put(store, {f"d{number}_{part}": f"{turn} {part}" for part in range(4)}, "vs_x", chunks=count)
        elif step == "delete":
            for part in range(4):
                store.delete_document("a", "vs_x", f"d{number}_{part}", float(turn))
        elif step == "tend":
            tend(search)
        elif step == "restart":
            search = search_of(store, indexes, kind)
        elif step == "sweep":
            while store.sweep(1e6):
                pass
        else:
            collection = search.open("a", "vs_x")
            assert agrees(store, collection, "vs_x")
            old.append((collection, collection.search(QUERY, 1000)))
    assert agrees(store, search.open("a", "vs_x"), "vs_x")
    for collection, found in old:  # what was searched once never changes
        assert collection.search(QUERY, 1000) == found
    store.delete_store("a", "vs_x")


def test_writers_readers_and_upkeep_at_once(store: DocumentStore, indexes: Path) -> None:
    """Each turn replaces a whole generation; a deleted one never comes back, and no search sees two."""
    search = search_of(store, indexes)
    search.start()
    names = [f"d{number}" for number in range(12)]
    done, answered = threading.Event(), [0]

    def write() -> None:
        for generation in range(1, 31):
            put(store, {name: f"generation {generation} {name}" for name in names}, chunks=generation % 4 + 1)
            answered[0] = generation
            if generation % 10 == 0:
                for name in names:
                    store.delete_document("a", "vs_1", name, 1.0)
                put(store, {"only": f"generation {generation} only"}, chunks=30)
                store.delete_document("a", "vs_1", "only", 1.0)

    def read() -> int:
        searches = 0
        while not done.is_set():
            before = answered[0]
            collection = search.open("a", "vs_1")
            found = collection.search(QUERY, 1000)
            chunks = store.chunks_of("a", "vs_1", [each.row for each in found])
            seen = {int(chunks[each.row].text.split()[1]) for each in found}
            assert len(seen) <= 1
            assert not seen or max(seen) >= before
            assert len(found) == len(collection.members.rows)
            searches += 1
        return searches

    with ThreadPoolExecutor(4) as threads:
        readers = [threads.submit(read) for _ in range(3)]
        try:
            write()
        finally:
            done.set()
        assert sum(each.result() for each in readers) > 10
    search.close()
    assert agrees(store, search.open("a", "vs_1"))
