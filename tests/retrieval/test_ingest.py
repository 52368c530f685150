"""Files on their way into collections: what a search sees meanwhile, and what becomes of them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cache.embedders.fake import HashedWordsEmbedder
from cache.errors import EmbedderError
from retrieval import ingest
from retrieval.documents import Attachment, ChunkingStrategy, Document, SearchRequest
from retrieval.errors import (
    DocumentError,
    ParseError,
    Stopping,
    StorageError,
    UnknownFileError,
)
from retrieval.tier import RetrievalTier
from tests.retrieval.searching import contents
from tests.retrieval.tiers import LONG, Encoder, all_files, attach, attached, drain, found, make_tier, upload


def stop_after_one_batch(tier: RetrievalTier, encoder: Encoder) -> None:
    """As a process that ends."""

    def stop(texts: Sequence[str]) -> None:
        if encoder.encoded:
            raise Stopping

    encoder.before = stop
    with pytest.raises(Stopping):
        tier.ingest.step()


def test_a_file_is_found_once_it_is_read(tier: RetrievalTier, store_id: str) -> None:
    file_id = attach(tier, store_id, "Bees make honey.", "bees.txt", attributes={"kind": "insect"})
    waiting = attached(tier, store_id, file_id)
    assert (waiting.status, waiting.chunks_done, waiting.chunks_total, waiting.usage_bytes) == ("in_progress", 0, None, 0)
    assert waiting.attributes == {"kind": "insect"}
    assert (found(tier, store_id, "honey"), tier.service.get_store("a", store_id).version) == ([], 0)
    drain(tier)
    done = attached(tier, store_id, file_id)
    assert (done.status, done.chunks_done, done.chunks_total, done.cutting) == ("completed", 1, 1, ChunkingStrategy(16, 4))
    assert done.usage_bytes == 2 * len("Bees make honey.") + 4 * HashedWordsEmbedder().dimension
    (hit,) = tier.service.search("a", SearchRequest([store_id], ["honey"], 5)).hits
    assert (hit.chunk.id, hit.chunk.name, hit.chunk.attributes) == (f"{file_id}#0", "bees.txt", {"kind": "insect"})
    info = tier.service.get_store("a", store_id)
    assert (info.version, info.documents, info.counts, info.usage_bytes) == (1, 1, {"completed": 1}, done.usage_bytes)
    assert tier.attachments.attached_text("a", store_id, file_id) == "Bees make honey."


def test_a_search_sees_all_of_a_file_or_nothing_and_its_progress_rises(tier: RetrievalTier, encoder: Encoder, store_id: str) -> None:
    seen: list[tuple[int, int]] = []

    def look(texts: Sequence[str]) -> None:
        if len(texts) > 1:  # not the query itself
            file = attached(tier, store_id, file_id)
            seen.append((len(found(tier, store_id)), file.chunks_done))
            assert file.chunks_total

    file_id = attach(tier, store_id, LONG)
    encoder.before = look
    drain(tier)
    assert {hits for hits, _ in seen} == {0}
    assert [done for _, done in seen] == [i * ingest.BATCH_CHUNKS for i in range(len(seen))]
    assert len(seen) > 2
    assert tier.service.get_store("a", store_id).version == 1
    assert len(found(tier, store_id)) == 50


def test_a_file_that_is_read_anew_takes_its_own_place_at_once(tier: RetrievalTier, encoder: Encoder, store_id: str) -> None:
    file_id = attach(tier, store_id, LONG, attributes={"v": 1})
    drain(tier)
    before = tier.service.get_store("a", store_id)
    numbers = tier.service.search("a", SearchRequest([store_id], ["word7"], 1)).hits

    def look(texts: Sequence[str]) -> None:
        if len(texts) > 1:
            assert tier.service.get_store("a", store_id).version == 1
            assert tier.service.search("a", SearchRequest([store_id], ["word7"], 1)).hits == numbers

    encoder.before = look
    tier.attachments.attach_file("a", store_id, Attachment(file_id, {"v": 2}, ChunkingStrategy(20, 0)))
    assert attached(tier, store_id, file_id).attributes == {"v": 2}
    drain(tier)
    after = tier.service.get_store("a", store_id)
    assert (after.version, after.documents) == (2, 1)
    assert after.chunks < before.chunks
    assert {hit.chunk.attributes["v"] for hit in tier.service.search("a", SearchRequest([store_id], ["word7"], 50)).hits} == {2}


def test_no_text_takes_the_place_of_a_file(tier: RetrievalTier, encoder: Encoder, store_id: str) -> None:
    file_id = attach(tier, store_id, LONG)
    refused: list[str] = []

    def replace(texts: Sequence[str]) -> None:
        with pytest.raises(DocumentError) as error:
            tier.service.add_documents("a", store_id, [Document("x", "y"), Document(file_id, "the text")])
        refused.append(error.value.field)

    encoder.before = replace
    drain(tier)
    replace([])
    assert {*refused} == {"documents[1].id"}
    assert [(file.id, file.status) for file in all_files(tier, store_id)] == [(file_id, "completed")]
    assert "the text" not in found(tier, store_id)


def remains(tier: RetrievalTier) -> int:
    with tier.service._store.database.read() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM retrieval_chunks").scalar_one())


DELETIONS: dict[str, Callable[[RetrievalTier, str, str], object]] = {
    "file of the collection": lambda tier, store, file: tier.attachments.detach_file("a", store, file),
    "collection": lambda tier, store, file: tier.service.delete_store("a", store),
    "file": lambda tier, store, file: tier.attachments.delete_file("a", file),
    "batch": lambda tier, store, file: tier.attachments.cancel_batch("a", store, tier_batch(tier, store)),
}


def tier_batch(tier: RetrievalTier, store_id: str) -> str:
    with tier.service._store.database.read() as connection:
        return str(connection.exec_driver_sql("SELECT id FROM retrieval_batches").scalar_one())


@pytest.mark.parametrize("delete", DELETIONS.values(), ids=DELETIONS.keys())
@pytest.mark.parametrize("after", [0, 1, 2])
def test_deletion_while_it_is_read_leaves_nothing(
    tier: RetrievalTier, encoder: Encoder, store_id: str, delete: Callable[[RetrievalTier, str, str], object], after: int
) -> None:
    file = upload(tier, LONG.encode())
    tier.attachments.create_batch("a", store_id, [Attachment(file.id)])
    calls = 0

    def count(texts: Sequence[str]) -> None:
        nonlocal calls
        if calls == after:
            delete(tier, store_id, file.id)
        calls += 1

    encoder.before = count
    drain(tier)
    assert calls == after + 1
    assert remains(tier) == 0
    if delete is not DELETIONS["collection"]:
        assert tier.service.get_store("a", store_id).version == 0
        assert tier.service.get_store("a", store_id).chunks == 0


def test_a_file_that_waits_can_be_deleted_before_anybody_has_looked_at_it(tier: RetrievalTier, store_id: str) -> None:
    file_id = attach(tier, store_id, LONG)
    tier.attachments.detach_file("a", store_id, file_id)
    with pytest.raises(UnknownFileError):
        tier.attachments.detach_file("a", store_id, file_id)
    drain(tier)
    assert (all_files(tier, store_id), remains(tier)) == ([], 0)
    assert tier.files.get_file("a", file_id).id == file_id


def test_a_deleted_file_is_gone_from_every_collection(tier: RetrievalTier) -> None:
    stores = [tier.service.create_store("a", "").id for _ in range(2)]
    file = upload(tier, b"Bees make honey.")
    for store_id in stores:
        tier.attachments.attach_file("a", store_id, Attachment(file.id))
    drain(tier)
    tier.attachments.delete_file("a", file.id)
    assert [found(tier, store_id) for store_id in stores] == [[], []]
    with pytest.raises(UnknownFileError):
        tier.files.get_file("a", file.id)


def test_a_file_that_is_added_while_it_is_deleted_is_gone_too(tier: RetrievalTier, monkeypatch: pytest.MonkeyPatch) -> None:
    deleted, kept = (tier.service.create_store("a", "").id for _ in range(2))
    file = upload(tier, b"Bees make honey.")
    tier.attachments.attach_file("a", deleted, Attachment(file.id))
    drain(tier)
    delete, having = tier.files.delete, tier.attachments._having

    def add_first(namespace: str, file_id: str) -> None:
        tier.attachments.attach_file("a", kept, Attachment(file.id))
        drain(tier)
        assert found(tier, kept)
        delete(namespace, file_id)

    def then_delete_the_store(namespace: str, file_id: str) -> list[tuple[str, str]]:
        stores = having(namespace, file_id)
        if ("a", deleted) in stores:
            tier.service.delete_store("a", deleted)
        return stores

    monkeypatch.setattr(tier.files, "delete", add_first)
    monkeypatch.setattr(tier.attachments, "_having", then_delete_the_store)
    tier.attachments.delete_file("a", file.id)
    assert (found(tier, kept), all_files(tier, kept)) == ([], [])


@pytest.mark.parametrize(
    ("name", "content", "code", "message"),
    [
        ("a.pdf", b"no PDF at all", "invalid_file", "not what its name says"),
        ("a.txt", b"\xff\xff", "invalid_file", "neither UTF-8 nor UTF-16"),
        ("a.txt", b" \n", "unsupported_file", "no text"),
        ("a.docx", b"PK\x03\x04", "unsupported_file", "unsupported file"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(
    tier: RetrievalTier, store_id: str, name: str, content: bytes, code: str, message: str
) -> None:
    file_id = attach(tier, store_id, content, name)
    drain(tier)
    file = attached(tier, store_id, file_id)
    assert (file.status, file.error_code) == ("failed", code)
    assert message in str(file.error_message)
    info = tier.service.get_store("a", store_id)
    assert (info.version, info.counts) == (0, {"failed": 1})
    with pytest.raises(DocumentError):
        tier.attachments.attached_text("a", store_id, file_id)


def test_a_failure_leaves_what_was_there_before(tier: RetrievalTier, encoder: Encoder, store_id: str) -> None:
    file_id = attach(tier, store_id, "Bees make honey.")
    drain(tier)

    def fail(texts: Sequence[str]) -> None:
        raise RuntimeError("no encoder says so")

    encoder.before = fail
    tier.attachments.attach_file("a", store_id, Attachment(file_id, {"new": True}))
    drain(tier)
    encoder.before = lambda texts: None
    file = attached(tier, store_id, file_id)
    assert (file.status, file.error_code, file.attributes) == ("failed", "server_error", {})
    assert found(tier, store_id) == ["Bees make honey."]


def test_an_encoder_that_fails_is_asked_again_after_growing_pauses(tmp_path: Path, encoder: Encoder) -> None:
    pauses: list[float] = []
    tier = make_tier(tmp_path, encoder, pause=pauses.append)
    store_id = tier.service.create_store("a", "").id
    file_id = attach(tier, store_id, LONG)
    failures = 9

    def fail(texts: Sequence[str]) -> None:
        nonlocal failures
        if encoder.encoded and failures:
            failures -= 1
            raise EmbedderError("not now")

    encoder.before = fail
    drain(tier)
    assert attached(tier, store_id, file_id).status == "completed"
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert len(encoder.encoded) == attached(tier, store_id, file_id).chunks_done
    tier.close()


def test_an_encoder_that_never_answers_fails_the_file_at_last(tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "TRIES", 3)
    tier = make_tier(tmp_path, encoder)
    store_id = tier.service.create_store("a", "").id
    file_id = attach(tier, store_id, "text")

    def fail(texts: Sequence[str]) -> None:
        raise EmbedderError("never")

    encoder.before = fail
    drain(tier)
    assert attached(tier, store_id, file_id).error_code == "server_error"
    tier.close()


def test_what_is_stored_is_not_encoded_again(tmp_path: Path) -> None:
    """The process stops in the middle; the next one goes on there."""
    first = Encoder()
    tier = make_tier(tmp_path, first)
    store_id = tier.service.create_store("a", "").id
    file_id = attach(tier, store_id, LONG)

    def stop(texts: Sequence[str]) -> None:
        if len(first.encoded) >= 2 * ingest.BATCH_CHUNKS:
            raise Stopping

    first.before = stop
    with pytest.raises(Stopping):
        tier.ingest.step()
    assert attached(tier, store_id, file_id).chunks_done == 2 * ingest.BATCH_CHUNKS
    tier.close()
    second = Encoder()
    tier = make_tier(tmp_path, second)
    drain(tier)
    file = attached(tier, store_id, file_id)
    assert (file.status, file.chunks_done) == ("completed", len(first.encoded) + len(second.encoded))
    assert not set(first.encoded) & set(second.encoded)
    tier.close()


@pytest.mark.parametrize("late", [ParseError("reading took too long"), None])
def test_a_process_that_is_late_with_a_file_leaves_what_another_has_made_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: ParseError | None
) -> None:
    tier, slower = make_tier(tmp_path), make_tier(tmp_path)
    store_id = tier.service.create_store("a", "").id
    file_id = attach(tier, store_id, "Bees make honey.")

    def read_meanwhile(*args: Any) -> str:
        drain(tier)
        if late:
            raise late
        return "Bees make honey."

    monkeypatch.setattr(slower.ingest, "_read", read_meanwhile)
    drain(slower)
    assert attached(tier, store_id, file_id).status == "completed"
    assert found(tier, store_id, "honey") == ["Bees make honey."]
    assert len(contents(tier.service._store, "a", store_id).chunks) == 1


def test_a_text_that_is_now_cut_otherwise_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Encoder()
    tier = make_tier(tmp_path, first)
    store_id = tier.service.create_store("a", "").id
    file_id = attach(tier, store_id, LONG)

    stop_after_one_batch(tier, first)
    monkeypatch.setattr(ingest, "split", lambda text, count, tokens, overlap: ["another", "way"])
    first.before = lambda texts: None
    drain(tier)
    assert sorted(found(tier, store_id)) == ["another", "way"]
    assert attached(tier, store_id, file_id).chunks_done == 2
    tier.close()


def test_a_file_that_was_begun_is_not_finished_with_another_encoder(tmp_path: Path) -> None:
    first = Encoder()
    tier = make_tier(tmp_path, first)
    store_id = tier.service.create_store("a", "").id
    file_id = attach(tier, store_id, LONG)

    stop_after_one_batch(tier, first)
    assert attached(tier, store_id, file_id).chunks_done == ingest.BATCH_CHUNKS
    tier.close()

    class Other(Encoder):
        name = "another@1"

    second = Other()
    tier = make_tier(tmp_path, second)
    drain(tier)
    file = attached(tier, store_id, file_id)
    assert (file.status, file.error_code, second.encoded) == ("failed", "server_error", [])
    assert "another encoder" in str(file.error_message)
    assert remains(tier) == 0
    tier.close()


@pytest.mark.parametrize("error", [StorageError("no connection is free"), OSError(24, "Too many open files")], ids=["storage", "system"])
@pytest.mark.parametrize("step", ["path", "bytes"])
def test_a_file_that_cannot_be_read_now_is_read_later(
    tier: RetrievalTier, store_id: str, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception
) -> None:
    holder, name = (tier.files, "path") if step == "path" else (ingest, "read_file")
    works, failures = getattr(holder, name), 2

    def fail(*args: Any) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            raise error
        return works(*args)

    monkeypatch.setattr(holder, name, fail)
    file_id = attach(tier, store_id, "Bees make honey.")
    drain(tier)
    assert (attached(tier, store_id, file_id).status, failures) == ("completed", 0)


def test_a_file_whose_bytes_are_gone_is_not_waited_for(tmp_path: Path) -> None:
    pauses: list[float] = []
    tier = make_tier(tmp_path, pause=pauses.append)
    store_id = tier.service.create_store("a", "").id
    file_id = attach(tier, store_id, "Bees make honey.")
    tier.files.path("a", file_id).unlink()
    drain(tier)
    assert (attached(tier, store_id, file_id).error_code, pauses) == ("server_error", [])
    tier.close()
