"""What only Milvus needs: scopes, versions of other processes, repeated writes."""

import uuid
from collections.abc import Iterator

import numpy as np
import pytest

from cache.errors import VectorIndexError
from retrieval.indexes import milvus
from retrieval.indexes.base import Found
from retrieval.indexes.milvus import MilvusChunks
from tests.cache.databases import milvus_url
from tests.cache.entries import Clock, unit
from tests.retrieval.indexes.worlds import NONE, Truth, ids, slices

QUERY = unit(1, 0)


@pytest.fixture
def chunks() -> Iterator[MilvusChunks]:
    made = MilvusChunks.at(milvus_url().replace("milvus:", "http:"), f"test_{uuid.uuid4().hex}", 2)
    yield made
    made.drop()
    made.close()


def rows(found: list[Found]) -> list[int]:
    return [hit.row for hit in found]


def test_scopes_do_not_see_each_other_and_versions_are_found_again(chunks: MilvusChunks) -> None:
    chunks.version("a", 0).changed(1, slices({1: QUERY, 2: unit(0, 1)}), NONE)
    chunks.version("b", 0).changed(4, slices({3: QUERY}), NONE)
    chunks.version("a", 1).changed(2, slices({4: QUERY}), ids([2]))
    assert rows(chunks.version("a", 1).search(QUERY, 9)) == [1, 2]
    assert chunks.version("a", 1).rows.tolist() == [1, 2]
    assert rows(chunks.version("b", 4).search(QUERY, 9)) == [3]
    assert rows(chunks.version("b", 3).search(QUERY, 9)) == []
    for scope in ("", 'a" or scope != "', "x"):
        with pytest.raises(VectorIndexError):
            chunks.version(scope, 1)


def test_a_scope_is_forgotten_whole_and_alone(chunks: MilvusChunks) -> None:
    for scope, first in (("a", 0), ("b", 1000)):
        chunks.version(scope, 0).changed(1, slices({first + row: unit(1, row) for row in range(300)}), NONE)
    chunks.version("a", 1).changed(2, slices({500: QUERY}), ids([7]))
    chunks.forget("a")
    assert [len(chunks.version(scope, 2**53)) for scope in "ab"] == [0, 300]
    with pytest.raises(VectorIndexError):
        chunks.forget('b" or scope != "')


def test_a_write_may_be_repeated(chunks: MilvusChunks) -> None:
    truth: Truth = {row: unit(1, row) for row in range(50)}
    for _ in range(3):
        index = chunks.version("a", 0).changed(1, slices(truth), NONE)
    assert len(index) == 50
    assert rows(index.search(QUERY, 99)) == list(range(50))


def test_removed_rows_are_deleted_two_versions_later(chunks: MilvusChunks, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = [chunks.version("a", 0).changed(1, slices({1: QUERY, 2: QUERY, 3: QUERY}), NONE)]
    for version, gone in ((2, [1]), (3, [2]), (4, [])):
        versions.append(versions[-1].changed(version, [], ids(gone)))
    assert [rows(each.search(QUERY, 9)) for each in versions] == [[2, 3], [2, 3], [3], [3]]
    monkeypatch.setattr(milvus, "MAX_HIDDEN", 0)
    versions[-1].changed(5, [], ids([3]))
    assert rows(versions[-1].search(QUERY, 9)) == []


def test_many_rows_come_in_pages(chunks: MilvusChunks, monkeypatch: pytest.MonkeyPatch) -> None:
    index = chunks.version("a", 0).changed(1, slices({row: unit(1, row) for row in range(0, 700, 7)}), NONE)
    monkeypatch.setattr(milvus, "MAX_FOUND", 30)
    assert index.rows.tolist() == list(range(0, 700, 7))
    assert len(index.select(np.arange(350))) == 50


def test_a_selection_that_is_too_wide_to_be_sent_is_looked_for_among_all(chunks: MilvusChunks, monkeypatch: pytest.MonkeyPatch) -> None:
    index = chunks.version("a", 0).changed(1, slices({row: unit(1, row) for row in range(60)}), NONE)
    monkeypatch.setattr(milvus, "MAX_SELECTED", 10)
    wide = np.arange(30, 60)
    expected = [hit for hit in index.search(QUERY, 60) if hit.row in wide]
    for k in (1, 7, 30, 50):
        assert index.search(QUERY, k, index.select(wide)) == expected[:k]
        assert list(index.stages(QUERY, k, index.select(wide))) == [expected[:k]]


def test_a_young_version_is_searched_strongly(chunks: MilvusChunks, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, levels = Clock(), list[str]()
    chunks = MilvusChunks(chunks.connection, 2, clock, staleness_s=5)
    index = chunks.version("a", 0).changed(1, slices({1: QUERY}), NONE)
    call = chunks.connection.call

    def spy(purpose: str, method: str, timeout_s: float, **arguments: object) -> object:
        levels.append(str(arguments["consistency_level"]))
        return call(purpose, method, timeout_s, **arguments)

    monkeypatch.setattr(chunks.connection, "call", spy)
    index.search(QUERY, 1)
    clock.now += 5
    index.search(QUERY, 1)
    assert levels == ["Strong", "Bounded"]


def test_a_server_that_is_not_there_is_an_error_with_advice() -> None:
    index = MilvusChunks.at("http://127.0.0.1:1", "c", 2).version("a", 1)
    with pytest.raises(VectorIndexError, match="Check that the server runs"):
        index.search(QUERY, 1)
