"""GPUs, as far as they can be had without one: FAISS is told that there are some."""

from typing import Any

import faiss
import pytest

from retrieval.indexes.base import Found
from retrieval.indexes.building import build
from tests.retrieval.indexes.worlds import Truth, slices, units

TRUTH: Truth = dict(enumerate(units(1, 400)))


def searched() -> list[list[Found]]:
    index = build(slices(TRUTH), version=1, dimension=8, embedder="e", kind="ivf")
    return [index.search(query, 10) for query in units(2, 5)]


def test_k_means_takes_them_and_searches_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, given = searched(), list[Any]()

    def to_gpus(index: Any) -> Any:
        given.append(index)
        return index

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 2)
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", to_gpus, raising=False)
    assert searched() == expected
    assert len(given) == 1
    assert given[0].ntotal > 0, "it held the centroids"


def test_if_they_cannot_be_used_the_cpu_is(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    expected = searched()

    def to_gpus(_: object) -> object:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", to_gpus, raising=False)
    assert searched() == expected
    assert "out of memory" in caplog.text
