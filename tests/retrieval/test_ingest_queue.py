"""Files that wait to be read: whose turn it is, how many may wait, batches, and what cannot be attached."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cache.entry import Vector
from retrieval.documents import Attachment, ChunkingStrategy, SearchRequest
from retrieval.errors import (
    BusyError,
    DocumentError,
    UnknownBatchError,
    UnknownFileError,
    UnknownStoreError,
)
from retrieval.store import DocumentStore
from retrieval.tier import RetrievalTier
from tests.retrieval.searching import contents
from tests.retrieval.tiers import LONG, NOW, Clock, Encoder, all_files, attach, attached, drain, make_tier, upload


def test_nobody_waits_behind_all_files_of_another(tier: RetrievalTier, encoder: Encoder) -> None:
    order: list[str] = []
    stores = {namespace: tier.service.create_store(namespace, "").id for namespace in "ab"}
    for namespace, count in (("a", 4), ("b", 2)):
        for number in range(count):
            file = upload(tier, f"{namespace}{number}".encode(), namespace=namespace)
            tier.attachments.attach_file(namespace, stores[namespace], Attachment(file.id))
    encoder.before = lambda texts: order.extend(texts)
    drain(tier)
    assert order == ["a0", "b0", "a1", "b1", "a2", "a3"]


def test_files_are_counted_by_what_becomes_of_them(tier: RetrievalTier, encoder: Encoder, store_id: str) -> None:
    attach(tier, store_id, LONG)
    attach(tier, store_id, b"\xff\xff")
    deleted = attach(tier, store_id, "Rain falls.")

    def delete(texts: Sequence[str]) -> None:
        if texts == ["Rain falls."]:
            tier.attachments.detach_file("a", store_id, deleted)

    encoder.before = delete
    assert tier.ingest.waiting() == 3
    drain(tier)
    counts = tier.ingest.counts
    assert (counts.completed, counts.failed, counts.superseded, tier.ingest.waiting()) == (1, 1, 1, 0)
    assert counts.chunks == tier.service.get_store("a", store_id).chunks > 100
    assert counts.seconds > 0


def test_only_so_many_files_may_wait(tmp_path: Path) -> None:
    tier = make_tier(tmp_path, files={"max_waiting": 2})
    store_id = tier.service.create_store("a", "").id
    ids = [upload(tier, b"x").id for _ in range(3)]
    with pytest.raises(BusyError):
        tier.attachments.create_batch("a", store_id, [Attachment(each) for each in ids])
    assert all_files(tier, store_id) == []
    with pytest.raises(BusyError):
        tier.create_store("a", "", attachments=[Attachment(each) for each in ids])
    assert [info.id for info in tier.service.list_stores("a")] == [store_id]
    tier.attachments.create_batch("a", store_id, [Attachment(each) for each in ids[:2]])
    tier.close()


def test_nobody_takes_all_places_of_those_that_wait(tmp_path: Path) -> None:
    tier = make_tier(tmp_path, files={"max_waiting": 8})
    first, second = (tier.service.create_store(namespace, "").id for namespace in ("a", "b"))
    for _ in range(4):
        attach(tier, first, b"x")
    with pytest.raises(BusyError):
        attach(tier, first, b"x")
    files = [Attachment(upload(tier, b"y", namespace="b").id) for _ in range(3)]
    tier.attachments.create_batch("b", second, files[:2])
    with pytest.raises(BusyError):
        tier.attachments.attach_file("b", second, files[2])
    drain(tier)
    tier.attachments.attach_file("b", second, files[2])
    tier.close()


def test_a_batch_counts_its_files(tier: RetrievalTier, store_id: str) -> None:
    good, bad = upload(tier, b"text"), upload(tier, b"\xff\xff")
    batch = tier.attachments.create_batch("a", store_id, [Attachment(good.id), Attachment(bad.id)])
    assert batch.counts == {"in_progress": 2}
    drain(tier)
    assert tier.attachments.get_batch("a", store_id, batch.id).counts == {"completed": 1, "failed": 1}
    with pytest.raises(UnknownBatchError):
        tier.attachments.get_batch("a", store_id, "vsfb_none")


def test_cancelled_files_stay_cancelled(tier: RetrievalTier, store_id: str) -> None:
    batch = tier.attachments.create_batch("a", store_id, [Attachment(upload(tier, b"text").id)])
    assert tier.attachments.cancel_batch("a", store_id, batch.id).counts == {"cancelled": 1}
    drain(tier)
    assert [file.status for file in all_files(tier, store_id)] == ["cancelled"]
    assert tier.attachments.get_batch("a", store_id, batch.id).cancelled


def test_attributes_change_for_a_search_at_once(tier: RetrievalTier, encoder: Encoder, store_id: str) -> None:
    file_id = attach(tier, store_id, "Bees make honey.", attributes={"v": 1})
    tier.attachments.update_attached("a", store_id, file_id, {"v": 2})
    drain(tier)
    assert tier.service.search("a", SearchRequest([store_id], ["honey"], 1)).hits[0].chunk.attributes == {"v": 2}
    assert tier.attachments.update_attached("a", store_id, file_id, {"v": 3}).attributes == {"v": 3}
    result = tier.service.search("a", SearchRequest([store_id], ["honey"], 1))
    assert (result.hits[0].chunk.attributes, result.versions) == ({"v": 3}, {store_id: 3})
    with pytest.raises(DocumentError):
        tier.attachments.update_attached("a", store_id, file_id, {"v": "x" * 1000})
    with pytest.raises(UnknownFileError):
        tier.attachments.update_attached("a", store_id, "file-none", {})


@pytest.mark.parametrize(
    ("cutting", "field"),
    [
        (ChunkingStrategy(201, 0), "max_chunk_size_tokens"),
        (ChunkingStrategy(15, 0), "max_chunk_size_tokens"),
        (ChunkingStrategy(100, 51), "chunk_overlap_tokens"),
    ],
)
def test_chunks_that_cannot_be_are_refused(tier: RetrievalTier, store_id: str, cutting: ChunkingStrategy, field: str) -> None:
    file = upload(tier, b"x")
    with pytest.raises(DocumentError) as refused:
        tier.attachments.attach_file("a", store_id, Attachment(file.id, cutting=cutting))
    assert refused.value.field == f"chunking_strategy.static.{field}"


def test_what_cannot_be_attached(tier: RetrievalTier, store_id: str) -> None:
    file, others = upload(tier, b"x"), upload(tier, b"x", namespace="b")
    for unknown in ("file-none", others.id):
        with pytest.raises(UnknownFileError):
            tier.attachments.attach_file("a", store_id, Attachment(unknown))
    with pytest.raises(UnknownStoreError):
        tier.attachments.attach_file("a", "vs_none", Attachment(file.id))
    for several in ([], [Attachment(file.id)] * 2):
        with pytest.raises(DocumentError):
            tier.attachments.create_batch("a", store_id, several)


def test_a_collection_of_another_encoder_takes_no_files(tmp_path: Path) -> None:
    tier = make_tier(tmp_path)
    store_id = tier.service.create_store("a", "").id
    waiting = attach(tier, store_id, "text")
    tier.close()

    class Other(Encoder):
        name = "another@1"

    tier = make_tier(tmp_path, Other())
    with pytest.raises(DocumentError, match="another encoder"):
        attach(tier, store_id, "text")
    drain(tier)
    assert attached(tier, store_id, waiting).error_code == "server_error"
    tier.close()


def test_threads_do_what_waits_and_stop(tmp_path: Path) -> None:
    tier = make_tier(tmp_path, files={"ingest_threads": 3})
    store_id = tier.service.create_store("a", "").id
    ids = [upload(tier, f"{LONG} {number}".encode()).id for number in range(8)]
    tier.start()
    for file_id in ids:
        tier.call("attach_file", "a", store_id, Attachment(file_id))
    for _ in range(2000):
        if tier.service.get_store("a", store_id).counts == {"completed": 8}:
            break
        tier.ingest._stopping.wait(0.01)
    info = tier.service.get_store("a", store_id)
    assert (info.counts, info.version) == ({"completed": 8}, 8)
    tier.close()


def test_a_version_is_read_in_slices_and_followed_by_its_changes(tier: RetrievalTier, store_id: str) -> None:
    """A reader with an index of its own, however the collection changes meanwhile, comes to the newest version."""
    store: DocumentStore = tier.service._store
    ids = [attach(tier, store_id, f"{LONG} {number}") for number in range(3)]
    drain(tier)
    inventory = store.inventory("a", store_id)
    assert inventory.numbers.tolist() == sorted(inventory.numbers.tolist())
    assert len(inventory.numbers) > 150
    held: dict[int, tuple[int, Vector]] = {}
    for turn, first in enumerate(range(0, len(inventory.numbers), 50)):
        part = store.vectors_of("a", store_id, inventory.numbers[first : first + 50].tolist())
        assert part.revisions.tolist() == inventory.revisions[first : first + 50].tolist()
        held |= {int(n): (int(r), v) for n, r, v in zip(part.numbers, part.revisions, part.vectors, strict=True)}
        if turn == 1:  # meanwhile
            tier.attachments.detach_file("a", store_id, ids[0])
            tier.attachments.attach_file("a", store_id, Attachment(ids[1], {"new": True}))
            drain(tier)
    changes = store.changes("a", store_id, inventory.state.version)
    assert changes.version == store.version("a", store_id)
    assert changes.gone is not None
    held = {number: each for number, each in held.items() if each[0] not in changes.gone}
    for document in changes.documents:
        for first in range(0, document.chunks, 50):
            part = store.slice_of("a", store_id, document.revision, first, 50)
            held |= {int(n): (int(r), v) for n, r, v in zip(part.numbers, part.revisions, part.vectors, strict=True)}
    snapshot = contents(store, "a", store_id)
    texts = store.chunks_of("a", store_id, list(held))
    assert sorted(chunk.id for chunk in texts.values()) == sorted(chunk.id for chunk in snapshot.chunks)
    by_id = {chunk.id: held[number][1] for number, chunk in texts.items()}
    for chunk, vector in zip(snapshot.chunks, snapshot.vectors, strict=True):
        np.testing.assert_array_equal(by_id[chunk.id], vector)
    assert {document.id: document.attributes for document in store.inventory("a", store_id).documents} == {
        ids[1]: {"new": True},
        ids[2]: {},
    }


def test_what_has_ended_is_kept_for_readers_for_a_while_then_forgotten(tmp_path: Path) -> None:
    clock = Clock()
    tier = make_tier(tmp_path, clock=clock)
    store_id = tier.service.create_store("a", "").id
    store: DocumentStore = tier.service._store
    file_id = attach(tier, store_id, "Bees make honey.", "bees.txt")
    drain(tier)
    number = int(store.inventory("a", store_id).numbers[0])
    version = store.version("a", store_id)
    tier.attachments.detach_file("a", store_id, file_id)
    drain(tier)
    assert store.chunks_of("a", store_id, [number])[number].text == "Bees make honey."
    assert len(store.inventory("a", store_id).numbers) == 0
    clock.now = NOW + 120
    drain(tier)
    assert store.chunks_of("a", store_id, [number]) == {}
    assert store.changes("a", store_id, version).gone == [1]
    clock.now = NOW + 7200
    drain(tier)
    assert store.changes("a", store_id, version).gone is None
    assert store.changes("a", store_id, version + 1).gone == []
    tier.close()
