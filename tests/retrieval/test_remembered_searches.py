"""The result cache in the service: what spares the encoder, what spares the search, and what spares neither."""

import itertools
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrieval.collection import Collection
from retrieval.config import RetrievalConfig
from retrieval.documents import Document, SearchRequest
from retrieval.errors import UnknownStoreError
from retrieval.scopes import Access, Caller, Scopes
from retrieval.service import RetrievalService
from retrieval.store import DocumentStore
from tests.retrieval.tiers import Encoder, in_memory

A, B = Access("a", {"team": "g"}), Access("b", {"team": "g"})


class Slightly(Encoder):
    """Texts that differ in their number of "!" only have nearly the same vector."""

    def embed(self, texts: Any) -> Any:
        vectors = super().embed([text.replace("!", "") for text in texts])
        self.encoded[-len(texts) :] = texts
        for vector, text in zip(vectors, texts, strict=True):
            vector[0] += 0.001 * text.count("!")
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def encoder() -> Encoder:
    return Slightly()


@pytest.fixture
def searches(url: str, encoder: Encoder) -> Iterator[RetrievalService]:
    store = DocumentStore(url, encoder.name)
    config = RetrievalConfig(chunk_tokens=16, chunk_overlap_tokens=4)
    ids = itertools.count(1)
    scopes, source = Scopes(store), in_memory(config, encoder)
    service = RetrievalService(store, encoder, config, scopes, source, lambda: 1.0, lambda: f"vs_{next(ids)}", lambda: 0.0)
    yield service
    service.close()


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One for each search of an index."""
    seen: list[int] = []
    search = Collection.search

    def counted(self: Collection, *args: Any) -> Any:
        seen.append(self.number)
        return search(self, *args)

    monkeypatch.setattr(Collection, "search", counted)
    return seen


def filled(service: RetrievalService, caller: Caller = "a", group: str | None = None) -> str:
    store_id = service.create_store(caller, "", group=group).id
    service.add_documents(caller, store_id, [Document("bees", "Bees make honey.", {"n": 1}), Document("tea", "green tea", {"n": 2})])
    return store_id


def test_the_same_search_asks_neither_encoder_nor_index(searches: RetrievalService, encoder: Encoder, walks: list[int]) -> None:
    store_id = filled(searches)
    first = searches.search("a", SearchRequest([store_id], ["who makes honey"], 2))
    encoder.encoded.clear()
    assert searches.search("a", SearchRequest([store_id, store_id], ["  who makes\nhoney"], 2)) == first
    assert (encoder.encoded, len(walks)) == ([], 1)
    assert (searches.result_counts.exact, searches.result_counts.misses) == (1, 1)


def test_nearly_the_same_query_asks_the_encoder_only(searches: RetrievalService, encoder: Encoder, walks: list[int]) -> None:
    store_id = filled(searches)
    first = searches.search("a", SearchRequest([store_id], ["who makes honey"], 2))
    for _ in range(2):
        assert searches.search("a", SearchRequest([store_id], ["who makes honey!"], 2)) == first
    assert (encoder.encoded[-2:], len(walks)) == (["who makes honey", "who makes honey!"], 1)
    assert (searches.result_counts.near, searches.result_counts.exact) == (1, 1)


def test_any_change_of_the_collection_makes_searches_anew(searches: RetrievalService) -> None:
    store_id = filled(searches)
    assert searches.search("a", SearchRequest([store_id], ["honey"], 1)).hits[0].chunk.document_id == "bees"
    searches.add_documents("a", store_id, [Document("pot", "honey")])
    assert searches.search("a", SearchRequest([store_id], ["honey"], 1)).hits[0].chunk.document_id == "pot"
    searches.delete_document("a", store_id, "pot")
    assert searches.search("a", SearchRequest([store_id], ["honey"], 1)).hits[0].chunk.document_id == "bees"
    assert searches.result_counts.outdated == 2


def test_what_else_is_asked_for_is_another_search(searches: RetrievalService, walks: list[int]) -> None:
    store_id, other = filled(searches), filled(searches)
    where = {"type": "eq", "key": "n", "value": 2}
    asked = [
        SearchRequest([store_id], ["honey"], 2),
        SearchRequest([store_id], ["honey"], 1),
        SearchRequest([store_id], ["honey"], 2, where),
        SearchRequest([store_id], ["honey"], 2, None, 0.2),
        SearchRequest([other], ["honey"], 2),
    ]
    first = [searches.search("a", each) for each in asked]
    assert len(walks) == len(asked)
    assert [searches.search("a", each) for each in asked] == first
    assert len(walks) == len(asked)
    assert [len(each.hits) for each in first] == [2, 1, 1, 1, 2]


def test_each_of_several_queries_is_remembered_by_itself(searches: RetrievalService, encoder: Encoder) -> None:
    store_id = filled(searches)
    searches.search("a", SearchRequest([store_id], ["honey"], 2))
    both = searches.search("a", SearchRequest([store_id], ["honey", "tea"], 2))
    assert encoder.encoded[-1:] == ["tea"]
    encoder.encoded.clear()
    assert searches.search("a", SearchRequest([store_id], ["tea", "honey", "tea"], 2)) == both
    assert encoder.encoded == []


def test_members_of_a_group_share_what_is_found_in_its_collections(searches: RetrievalService, walks: list[int]) -> None:
    shared = filled(searches, A, group="team")
    assert searches.search(A, SearchRequest([shared], ["honey"], 2)) == searches.search(B, SearchRequest([shared], ["honey"], 2))
    assert len(walks) == 1


def test_nobody_outside_the_group_is_given_what_was_found_for_its_members(searches: RetrievalService) -> None:
    shared = filled(searches, A, group="team")
    asked = SearchRequest([shared], ["honey"], 2)
    assert searches.search(A, asked).hits
    for caller in ("a", "b", "c", Access("a", {"other": "h"}), Access("a", {"team": "h"})):
        with pytest.raises(UnknownStoreError):
            searches.search(caller, asked)


def test_texts_that_are_gone_make_a_miss(searches: RetrievalService, walks: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    store_id = filled(searches)
    searches.search("a", SearchRequest([store_id], ["honey"], 2))
    texts = searches._searcher._texts
    of, calls = texts.of, list[int]()

    def gone_at_first(*args: Any) -> Any:
        calls.append(0)
        return {} if len(calls) == 1 else of(*args)

    monkeypatch.setattr(texts, "of", gone_at_first)
    assert len(searches.search("a", SearchRequest([store_id], ["honey"], 2)).hits) == 2
    assert len(walks) == 1  # its vector's result was still there
    monkeypatch.setattr(texts, "of", lambda *args: {})
    with pytest.raises(Exception, match="deleted faster"):
        searches.search("a", SearchRequest([store_id], ["honey"], 2))


def test_hot_texts_are_kept_within_their_bytes(searches: RetrievalService, monkeypatch: pytest.MonkeyPatch) -> None:
    store_id = filled(searches)
    store = searches._store
    reads: list[int] = []
    chunks_of = store.chunks_of

    def counted(namespace: str, store_id: str, numbers: Any) -> Any:
        reads.append(len(numbers))
        return chunks_of(namespace, store_id, numbers)

    monkeypatch.setattr(store, "chunks_of", counted)
    for query in ("honey", "tea", "other"):
        assert len(searches.search("a", SearchRequest([store_id], [query], 2)).hits) == 2
    assert reads == [2]
    assert searches._searcher._texts._known.currsize < 2000


CHANGES = st.lists(st.tuples(st.sampled_from(["put", "delete", "ask", "ask!"]), st.integers(0, 3)), max_size=20)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CHANGES)
def test_a_remembered_search_never_shows_what_has_changed(searches: RetrievalService, changes: list[tuple[str, int]]) -> None:
    store_id = searches.create_store("a", "").id
    kept: dict[str, str] = {}
    for turn, (what, number) in enumerate(changes):
        name = f"d{number}"
        if what == "put":
            kept[name] = f"honey {turn}"
            searches.add_documents("a", store_id, [Document(name, kept[name])])
        elif what == "delete":
            assert searches.delete_document("a", store_id, name) == (kept.pop(name, None) is not None)
        else:
            hits = searches.search("a", SearchRequest([store_id], [f"honey{'!' * (what == 'ask!')}"], 10)).hits
            assert {hit.chunk.document_id: hit.chunk.text for hit in hits} == kept


def test_of_a_long_query_the_encoder_gets_what_it_can_read(searches: RetrievalService, encoder: Encoder) -> None:
    store_id = searches.create_store("a", "").id
    searches.add_documents("a", store_id, [Document("bees", "honey")])
    searches.search("a", SearchRequest([store_id], ["\n" * 100_000 + "honey " * 100_000], 1))
    searches.begin_search("a", SearchRequest([store_id], ["bees " * 100_000], 1))
    assert [len(text) for text in encoder.encoded[1:]] == [16 * encoder.max_tokens] * 2
    assert encoder.encoded[1].startswith("honey")


def test_long_filters_do_not_fill_the_memory(searches: RetrievalService) -> None:
    store_id = searches.create_store("a", "").id
    searches.add_documents("a", store_id, [Document("bees", "honey", {"kind": "0" * 500})])

    def search(number: int) -> int:
        values = [f"{number * 256 + each:0500}" for each in range(256)]
        filters = {"type": "in", "key": "kind", "value": values}
        return len(searches.search("a", SearchRequest([store_id], ["honey"], 1, filters)).hits)

    assert search(0) == 1
    tracemalloc.start()
    try:
        assert [search(number) for number in range(1, 101)] == [0] * 100
        assert search(0) == 1
        assert searches.result_counts.exact == 1
        assert tracemalloc.get_traced_memory()[0] < 5_000_000
    finally:
        tracemalloc.stop()
