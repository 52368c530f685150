"""A filtered search is exact: what it finds is what remains of the whole ranking."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrieval.documents import Document, SearchRequest
from retrieval.service import RetrievalService
from tests.retrieval.searching import contents


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(0, 6), st.integers(1, 10))
def test_a_filtered_search_equals_a_filtered_ranking(service: RetrievalService, kinds: list[int], wanted: int, top_k: int) -> None:
    store_id = service.create_store("a", "").id
    service.add_documents("a", store_id, [Document(f"doc_{i}", f"word{i} word{i % 7}", {"kind": kind}) for i, kind in enumerate(kinds)])
    snapshot = contents(service._store, "a", store_id)
    scores = snapshot.vectors @ service._embedder.embed(["word3 word5"])[0]
    ranked = sorted(zip(scores.tolist(), snapshot.chunks, strict=True), key=lambda pair: -pair[0])
    expected = [score for score, chunk in ranked if chunk.attributes["kind"] == wanted][:top_k]
    where = {"type": "eq", "key": "kind", "value": wanted}
    hits = service.search("a", SearchRequest([store_id], ["word3 word5"], top_k, where)).hits
    assert {hit.chunk.attributes["kind"] for hit in hits} <= {wanted}
    assert [hit.score for hit in hits] == pytest.approx(expected, abs=2e-6)  # they are rounded
    service.delete_store("a", store_id)


def test_only_close_chunks_and_several_queries(service: RetrievalService) -> None:
    store_id = service.create_store("a", "").id
    service.add_documents("a", store_id, [Document("x", "honey wax"), Document("y", "green tea")])
    assert [hit.chunk.document_id for hit in service.search("a", SearchRequest([store_id], ["honey"], 5, None, 0.5)).hits] == ["x"]
    found = service.search("a", SearchRequest([store_id], ["green tea", "honey"], 5)).hits
    assert [hit.chunk.document_id for hit in found] == ["y", "x"]
    assert found[0].score > 0.99
