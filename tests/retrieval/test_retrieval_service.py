import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache.embedders.fake import HashedWordsEmbedder
from retrieval.config import RetrievalConfig
from retrieval.documents import Document, SearchRequest, new_document, new_id
from retrieval.errors import ChunkSizeError, DocumentError, QueryError, StorageError, UnknownStoreError
from retrieval.indexes.config import IndexConfig
from retrieval.search import CollectionCache
from retrieval.service import BATCH_CHUNKS, RetrievalService
from retrieval.sources import FaissSource
from retrieval.store import DocumentStore
from tests.retrieval.searching import contents
from tests.retrieval.tiers import service_of

EMBEDDER = HashedWordsEmbedder()
BEES = Document("doc_bees", "Bees make honey in a hive.", {"kind": "insect"})
ANTS = Document("doc_ants", "Ants carry leaves into a nest.")
LONG = Document("doc_long", " ".join(f"word{i}" for i in range(40)))


def test_ingest_search_delete(service: RetrievalService) -> None:
    store = service.create_store("a", "Animals", {"owner": "me"})
    assert (store.id, store.version, store.created_at) == (f"vs_{1:024x}", 0, 1_700_000_000.0)
    assert service.add_documents("a", store.id, [BEES, ANTS]) == ["doc_bees", "doc_ants"]
    found = service.search("a", SearchRequest([store.id], ["Who makes honey?"], 1))
    assert found.versions == {store.id: 1}
    assert [(hit.chunk.id, hit.chunk.attributes) for hit in found.hits] == [("doc_bees#0", {"kind": "insect"})]
    assert 0 < found.hits[0].score < 1
    assert service.delete_document("a", store.id, "doc_bees")
    after = service.search("a", SearchRequest([store.id], ["Who makes honey?"], 5))
    assert [hit.chunk.document_id for hit in after.hits] == ["doc_ants"]
    assert after.versions == {store.id: 2}
    assert (service.get_store("a", store.id).documents, service.get_store("a", store.id).chunks) == (1, 1)


def test_long_document_is_found_by_each_of_its_parts(service: RetrievalService) -> None:
    store = service.create_store("a", "")
    service.add_documents("a", store.id, [LONG])
    assert service.list_documents("a", store.id)[0].chunks > 2
    for word in ("word0", "word20", "word39"):
        assert word in service.search("a", SearchRequest([store.id], [word], 1)).hits[0].chunk.text.split()


def test_many_documents_are_encoded_in_batches_while_they_are_wanted(service: RetrievalService) -> None:
    store = service.create_store("a", "").id
    many = [Document(f"d{number}", f"word{number}") for number in range(3 * BATCH_CHUNKS)]
    answers = iter([True] * (len(many) + 2))
    with pytest.raises(StorageError, match="not added"):
        service.add_documents("a", store, many, lambda: next(answers, False))
    assert (list(answers), service.get_store("a", store).version) == ([], 0)
    service.add_documents("a", store, many)
    for document in many:
        (hit,) = service.search("a", SearchRequest([store], [document.text], 1)).hits
        assert (hit.chunk.document_id, round(hit.score, 5)) == (document.id, 1)


def test_several_collections_merge_by_score_and_a_shared_chunk_counts_once(service: RetrievalService) -> None:
    first, second = (service.create_store("a", "").id for _ in range(2))
    service.add_documents("a", first, [BEES, Document("doc_z", "honey"), Document("doc_c", "same id here")])
    service.add_documents("a", second, [BEES, ANTS, Document("doc_b", "honey"), Document("doc_c", "same id there")])
    found = service.search("a", SearchRequest([second, first, first], ["honey"], 6))
    ids = [hit.chunk.document_id for hit in found.hits]
    assert ids[:3] == ["doc_b", "doc_z", "doc_bees"]
    assert ids.count("doc_bees") == 1
    assert ids.count("doc_c") == 2
    assert [hit.score for hit in found.hits] == sorted((hit.score for hit in found.hits), reverse=True)
    assert found.versions == {first: 1, second: 1}


def test_of_documents_with_one_id_the_last_counts(service: RetrievalService) -> None:
    store = service.create_store("a", "").id
    assert service.add_documents("a", store, [Document("x", "old"), ANTS, Document("x", "new")]) == ["x", ANTS.id, "x"]
    assert service.get_document("a", store, "x") == Document("x", "new")
    same = new_document("the same text")
    assert service.add_documents("a", store, [same, same]) == [same.id, same.id]
    assert service.get_store("a", store).documents == 3


def test_empty_collection_and_empty_call(service: RetrievalService) -> None:
    store = service.create_store("a", "").id
    assert service.add_documents("a", store, []) == []
    found = service.search("a", SearchRequest([store], ["anything"], 3))
    assert (found.hits, found.versions) == ([], {store: 0})
    assert service.search("a", SearchRequest([], ["anything"], 3)).hits == []


@pytest.mark.parametrize("document", [Document("x", " "), Document("x", "w" * 10_001), Document("no id", "text")])
def test_one_bad_document_refuses_the_call(service: RetrievalService, document: Document) -> None:
    store = service.create_store("a", "").id
    with pytest.raises(DocumentError):
        service.add_documents("a", store, [BEES, document])
    assert service.get_store("a", store).version == 0


@pytest.mark.parametrize("name", ["x" * 256, "line\nfeed", "\ud800"])
def test_bad_name_is_refused(service: RetrievalService, name: str) -> None:
    with pytest.raises(DocumentError):
        service.create_store("a", name)


@pytest.mark.parametrize(("query", "top_k"), [("q", 0), ("q", -1), ("q", 11), (" ", 1)])
def test_bad_query_is_refused(service: RetrievalService, query: str, top_k: int) -> None:
    store = service.create_store("a", "").id
    with pytest.raises(QueryError):
        service.search("a", SearchRequest([store], [query], top_k))


CALLS: dict[str, Callable[[RetrievalService, str, str], object]] = {
    "get_store": lambda service, namespace, store: service.get_store(namespace, store),
    "delete_store": lambda service, namespace, store: service.delete_store(namespace, store),
    "add_documents": lambda service, namespace, store: service.add_documents(namespace, store, [BEES]),
    "delete_document": lambda service, namespace, store: service.delete_document(namespace, store, BEES.id),
    "list_documents": lambda service, namespace, store: service.list_documents(namespace, store),
    "get_document": lambda service, namespace, store: service.get_document(namespace, store, BEES.id),
    "search": lambda service, namespace, store: service.search(namespace, SearchRequest([store], ["honey"], 1)),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_anothers_collection_is_like_none(service: RetrievalService, call: Callable[[RetrievalService, str, str], object]) -> None:
    store = service.create_store("a", "").id
    service.add_documents("a", store, [BEES])
    service.search("a", SearchRequest([store], ["honey"], 1))
    refusals = []
    for store_id in (store, "vs_none"):
        with pytest.raises(UnknownStoreError) as refused:
            call(service, "b", store_id)
        refusals.append(str(refused.value))
    assert refusals[0] == refusals[1]
    assert service.search("a", SearchRequest([store], ["honey"], 1)).hits


ACTIONS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["create", "add", "replace", "remove", "drop"]), st.integers(0, 2)), max_size=12
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ACTIONS)
def test_namespaces_never_mix(store: DocumentStore, actions: list[tuple[str, str, int]]) -> None:
    """Whatever is done, with equal collection and document ids in every namespace, each one finds exactly what it keeps."""
    service = service_of(store, EMBEDDER, RetrievalConfig(), lambda: "vs_same")
    kept: dict[str, dict[str, str]] = {}
    for namespace, action, number in actions:
        apply(service, kept, namespace, action, f"doc_{number}")
    for namespace in "abc":
        if namespace not in kept:
            with pytest.raises(UnknownStoreError):
                service.search(namespace, SearchRequest(["vs_same"], ["secret"], 10))
            continue
        hits = service.search(namespace, SearchRequest(["vs_same"], ["secret"], 10)).hits
        assert {hit.chunk.document_id: hit.chunk.text for hit in hits} == kept[namespace]
        assert {info.id for info in service.list_documents(namespace, "vs_same")} == kept[namespace].keys()
        service.delete_store(namespace, "vs_same")


def apply(service: RetrievalService, kept: dict[str, dict[str, str]], namespace: str, action: str, document_id: str) -> None:
    if action == "create" and namespace not in kept:
        service.create_store(namespace, namespace)
        kept[namespace] = {}
    elif namespace not in kept:
        return
    elif action in ("add", "replace"):
        kept[namespace][document_id] = f"secret {action} of {namespace}"
        service.add_documents(namespace, "vs_same", [Document(document_id, kept[namespace][document_id])])
    elif action == "remove":
        assert service.delete_document(namespace, "vs_same", document_id) == (kept[namespace].pop(document_id, None) is not None)
    elif action == "drop":
        service.delete_store(namespace, "vs_same")
        del kept[namespace]


def test_search_during_ingest_sees_one_version(service: RetrievalService) -> None:
    """Every generation replaces all four documents at once; a search that saw two generations would have read a mixture."""
    store = service.create_store("a", "").id
    ingest(service, store, 0)
    done = threading.Event()

    def reader() -> int:
        seen = 0
        while not done.is_set():
            found = service.search("a", SearchRequest([store], ["generation"], 10))
            texts = {hit.chunk.text for hit in found.hits}
            assert len(found.hits) == 4
            assert texts == {f"generation {found.versions[store] - 1}"}
            assert found.versions[store] >= seen
            seen = found.versions[store]
        return seen

    with ThreadPoolExecutor(3) as threads:
        readers = [threads.submit(reader) for _ in range(3)]
        try:
            for generation in range(1, 30):
                ingest(service, store, generation)
        finally:
            done.set()
        assert max(future.result() for future in readers) > 1


def ingest(service: RetrievalService, store: str, generation: int) -> None:
    service.add_documents("a", store, [Document(f"doc_{i}", f"generation {generation}") for i in range(4)])


def test_concurrent_writers_lose_nothing(service: RetrievalService) -> None:
    store = service.create_store("a", "").id
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda i: service.add_documents("a", store, [Document(f"doc_{i}", "text")]), range(20)))
    info = service.get_store("a", store)
    assert (info.documents, info.version) == (20, 20)


def test_loaded_collections_are_bounded(service: RetrievalService, store: DocumentStore) -> None:
    search = CollectionCache(store, FaissSource(IndexConfig(), EMBEDDER.dimension, EMBEDDER.name), max_loaded=2)
    ids = [service.create_store("a", "").id for _ in range(3)]
    for store_id in ids:
        service.add_documents("a", store_id, [BEES])
    query = EMBEDDER.embed(["honey"])[0]
    for store_id in [*ids, *ids]:
        assert search.open("a", store_id).search(query, 1)
        assert len(search) <= 2
    service.delete_store("a", ids[2])
    with pytest.raises(UnknownStoreError):
        search.open("a", ids[2])
    assert len(search) == 1


def test_search_equals_brute_force(service: RetrievalService, store: DocumentStore) -> None:
    store_id = service.create_store("a", "").id
    service.add_documents("a", store_id, [Document(f"doc_{i}", f"word{i} word{i % 7} word{i % 3}") for i in range(60)])
    snapshot = contents(store, "a", store_id)
    scores = snapshot.vectors @ EMBEDDER.embed(["word2 word5"])[0]
    expected = sorted(zip(scores.tolist(), (chunk.id for chunk in snapshot.chunks), strict=True), key=lambda pair: (-pair[0], pair[1]))[:5]
    found = service.search("a", SearchRequest([store_id], ["word2 word5"], 5)).hits
    assert [hit.chunk.id for hit in found] == [chunk for _, chunk in expected]
    np.testing.assert_allclose([hit.score for hit in found], [score for score, _ in expected], atol=1e-6)


def test_ids_have_openai_s_form_and_are_in_the_order_of_their_time() -> None:
    ids = [new_id("vs_", now) for now in (1.7e9, 1.7e9 + 0.002, 1.8e9)]
    assert ids == sorted(ids)
    assert new_id("vs_", 1.7e9) != ids[0]
    assert len(ids[0]) == len("vs_") + 24


def test_chunks_that_the_encoder_would_cut_are_refused(store: DocumentStore) -> None:
    class ShortSighted(HashedWordsEmbedder):
        max_tokens = 100

    with pytest.raises(ChunkSizeError, match=r"chunk_tokens is 200; allowed: at most 100"):
        service_of(store, ShortSighted(), RetrievalConfig(chunk_tokens=200))
