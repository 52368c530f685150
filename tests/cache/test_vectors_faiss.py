"""Large partitions in FAISS: how much they find, and what happens while the background works."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

from cache.vectors import faiss_index
from cache.vectors.base import VectorRecord
from cache.vectors.codes import Codes, Rows
from cache.vectors.faiss_index import FaissIndex

LIMIT = 500


def normal(rows: object) -> Rows:
    array = np.asarray(rows, np.float64)
    return np.asarray(array / np.linalg.norm(array, axis=1, keepdims=True), np.float32)


def random_directions(random: np.random.Generator, count: int, dimension: int) -> Rows:
    return normal(random.standard_normal((count, dimension)))


def topics(random: np.random.Generator, count: int, dimension: int) -> Rows:
    centres = random.standard_normal((100, dimension))
    return normal(centres[random.integers(0, 100, count)] + 0.6 * random.standard_normal((count, dimension)))


def hardly_different(random: np.random.Generator, count: int, dimension: int) -> Rows:
    """Few questions, each in thousands of variants that the codes cannot tell apart."""
    centres = random.standard_normal((3, dimension))
    return normal(centres[random.integers(0, 3, count)] + 0.05 * random.standard_normal((count, dimension)))


def records(vectors: Rows, start: int = 0) -> list[VectorRecord]:
    return [VectorRecord(f"{start + row:06}", "a", "f", vector) for row, vector in enumerate(vectors)]


def names(index: FaissIndex, vector: Rows, k: int = 8) -> list[str]:
    return [neighbour.id for neighbour in index.search("a", "f", vector, k)]


def recall(index: FaissIndex, vectors: Rows, queries: Rows, k: int = 8) -> float:
    best = np.argsort(-(queries @ vectors.T), axis=1)[:, :k]
    return float(
        np.mean([len({f"{row:06}" for row in rows} & {*names(index, query, k)}) / k for query, rows in zip(queries, best, strict=True)])
    )


@pytest.mark.parametrize("dimension", [64, 33])
@pytest.mark.parametrize("make", [random_directions, topics, hardly_different])
def test_large_partitions_find_nineteen_of_twenty_neighbours(make: Callable[..., Rows], dimension: int) -> None:
    vectors = make(np.random.default_rng(4), 12_100, dimension)
    vectors, queries = vectors[:12_000], vectors[12_000:]
    index = FaissIndex(dimension, flat_limit=LIMIT)
    for start in range(0, 12_000, 400):
        index.upsert(records(vectors[start : start + 400], start))
    assert recall(index, vectors, queries[:20]) >= 0.95  # whatever has codes by now
    index.settle()
    assert recall(index, vectors, queries) >= 0.95
    index.close()


def test_nothing_is_looked_for_that_is_further_away_than_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = topics(np.random.default_rng(6), 12_020, 64)
    vectors, near = vectors[:12_000], vectors[12_000:]
    index = FaissIndex(64, flat_limit=LIMIT)
    index.upsert(records(vectors))
    index.settle()
    depths: list[int] = []
    closest = Codes.closest

    def spy(codes: Codes, vector: Rows, count: int, at_least: float) -> object:
        depths.append(count)
        return closest(codes, vector, count, at_least)

    monkeypatch.setattr(Codes, "closest", spy)
    for at_least in (-1.0, 0.95):
        for far in random_directions(np.random.default_rng(7), 20, 64):
            index.search("a", "f", far, 8, at_least=at_least)
    assert len(depths[:-20]) > 20, "without a limit, some need a second look"
    assert len(set(depths[-20:])) == 1
    best = np.sort(near @ vectors.T, axis=1)[:, -8]
    for query, at_least in zip(near, best.tolist(), strict=True):
        found = index.search("a", "f", query, 8, at_least=at_least)
        assert sum(each.similarity >= at_least - 1e-5 for each in found) >= 7
    index.close()


def near(random: np.random.Generator, rows: Rows, similarity: float) -> Rows:
    """For each row, a vector of this similarity to it."""
    random_rows = random.standard_normal(rows.shape)
    away = normal(random_rows - (random_rows * rows).sum(axis=1, keepdims=True) * rows)
    return normal(similarity * rows + (1 - similarity**2) ** 0.5 * away)


def drifted(random: np.random.Generator, count: int, dimension: int) -> Rows:
    """The first rows, which the lists are made for, are of one topic; those behind them of others."""
    early = near(random, np.repeat(random_directions(random, 1, dimension), LIMIT + 1, axis=0), 0.85)
    return np.concatenate([early, topics(random, count - len(early), dimension)])


@pytest.mark.parametrize(("similarity", "least_recall"), [(0.72, 0.9), (0.8, 0.95), (0.9, 0.99)])
@pytest.mark.parametrize("make", [random_directions, topics, drifted])
@pytest.mark.parametrize("size", [LIMIT + 20, 950, 7_900])
def test_what_is_close_enough_is_found(make: Callable[..., Rows], size: int, similarity: float, least_recall: float) -> None:
    random = np.random.default_rng(8)
    vectors = make(random, size, 64)
    index = FaissIndex(64, flat_limit=LIMIT)
    for start in range(0, size, 100):
        index.upsert(records(vectors[start : start + 100], start))
        index.settle()
    chosen = random.integers(0, size, 200)
    queries = near(random, vectors[chosen], similarity)
    found = [
        f"{row:06}" in {each.id for each in index.search("a", "f", query, 40, at_least=0.7)}
        for row, query in zip(chosen, queries, strict=True)
    ]
    assert np.mean(found) >= least_recall
    index.close()


@pytest.mark.parametrize("dimension", [2, 64])
def test_rows_that_the_codes_cannot_order_are_all_there(dimension: int) -> None:
    """All in one list, most lists empty, and more asked for than the close lists have."""
    random = np.random.default_rng(9)
    vectors = np.repeat(random_directions(random, 1, dimension), 2_000, axis=0)
    index = FaissIndex(dimension, flat_limit=LIMIT)
    index.upsert(records(vectors))
    index.settle()
    for query in random_directions(random, 20, dimension):
        found = index.search("a", "f", query, 8)
        assert len({each.id for each in found}) == 8
        similarity = float(vectors[0] @ query)
        assert [each.similarity for each in found] == pytest.approx([similarity] * 8, abs=1e-5)
        close = index.search("a", "f", query, 8, at_least=0.7)
        assert [each.similarity for each in close] == pytest.approx([similarity] * len(close), abs=1e-5)
    index.close()


def test_rows_behind_the_codes_get_codes_before_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss_index, "MIN_TAIL", 50)
    vectors = random_directions(np.random.default_rng(10), LIMIT + 1 + 51, 8)
    extended: list[int] = []
    extend = Codes.extended

    def spy(codes: Codes, rows: Rows) -> Codes:
        extended.append(len(rows))
        return extend(codes, rows)

    monkeypatch.setattr(Codes, "extended", spy)
    index = FaissIndex(8, flat_limit=LIMIT)
    for start, stop in ((0, LIMIT + 1), (LIMIT + 1, LIMIT + 51), (LIMIT + 51, LIMIT + 52)):
        index.upsert(records(vectors[start:stop], start))
        index.settle()
    assert extended == [51]
    index.close()


def test_partitions_that_are_not_large_are_exact() -> None:
    vectors = random_directions(np.random.default_rng(5), LIMIT, 16)
    index = FaissIndex(16, flat_limit=LIMIT)
    index.upsert(records(vectors))
    assert recall(index, vectors, vectors[:50]) == 1


class Held:
    """`Codes.of`, which stops until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self._make = Codes.of
        monkeypatch.setattr(Codes, "of", self)

    def __call__(self, rows: Rows) -> Codes:
        self.begun.set()
        assert self.go_on.wait(20)
        return self._make(rows)


def test_searches_and_writes_go_on_while_codes_are_made_and_nothing_of_it_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch)
    vectors = random_directions(np.random.default_rng(6), 2 * LIMIT, 16)
    index = FaissIndex(16, flat_limit=LIMIT)
    index.upsert(records(vectors[: LIMIT + 1]))
    assert held.begun.wait(20)
    index.delete([f"{row:06}" for row in range(300)])
    index.upsert([VectorRecord("000400", "b", "f", vectors[400]), VectorRecord("000401", "a", "f", vectors[-1])])
    index.upsert(records(vectors[LIMIT + 1 : LIMIT + 100], LIMIT + 1))
    for _ in range(2):
        assert names(index, vectors[10], 2000) == names(index, vectors[10], index.count() - 1)
        assert len(names(index, vectors[10], 2000)) == index.count() - 1 == 299
        assert names(index, vectors[-1], 1) == ["000401"]
        assert names(index, vectors[LIMIT + 50], 1) == [f"{LIMIT + 50:06}"]
        assert names(index, vectors[400], 1) != ["000400"]
        assert [each.id for each in index.search("b", "f", vectors[400], 5)] == ["000400"]
        held.go_on.set()
        index.settle()


def test_a_failure_in_the_background_leaves_searches_right(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(rows: Rows) -> Codes:
        raise MemoryError

    monkeypatch.setattr(Codes, "of", fail)
    vectors = random_directions(np.random.default_rng(7), LIMIT + 1, 16)
    index = FaissIndex(16, flat_limit=LIMIT)
    index.upsert(records(vectors))
    index.settle()
    assert recall(index, vectors, vectors[:20]) == 1
    assert "no new codes" in caplog.text


def test_what_is_replaced_again_and_again_takes_no_room_and_hides_nothing() -> None:
    random = np.random.default_rng(8)
    vectors = random_directions(random, 3 * LIMIT, 16)
    index = FaissIndex(16, flat_limit=LIMIT)
    index.upsert(records(vectors))
    index.settle()
    for _ in range(40):  # 4,000 dead rows, all next to the query
        index.upsert(records(normal(vectors[0] + 0.01 * random.standard_normal((100, 16)))))
        assert len({*names(index, vectors[0], 100)} - {f"{row:06}" for row in range(100)}) <= 5
    index.settle()
    [partition] = index._partitions.values()
    assert len(partition.view.names) < 2 * 3 * LIMIT + LIMIT
    index.delete([f"{row:06}" for row in range(20, 3 * LIMIT)])
    index.settle()
    assert partition.view.codes is None
    assert len(partition.view.names) < 100
    assert sorted(names(index, vectors[0], 2000)) == index.scan("", 2000) == [f"{row:06}" for row in range(20)]


def test_a_closed_index_can_still_be_searched() -> None:
    vectors = random_directions(np.random.default_rng(9), LIMIT + 5, 16)
    index = FaissIndex(16, flat_limit=LIMIT)
    index.close()
    index.upsert(records(vectors))
    assert names(index, vectors[3], 1) == ["000003"]
