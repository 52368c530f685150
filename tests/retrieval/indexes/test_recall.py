"""How much the approximate kinds find, and what any changes lead to."""

from itertools import count, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.indexes import faiss_index, structures
from retrieval.indexes.base import ChunkIndex, Kind
from retrieval.indexes.building import build
from retrieval.indexes.faiss_index import FaissChunkIndex
from retrieval.indexes.structures import Wanted
from tests.retrieval.indexes.test_contract import assert_agrees
from tests.retrieval.indexes.worlds import Truth, ids, nearest, recall, slices, topics, units

DIMENSION, ROWS = 48, 12_000


@pytest.fixture(scope="module")
def vectors() -> Truth:
    return dict(enumerate(topics(1, ROWS, DIMENSION)))


@pytest.fixture(scope="module", params=["hnsw", "ivf"])
def large(request: pytest.FixtureRequest, vectors: Truth) -> FaissChunkIndex:
    return build(slices(vectors), version=1, dimension=DIMENSION, embedder="e", kind=request.param)


QUERIES = topics(2, 40, DIMENSION)


def found(index: ChunkIndex, truth: Truth, rows: list[int] | None = None) -> float:
    """Recall of ten among all rows, or among these."""
    allowed = None if rows is None else index.select(ids(rows))
    held = truth if rows is None else {row: truth[row] for row in rows}
    matrix, names = np.array([*held.values()]), [*held]
    best = [[names[place] for place in np.argsort(-(matrix @ query))[:10].tolist()] for query in QUERIES]
    hits = [[hit.row for hit in index.search(query, 10, allowed)] for query in QUERIES]
    return float(np.mean([len({*some} & {*true}) / len(true) for some, true in zip(hits, best, strict=True)]))


def test_nineteen_of_twenty_are_found(large: FaissChunkIndex, vectors: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structures, "PROBES", 64)  # of 438 lists: as few as in a million rows would find too little
    assert found(large, vectors) >= 0.95


@pytest.mark.parametrize("step", [2, 10, 50, 400])
def test_also_among_few_selected_rows(large: FaissChunkIndex, vectors: Truth, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structures, "FEW", 100)
    monkeypatch.setattr(structures, "PROBES", 64)
    monkeypatch.setattr(structures, "ALLOWED_ROWS", 1000)
    assert found(large, vectors, [*vectors][::step]) >= 0.95


def test_also_among_rows_that_are_far_away(large: FaissChunkIndex, vectors: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter on a topic that is not the query's."""
    monkeypatch.setattr(structures, "FEW", 100)
    monkeypatch.setattr(structures, "PROBES", 64)
    monkeypatch.setattr(structures, "ALLOWED_ROWS", 500)
    topic = units(7, 1, DIMENSION)[0] - QUERIES[0]
    far = [row for row, vector in vectors.items() if float(vector @ topic) > 0.35]
    assert 100 < len(far) < ROWS // 4
    allowed, held = large.select(ids(far)), {row: vectors[row] for row in far}
    assert recall([large.search(QUERIES[0], 10, allowed)], [nearest(held, QUERIES[0], 10)]) >= 0.9


def test_also_when_most_were_removed(large: FaissChunkIndex, vectors: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structures, "PROBES", 64)
    gone = [row for row in vectors if row % 5]
    assert found(large.changed(2, [], ids(gone)), {row: vector for row, vector in vectors.items() if row % 5 == 0}) >= 0.95


def test_also_when_it_has_doubled(large: FaissChunkIndex, vectors: Truth) -> None:
    more = dict(zip(range(ROWS, 2 * ROWS), topics(3, ROWS, DIMENSION), strict=True))
    index: FaissChunkIndex = large
    for version, start in enumerate(range(0, ROWS, 3000), 2):
        index = index.changed(version, slices(dict([*more.items()][start : start + 3000])), ids([]))
    assert index.contents.structure is not None
    assert index.contents.structure.count > ROWS  # it took rows on the way
    assert found(index, vectors | more) >= 0.95


def test_stages_only_get_better(large: FaissChunkIndex) -> None:
    for query in QUERIES[:10]:
        stages = list(large.stages(query, 10))
        assert len(stages) > 1
        assert all(
            sum(hit.score for hit in after) >= sum(hit.score for hit in before) - 1e-9 and len(after) >= len(before)
            for before, after in pairwise(stages)
        )
        assert stages[-1] == large.search(query, 10)


def test_lists_without_a_selected_row_are_not_read(vectors: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structures, "PROBES", 4)
    monkeypatch.setattr(structures, "ALLOWED_ROWS", 1)
    index = build(slices(vectors), version=1, dimension=DIMENSION, embedder="e", kind="ivf")
    structure = index.contents.structure
    assert structure is not None
    flags = np.zeros(ROWS, np.bool_)
    flags[[5, 77, 4000]] = True
    *_, (positions, _) = structure.scan(QUERIES[0], 10, structure.prepared(Wanted.of(flags)))
    assert sorted(positions.tolist()) == [5, 77, 4000]


def test_rows_that_hardly_differ_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of chunks from one template: the codes guess wrongly, and the doubt is what makes a search compare more of them."""
    near = dict(enumerate(topics(4, ROWS, DIMENSION, centres=30, spread=0.2)))
    index = build(slices(near), version=1, dimension=DIMENSION, embedder="e", kind="ivf")
    queries = topics(5, 20, DIMENSION, centres=30, spread=0.2)

    def share() -> float:
        return recall([index.search(query, 10) for query in queries], [nearest(near, query, 10) for query in queries])

    assert share() >= 0.95
    monkeypatch.setattr(faiss_index, "DOUBT", -100.0)
    assert share() < 0.9


POOL = units(11, 200)
scripts = st.lists(
    st.tuples(st.integers(0, 60), st.lists(st.integers(0, 400), max_size=40), st.integers(1, 20), st.integers(0, 199)), max_size=6
)


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
@given(script=scripts, start=st.integers(0, 150))
def test_any_changes_end_where_comparing_all_does(kind: Kind, script: list[tuple[int, list[int], int, int]], start: int) -> None:
    truth: Truth = {row: POOL[row % 200] for row in range(start)}
    rows = count(start)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structures, "FEW", 15)
        patch.setattr(faiss_index, "MIN_TAIL", 20)
        index: FaissChunkIndex = build(slices(truth, 70), version=1, dimension=8, embedder="e", kind=kind)
        for version, (adds, removes, k, seed) in enumerate(script, 2):
            added = {row: POOL[(row * 7 + seed) % 200] for _, row in zip(range(adds), rows, strict=False)}
            index = index.changed(version, slices(added, 13), ids(removes))
            truth = {row: vector for row, vector in truth.items() if row not in removes} | added
            assert np.array_equal(index.rows, ids(sorted(truth)))
            assert_agrees(index, truth, POOL[seed], k)
            assert_agrees(index, truth, POOL[seed], k, [row for row in truth if row % 3 != seed % 3])
