"""Uploads and files in the core: who owns what, and what is left of it."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from retrieval.config import FilesConfig
from retrieval.documents import Page
from retrieval.errors import BusyError, DocumentError, OversizeError, StorageError, UnknownFileError, UnknownUploadError
from retrieval.files import FileStore
from retrieval.migrate import open_database
from tests.retrieval.tiers import NOW, Clock

CONFIG = FilesConfig(max_bytes=100, max_tenant_bytes=250, max_uploads=3, upload_timeout_s=60)


def open_files(directory: Path, clock: Clock | None = None) -> FileStore:
    return FileStore(open_database(f"sqlite:///{directory}/d.db"), directory / "files", CONFIG, clock or Clock())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def files(tmp_path: Path, clock: Clock) -> Iterator[FileStore]:
    files = open_files(tmp_path, clock)
    yield files
    files._database.close()


def put(files: FileStore, content: bytes, namespace: str = "a") -> str:
    upload = files.begin_upload(namespace, len(content))
    files.append_upload(namespace, upload, 0, content)
    return files.finish_upload(namespace, upload, "a.txt", "assistants").id


def contents(directory: Path) -> list[str]:
    return sorted(path.parent.name for path in (directory / "files" / "contents").glob("*/*"))


def test_equal_files_of_one_namespace_share_their_bytes(files: FileStore, tmp_path: Path) -> None:
    first, second, other, theirs = put(files, b"x"), put(files, b"x"), put(files, b"y"), put(files, b"x", "b")
    assert len({first, second, other, theirs}) == 4
    assert contents(tmp_path) == ["a", "a", "b"]
    files.delete("a", first)
    assert files.read_file("a", second, 0, 10) == b"x"
    files.delete("a", second)
    assert contents(tmp_path) == ["a", "b"]
    assert files.read_file("b", theirs, 0, 10) == b"x"


def test_a_file_is_read_from_anywhere(files: FileStore) -> None:
    file_id = put(files, b"0123456789")
    assert files.read_file("a", file_id, 3, 4) == b"3456"
    assert files.read_file("a", file_id, 10, 4) == b""


def test_parts_count_once_and_in_their_order(files: FileStore) -> None:
    upload = files.begin_upload("a")
    files.append_upload("a", upload, 0, b"ab")
    for offset in (0, 1, 3):
        with pytest.raises(UnknownUploadError):
            files.append_upload("a", upload, offset, b"c")
    files.append_upload("a", upload, 2, b"c")
    assert files.finish_upload("a", upload, "a", "batch").bytes == 3
    for late in (lambda: files.append_upload("a", upload, 3, b"d"), lambda: files.finish_upload("a", upload, "a", "batch")):
        with pytest.raises(UnknownUploadError):
            late()


def test_another_namespace_has_no_part_in_an_upload(files: FileStore) -> None:
    upload = files.begin_upload("a")
    with pytest.raises(UnknownUploadError):
        files.append_upload("b", upload, 0, b"x")
    with pytest.raises(UnknownUploadError):
        files.finish_upload("b", upload, "a", "batch")
    files.drop_upload("b", upload)
    files.append_upload("a", upload, 0, b"x")
    file_id = files.finish_upload("a", upload, "a", "batch").id
    for call in (files.get_file, files.path, files.delete):
        with pytest.raises(UnknownFileError):
            call("b", file_id)
    assert files.list_files("b", Page()) == []


def test_an_upload_that_is_too_long_is_dropped(files: FileStore) -> None:
    upload = files.begin_upload("a")
    files.append_upload("a", upload, 0, bytes(100))
    with pytest.raises(OversizeError):
        files.append_upload("a", upload, 100, b"x")
    assert uploads(files) == []


def uploads(files: FileStore) -> list[Path]:
    return list(files._uploads._directory.iterdir())


def test_uploads_that_are_silent_are_dropped_and_leave_room(files: FileStore, clock: Clock) -> None:
    silent, busy = files.begin_upload("a"), files.begin_upload("a")
    for upload in (silent, busy):
        files.append_upload("a", upload, 0, b"x")
    with pytest.raises(BusyError):
        files.begin_upload("a")
    files.drop_upload("b", files.begin_upload("b"))  # another tenant still finds a place
    clock.now = NOW + 50
    files.append_upload("a", busy, 1, b"x")
    clock.now = NOW + 70
    files.expire()
    assert len(uploads(files)) == 1
    with pytest.raises(UnknownUploadError):
        files.append_upload("a", silent, 1, b"x")
    files.begin_upload("a")
    assert files.finish_upload("a", busy, "a", "batch").bytes == 2


def test_an_upload_that_is_finished_late_is_not_taken_for_a_silent_one(files: FileStore, clock: Clock) -> None:
    upload = files.begin_upload("a")
    files.append_upload("a", upload, 0, b"x")
    os.utime(uploads(files)[0], (NOW, NOW))
    clock.now = NOW + 59
    finished = files._uploads.finish("a", upload)
    clock.now = NOW + 62
    files.expire()  # before its bytes are in their place
    assert finished.path.read_bytes() == b"x"


def test_a_tenants_files_have_a_limit_of_their_own(files: FileStore) -> None:
    ids = [put(files, bytes([number]) * 100) for number in range(2)]
    with pytest.raises(DocumentError, match="delete some"):
        files.begin_upload("a", 51)
    put(files, bytes(100), "b")
    files.delete("a", ids[0])
    put(files, bytes(100))


def test_files_that_come_at_once_or_of_unknown_length_share_the_limit(files: FileStore, tmp_path: Path) -> None:
    put(files, bytes(100))
    ids = [files.begin_upload("a") for _ in range(2)]
    for number, upload in enumerate(ids):
        files.append_upload("a", upload, 0, bytes([number + 1]) * 80)
    files.finish_upload("a", ids[0], "a.txt", "assistants")
    with pytest.raises(DocumentError, match="have 180 bytes; allowed: 250: delete some"):
        files.finish_upload("a", ids[1], "a.txt", "assistants")
    assert sum(file.bytes for file in files.list_files("a", Page())) == 180
    assert (uploads(files), len(files._uploads), len(contents(tmp_path))) == ([], 0, 2)


@pytest.mark.parametrize(("age_s", "is_left"), [(30, True), (7200, False)])
def test_a_new_process_finds_the_files_and_nothing_old_that_was_left_behind(
    files: FileStore, tmp_path: Path, age_s: float, is_left: bool
) -> None:
    """What is young may be of a process that is ending beside it."""
    file_id = put(files, b"kept")
    upload = files.begin_upload("a")
    files.append_upload("a", upload, 0, b"x")
    orphan = files.path("a", file_id).with_name("0" * 64)
    orphan.write_bytes(b"a row never came")
    for path in (orphan, files.path("a", file_id), *uploads(files)):
        os.utime(path, (NOW - age_s, NOW - age_s))
    again = open_files(tmp_path)
    assert again.read_file("a", file_id, 0, 10) == b"kept"
    assert (len(uploads(again)) == 1, orphan.exists()) == (is_left, is_left)
    again._database.close()


@pytest.mark.parametrize(
    ("name", "purpose", "field"),
    [("", "batch", "file"), ("x" * 256, "batch", "file"), ("a\n", "batch", "file"), ("a", "none", "purpose"), ("a", "", "purpose")],
)
def test_a_file_that_cannot_be_kept(files: FileStore, name: str, purpose: str, field: str) -> None:
    upload = files.begin_upload("a")
    with pytest.raises(DocumentError) as refused:
        files.finish_upload("a", upload, name, purpose)
    assert refused.value.field == field
    files.finish_upload("a", upload, "a", "batch")


def test_files_of_a_purpose(files: FileStore) -> None:
    put(files, b"x")
    assert files.list_files("a", Page(), "batch") == []
    assert len(files.list_files("a", Page(), "assistants")) == 1


def test_bytes_that_are_gone_are_the_stores_fault(files: FileStore) -> None:
    file_id = put(files, b"x")
    files.path("a", file_id).unlink()
    with pytest.raises(StorageError):
        files.read_file("a", file_id, 0, 1)


def test_equal_files_that_come_and_go_at_once_never_lose_their_bytes(files: FileStore) -> None:
    def come_and_go(number: int) -> None:
        for _ in range(10):
            upload = files._uploads.begin(str(number))
            files._uploads._open[upload].namespace = "a"
            files.append_upload("a", upload, 0, b"x")
            file_id = files.finish_upload("a", upload, "a", "batch").id
            assert files.read_file("a", file_id, 0, 1) == b"x"
            files.delete("a", file_id)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(come_and_go, range(2)))
    assert files.list_files("a", Page()) == []


def test_files_are_their_owners_only(files: FileStore) -> None:
    put(files, b"x")
    assert all(path.stat().st_mode & 0o077 == 0 for path in files._contents.parent.rglob("*") if path.is_dir())
