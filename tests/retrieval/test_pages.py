"""Lists in parts: the page behind an item, and the one before it."""

from collections.abc import Callable

import pytest

from retrieval.documents import Attachment, Document, Page
from retrieval.tier import RetrievalTier
from tests.retrieval.tiers import upload

COUNT = 6
KINDS = ["stores", "documents", "files", "attached files"]
List = Callable[[Page], list[str]]


def filled(tier: RetrievalTier, kind: str) -> List:
    """A list of `COUNT` items: the ids of a page of it."""
    service = tier.service
    store_id = service.create_store("a", "").id
    if kind == "stores":
        for _ in range(COUNT - 1):
            service.create_store("a", "")
        return lambda page: [each.id for each in service.list_stores("a", page)]
    if kind == "documents":
        service.add_documents("a", store_id, [Document(f"d{number}", "text") for number in range(COUNT)])
        return lambda page: [each.id for each in service.list_documents("a", store_id, page)]
    files = [upload(tier, b"text") for _ in range(COUNT)]
    if kind == "files":
        return lambda page: [each.id for each in tier.files.list_files("a", page)]
    tier.attachments.create_batch("a", store_id, [Attachment(file.id, {"of": file.id}) for file in files])

    def listed(page: Page) -> list[str]:
        found = tier.attachments.list_attached("a", store_id, page, "in_progress")
        assert [dict(each.attributes) for each in found] == [{"of": each.id} for each in found]
        return [each.id for each in found]

    return listed


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_page_begins_behind_an_item_or_ends_before_one(tier: RetrievalTier, kind: str, newest_first: bool) -> None:
    pages = filled(tier, kind)
    every = sorted(pages(Page()), reverse=newest_first)
    assert len(every) == COUNT
    for limit in (1, 2, COUNT, COUNT + 1):
        for place, item in enumerate(every):
            assert pages(Page(limit, after=item, newest_first=newest_first)) == every[place + 1 :][:limit]
            assert pages(Page(limit, before=item, newest_first=newest_first)) == every[max(0, place - limit) : place]
        assert pages(Page(limit, every[0], every[-1], newest_first)) == every[1:-1][:limit]
