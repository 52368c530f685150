"""SQLite guesses: with a wrong index, a look-up reads all documents or chunks there are."""

from typing import Any

import pytest
from sqlalchemy import event

from retrieval.documents import Attachment, Document, Page, SearchRequest
from retrieval.tier import RetrievalTier
from tests.retrieval.tiers import attach, drain, upload


@pytest.fixture
def plans(tier: RetrievalTier) -> list[str]:
    """Of every statement from now on that reads or changes something."""
    seen: list[str] = []
    is_explaining = False

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool) -> None:
        nonlocal is_explaining
        if is_explaining or executemany or not statement.startswith(("SELECT", "UPDATE", "DELETE")):
            return
        is_explaining = True
        found = connection.connection.driver_connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
        is_explaining = False
        seen.append(f"{statement}\n" + "\n".join(row[3] for row in found))

    event.listen(tier.service._store.database._engine, "before_cursor_execute", explain)
    return seen


def test_nothing_reads_a_whole_table(tier: RetrievalTier, plans: list[str]) -> None:
    service, attachments, store = tier.service, tier.attachments, tier.service._store
    store_id = service.create_store("a", "").id
    service.add_documents("a", store_id, [Document("x", "text"), Document("y", "text")])
    service.add_documents("a", store_id, [Document("x", "text anew")])
    file_id = attach(tier, store_id, "word " * 100)
    batch = attachments.create_batch("a", store_id, [Attachment(upload(tier, b"text").id)])
    attachments.cancel_batch("a", store_id, batch.id)
    drain(tier)
    attachments.update_attached("a", store_id, file_id, {"a": 1})
    attachments.list_attached("a", store_id, Page(), "completed", batch.id)
    attachments.attached_text("a", store_id, file_id)
    service.search("a", SearchRequest([store_id], ["word"], 1))
    version = store.version("a", store_id)
    inventory = store.inventory("a", store_id)
    numbers, revisions = inventory.numbers.tolist(), inventory.revisions.tolist()
    store.vectors_of("a", store_id, numbers)
    store.revisions_of("a", store_id, revisions)
    store.slice_of("a", store_id, revisions[0], 0, 10)
    store.chunks_of("a", store_id, numbers)
    store.changes("a", store_id, version)
    service.list_stores("a")
    service.list_documents("a", store_id)
    tier.files.list_files("a", Page(), "assistants")
    tier.files.list_files("a", Page(before="x"), "assistants")
    attachments.list_attached("a", store_id, Page(before="x"), "completed")
    service.delete_document("a", store_id, "y")
    attachments.delete_file("a", file_id)
    service.delete_store("a", store_id)
    store.sweep(1e10)
    assert len(plans) > 50
    scans = [plan for plan in plans if "\nSCAN retrieval" in plan]
    assert scans == []
