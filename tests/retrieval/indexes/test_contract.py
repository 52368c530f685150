"""One contract, on every kind of chunk index."""

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.entry import Vector
from cache.errors import VectorIndexError
from retrieval.indexes import faiss_index, structures
from retrieval.indexes.base import ChunkIndex, Found, Kind
from retrieval.indexes.building import build
from retrieval.indexes.files import IndexFiles
from retrieval.indexes.milvus import MilvusChunks
from tests.cache.databases import milvus_url
from tests.cache.entries import unit
from tests.retrieval.indexes.worlds import NONE, Truth, ids, nearest, slices, units

Make = Callable[[Truth, int], ChunkIndex]
"""An index of these vectors, of this dimension, at version 1."""


def local(kind: Kind) -> Callable[[Path], Make]:
    def of(_: Path) -> Make:
        return lambda truth, dimension: build(slices(truth), version=1, dimension=dimension, embedder="e", kind=kind)

    return of


def saved(kind: Kind) -> Callable[[Path], Make]:
    def of(directory: Path) -> Make:
        def make(truth: Truth, dimension: int) -> ChunkIndex:
            files = IndexFiles(directory / f"{dimension}-{len(truth)}")
            build(slices(truth), version=1, dimension=dimension, embedder="e", kind=kind, files=files)
            return files.open_newest(dimension, "e")

        return make

    return of


LOCAL: dict[str, Callable[[Path], Make]] = {
    "flat": local("flat"),
    "hnsw": local("hnsw"),
    "ivf": local("ivf"),
    "flat_saved": saved("flat"),
    "hnsw_saved": saved("hnsw"),
    "ivf_saved": saved("ivf"),
}


@pytest.fixture(scope="module")
def milvus() -> Iterator[Make]:
    url, name, opened = milvus_url(), f"test_{uuid.uuid4().hex}", dict[int, MilvusChunks]()

    def make(truth: Truth, dimension: int) -> ChunkIndex:
        chunks = opened.get(dimension)
        if chunks is None:  # making a collection takes seconds
            chunks = opened[dimension] = MilvusChunks.at(url.replace("milvus:", "http:"), f"{name}_{dimension}", dimension)
        # Rows have numbers of their own in the whole collection: those of the test before go first.
        index = chunks.version("a", 2**40)
        index.changed(2**40, [], index.rows).changed(2**40, [], NONE).changed(2**40, [], NONE)
        return chunks.version("a", 0).changed(1, slices(truth), NONE)

    yield make
    for chunks in opened.values():
        chunks.drop()
        chunks.close()


@pytest.fixture(params=[*LOCAL, "milvus"])
def make(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setattr(structures, "FEW", 20)  # so that what is for many rows happens with hundreds
    monkeypatch.setattr(faiss_index, "MIN_TAIL", 30)
    if request.param in LOCAL:
        return LOCAL[request.param](tmp_path)
    found: Make = request.getfixturevalue("milvus")
    return found


def world(count: int = 300, dimension: int = 8, seed: int = 1) -> Truth:
    """Enough rows for every kind to make its structure. Their numbers are not in a row."""
    rows = np.random.default_rng(seed).permutation(3 * count)[:count]
    return dict(zip(sorted(rows.tolist()), units(seed, count, dimension), strict=True))


def close(found: list[Found], expected: list[Found]) -> bool:
    """The same rows but for those that float32 cannot tell apart, and their scores."""
    return len(found) == len(expected) and np.allclose([hit.score for hit in found], [hit.score for hit in expected], atol=2e-6)


def assert_agrees(index: ChunkIndex, truth: Truth, vector: Vector, k: int, rows: list[int] | None = None) -> None:
    allowed = None if rows is None else index.select(ids(rows))
    held = truth if rows is None else {row: truth[row] for row in rows if row in truth}
    found = index.search(vector, k, allowed)
    assert {hit.row for hit in found} <= held.keys()
    assert len({hit.row for hit in found}) == len(found)
    assert close(found, nearest(held, vector, k))
    assert found == sorted(found, key=lambda hit: (-hit.score, hit.row))
    *_, last = index.stages(vector, k, allowed)
    assert last == found


def test_nearest_rows_come_first_with_their_cosine(make: Make) -> None:
    index = make({7: unit(-1, 0), 3: unit(1, 0), 9: unit(0, 1), 4: unit(3, 4)}, 2)
    assert index.search(unit(1, 0), 10) == [Found(3, 1.0), Found(4, 0.6), Found(9, 0.0), Found(7, -1.0)]
    assert index.search(unit(1, 0), 2) == [Found(3, 1.0), Found(4, 0.6)]
    assert index.search(unit(1, 0), 0) == []
    assert (len(index), index.dimension, index.version) == (4, 2, 1)


def test_an_empty_collection_has_no_rows_and_can_grow(make: Make) -> None:
    empty = make({}, 2)
    assert empty.search(unit(1, 0), 5) == list(empty.stages(unit(1, 0), 5))[-1] == []
    assert (len(empty), len(empty.select(ids([1])))) == (0, 0)
    grown = empty.changed(2, [(ids([5]), unit(1, 0)[np.newaxis])], NONE)
    assert grown.search(unit(1, 0), 5) == [Found(5, 1.0)]


def test_rows_of_one_score_come_in_ascending_order(make: Make) -> None:
    truth = world()
    truth |= {row: unit(1, 0, 0, 0, 0, 0, 0, 0) for row in (5000, 1000, 3000, 2000, 4000)}
    index = make(truth, 8)
    assert [hit.row for hit in index.search(unit(1, 0, 0, 0, 0, 0, 0, 0), 5)] == [1000, 2000, 3000, 4000, 5000]


def test_a_search_agrees_with_comparing_all(make: Make) -> None:
    truth = world()
    index = make(truth, 8)
    for seed, k in ((2, 1), (3, 10), (4, 50), (5, 1000)):
        assert_agrees(index, truth, units(seed, 1)[0], k)


def test_a_selection_is_all_that_is_found(make: Make) -> None:
    truth = world()
    index = make(truth, 8)
    rows = [*truth]
    for chosen in ([], rows[:1], rows[::7], rows[:150], [*rows, 10**12], [10**12]):
        assert len(index.select(ids(chosen))) == len({*chosen} & truth.keys())
        for seed in (2, 3):
            assert_agrees(index, truth, units(seed, 1)[0], 10, chosen)


def test_a_selection_of_another_version_is_refused(make: Make) -> None:
    index = make(world(), 8)
    selection = index.changed(2, [], NONE).select(ids([1]))
    with pytest.raises(VectorIndexError, match="selection"):
        index.search(unit(*range(1, 9)), 1, selection)


def test_the_next_version_stands_beside_the_first(make: Make) -> None:
    truth, query = world(), units(9, 1)[0]
    first = make(truth, 8)
    before = first.search(query, 5)
    gone = [hit.row for hit in before[:3]]
    added = {10_000: query, 10_001: units(8, 1)[0]}
    second = first.changed(2, slices(added), ids([*gone, 10**12]))
    now = {row: vector for row, vector in (truth | added).items() if row not in gone}
    assert_agrees(second, now, query, 10)
    assert second.search(query, 1) == [Found(10_000, 1.0)]
    assert (second.version, len(second)) == (2, len(truth) - 1)
    assert (first.version, len(first), first.search(query, 5)) == (1, len(truth), before)
    third = second.changed(3, [], ids([10_000]))
    del now[10_000]
    assert_agrees(third, now, query, 10)
    assert_agrees(third, now, units(3, 1)[0], 10, [*added])


def test_everything_may_be_removed(make: Make) -> None:
    truth = world()
    index = make(truth, 8).changed(2, [], ids(truth))
    assert index.search(unit(*range(1, 9)), 3) == []
    assert (len(index), len(index.select(ids(truth)))) == (0, 0)


def test_a_row_that_is_there_cannot_be_added(make: Make) -> None:
    truth = world()
    index = make(truth, 8)
    row, other = [*truth][4:6]
    for rows in ([row], [10**6, 10**6]):
        with pytest.raises(VectorIndexError, match="already"):
            index.changed(2, [(ids(rows), units(1, len(rows)))], ids([other]))


def test_the_index_keeps_its_own_copy(make: Make) -> None:
    index = make(world(), 8)
    rows, vectors = ids([10**6]), unit(*range(1, 9))[np.newaxis].copy()
    grown = index.changed(2, [(rows, vectors)], NONE)
    rows[0], vectors[:] = 5, units(7, 1)
    assert grown.search(unit(*range(1, 9)), 1) == [Found(10**6, 1.0)]


@pytest.mark.parametrize(
    "vector",
    [
        unit(1, 0, 0),
        np.array([[1, 0]], np.float32),
        np.array([1, 0], np.float64),
        np.array([0, 0], np.float32),
        np.array([1.002, 0], np.float32),
        np.array([np.nan, 1], np.float32),
    ],
    ids=["dimension", "shape", "type", "zero", "long", "nan"],
)
def test_anything_but_a_unit_vector_is_refused(make: Make, vector: Any) -> None:
    index = make({1: unit(1, 0)}, 2)
    with pytest.raises(VectorIndexError):
        index.search(vector, 1)
    with pytest.raises(VectorIndexError):
        next(index.stages(vector, 1))
    with pytest.raises(VectorIndexError):
        index.changed(2, [(ids([2]), vector[np.newaxis])], NONE)


@pytest.mark.parametrize("rows", [np.array([1], np.int32), np.array([[1]], np.int64), ids([-1]), ids([1, 2])])
def test_rows_that_are_none_are_refused(make: Make, rows: Any) -> None:
    with pytest.raises(VectorIndexError):
        make({}, 2).changed(2, [(rows, unit(1, 0)[np.newaxis])], NONE)


def test_views_of_vectors_are_taken(make: Make) -> None:
    index = make({1: unit(1, 0), 2: unit(0, 1)}, 2)
    assert index.search(np.array([0, 9, 1, 9], np.float32)[::2], 1) == [Found(2, 1.0)]
    grown = index.changed(2, [(ids([3, 9, 4])[::2], np.array([[0, -1], [9, 9], [-1, 0]], np.float32)[::2])], NONE)
    assert [hit.row for hit in grown.search(unit(-1, -2), 2)] == [3, 4]


def test_searches_see_their_version_while_the_next_ones_are_made(make: Make) -> None:
    truth, queries = world(), units(5, 4)
    versions = [make(truth, 8)]
    expected = [[nearest(truth, query, 5) for query in queries]]
    seen = [0] * 4
    """The newest version that each thread has searched."""

    def search(thread: int) -> None:
        while seen[thread] < 10:
            number = len(versions) - 1
            found = versions[number].search(queries[thread], 5)
            assert close(found, expected[number][thread])
            seen[thread] = number

    with ThreadPoolExecutor(4) as pool:
        searching = [pool.submit(search, thread) for thread in range(4)]
        for version in range(1, 11):
            added = dict(zip(range(version * 10_000, version * 10_000 + 40), units(version, 40), strict=True))
            gone = [*truth][:30]
            truth = {row: vector for row, vector in (truth | added).items() if row not in gone}
            expected.append([nearest(truth, query, 5) for query in queries])
            versions.append(versions[-1].changed(version + 1, slices(added), ids(gone)))
            while min(seen) < version - 1 and not any(future.done() for future in searching):
                time.sleep(0.001)
        for future in searching:
            future.result(60)
