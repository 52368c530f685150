"""GET, POST /v1/files; GET, DELETE /v1/files/{file}; GET /v1/files/{file}/content."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from openai.types import FileDeleted, FileObject

from tests.conformance.shapes import checked, error_of

TEXT = b"Green tea is brewed at about 80 degrees.\n"


def upload(http: httpx.Client, name: str = "tea.txt", content: bytes = TEXT, purpose: str = "assistants") -> FileObject:
    response = http.post("/v1/files", data={"purpose": purpose}, files={"file": (name, content)})
    assert response.status_code == 200, response.text
    return checked(response.json(), FileObject)


@pytest.mark.parametrize("name", ["tea.txt", "日本.md", "a b.html", "data.json"])
def test_upload(http: httpx.Client, name: str) -> None:
    file = upload(http, name)
    assert file.id.startswith("file-")
    assert (file.filename, file.bytes, file.purpose) == (name, len(TEXT), "assistants")


@pytest.mark.parametrize("purpose", ["assistants", "user_data"])
def test_purposes(http: httpx.Client, purpose: str) -> None:
    assert upload(http, purpose=purpose).purpose == purpose
    listed = http.get("/v1/files", params={"purpose": purpose}).raise_for_status().json()["data"]
    assert [each["purpose"] for each in listed] == [purpose]


def test_retrieve_says_what_the_upload_did(http: httpx.Client) -> None:
    file = upload(http)
    assert checked(http.get(f"/v1/files/{file.id}").raise_for_status().json(), FileObject) == file


def test_content_is_what_was_uploaded(http: httpx.Client) -> None:
    file = upload(http, content=bytes(range(256)) * 5000)
    assert http.get(f"/v1/files/{file.id}/content").raise_for_status().content == bytes(range(256)) * 5000


def test_delete(http: httpx.Client) -> None:
    file = upload(http)
    assert checked(http.delete(f"/v1/files/{file.id}").raise_for_status().json(), FileDeleted).deleted
    error_of(http.get(f"/v1/files/{file.id}"), 404)
    error_of(http.delete(f"/v1/files/{file.id}"), 404)


@pytest.mark.parametrize("order", ["desc", "asc"])
def test_pages(http: httpx.Client, order: str) -> None:
    ids = [upload(http, f"{number}.txt").id for number in range(5)]
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 2, "order": order}
    for _ in range(3):
        page = http.get("/v1/files", params=query).raise_for_status().json()
        assert page["object"] == "list"
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
        for each in page["data"]:
            checked(each, FileObject)
        seen += [each["id"] for each in page["data"]]
        assert page["has_more"] == (len(seen) < 5)
        query["after"] = page["last_id"]
    assert sorted(seen) == sorted(ids)
    times = [http.get(f"/v1/files/{each}").json()["created_at"] for each in seen]
    assert times == sorted(times, reverse=order == "desc")


def test_no_files_are_an_empty_list(http: httpx.Client) -> None:
    page = http.get("/v1/files").raise_for_status().json()
    assert (page["object"], page["data"], page["has_more"]) == ("list", [], False)


@pytest.mark.parametrize("path", ["/v1/files/file-none", "/v1/files/file-none/content"])
def test_an_unknown_file(http: httpx.Client, path: str) -> None:
    assert error_of(http.get(path), 404)["type"] == "invalid_request_error"


@pytest.mark.parametrize("query", ["limit=0", "limit=10001", "limit=x", "order=up", "purpose=joy"])
def test_a_list_that_cannot_be(http: httpx.Client, query: str) -> None:
    error_of(http.get(f"/v1/files?{query}"), 400, query.split("=")[0])


Send = Callable[[httpx.Client], httpx.Response]
REFUSED: list[tuple[str, Send, str | None]] = [
    ("no purpose", lambda http: http.post("/v1/files", files={"file": ("a.txt", TEXT)}), "purpose"),
    ("an unknown purpose", lambda http: http.post("/v1/files", data={"purpose": "joy"}, files={"file": ("a.txt", TEXT)}), "purpose"),
    ("no file", lambda http: http.post("/v1/files", files={"purpose": (None, "assistants")}), "file"),
    ("JSON", lambda http: http.post("/v1/files", json={"purpose": "assistants"}), None),
    (
        "two files",
        lambda http: http.post("/v1/files", data={"purpose": "assistants"}, files=[("file", ("a", b"a")), ("file", ("b", b"b"))]),
        "file",
    ),
]


@pytest.mark.parametrize(("send", "param"), [each[1:] for each in REFUSED], ids=[name for name, *_ in REFUSED])
def test_refused(http: httpx.Client, send: Send, param: str | None) -> None:
    error_of(send(http), 400, param)
