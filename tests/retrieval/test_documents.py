import pytest
from pydantic import ValidationError

from retrieval.config import RetrievalConfig
from retrieval.documents import Attributes, Document, check_document, check_name, content_id, new_document
from retrieval.errors import DocumentError


def test_equal_texts_share_an_id_unless_the_caller_gives_one() -> None:
    assert new_document("text").id == new_document("text", {"a": 1.0}).id == content_id("text")
    assert new_document("text").id != new_document("other").id
    assert new_document("text", document_id="mine").id == "mine"
    assert len(new_document("text").id) == len("doc_") + 24


@pytest.mark.parametrize(
    "document",
    [
        new_document(""),
        new_document(" \n"),
        new_document("123456789"),
        new_document("密密密"),
        new_document("\ud800"),
        *(Document(name, "text") for name in ("", "a b", "a#1", "x" * 65, "a]\n[b", "é", "a\n", "file-1")),
    ],
)
def test_document_that_cannot_be_kept_is_refused_without_its_text(document: Document) -> None:
    with pytest.raises(DocumentError) as refused:
        check_document(document, max_bytes=8, field="d")
    assert refused.value.field in ("d.text", "d.id")
    assert document.text in ("", "text") or document.text not in str(refused.value)


@pytest.mark.parametrize(
    "attributes",
    [
        {str(i): 1.0 for i in range(17)},
        {"k" * 65: 1.0},
        {"k": "v" * 513},
        {"k": float("nan")},
        {"k": float("-inf")},
        {"k": 10**400},
        {"k": "\udfff"},
        {"\udfff": "v"},
    ],
)
def test_attributes_out_of_bounds_are_refused(attributes: Attributes) -> None:
    with pytest.raises(DocumentError):
        check_document(new_document("text", attributes), max_bytes=8, field="d")


def test_document_within_bounds_is_taken() -> None:
    check_document(Document("A.b:c-d_1", "12345678", {"text": "v" * 512, "number": -1.5, "flag": True, "count": 3}), max_bytes=8, field="d")


def test_overlap_beyond_half_a_chunk_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"chunk_overlap_tokens is 20; allowed: at most half of chunk_tokens, which is 32"):
        RetrievalConfig(chunk_tokens=32, chunk_overlap_tokens=20)


@pytest.mark.parametrize("name", ["", "資料\u30002026.txt", "1.00.00\u202fPM.png", "a\u00a0b", "👩\u200d🚀.txt", "\ue000", "x" * 255])
def test_names_as_systems_and_people_write_them(name: str) -> None:
    check_name(name, "name")


@pytest.mark.parametrize("name", ["a\n", "a\tb", "\x00", "\x7f", "\x85", "a\u2028b", "a\u2029b", "\ud800", "x" * 256])
def test_names_that_would_break_a_line_are_refused(name: str) -> None:
    with pytest.raises(DocumentError) as refused:
        check_name(name, "name")
    assert refused.value.field == "name"
