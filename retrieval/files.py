"""Uploaded files: rows in SQL, bytes on disk. Equal contents of one namespace are kept once; two uploads are two files all the same."""

import threading
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, delete, func, insert, select

from cache.database import Database
from retrieval import rows
from retrieval.config import FilesConfig
from retrieval.disk import flush
from retrieval.documents import FILE_PREFIX, FileInfo, Page, check_name, new_id
from retrieval.errors import DocumentError, StorageError, UnknownFileError
from retrieval.schema import files
from retrieval.uploads import Uploads

PURPOSES = ("assistants", "batch", "evals", "fine-tune", "user_data", "vision")
"""OpenAI's. Here all of them are files that can be read into collections."""
ORPHAN_S = 3600.0
MAX_PART_BYTES = 1024 * 1024
_COLUMNS = [files.c[name] for name in ("id", "name", "purpose", "bytes", "created_at")]


class FileStore:
    """Thread-safe. Every call may block on I/O and may raise `StorageError`; one that names a file, `UnknownFileError`."""

    def __init__(self, database: Database, directory: Path, config: FilesConfig, clock: Callable[[], float]) -> None:
        """`directory`: this store's alone."""
        self._database = database
        self._contents = directory / "contents"
        self._config = config
        self._clock = clock
        self._make(self._contents)
        self._uploads = Uploads(directory / "uploads", config, clock)
        # Between a row and its bytes: no upload may find bytes that a deletion is about to take away.
        self._lock = threading.Lock()
        self._remove_orphans()

    def begin_upload(self, namespace: str, size: int = 0) -> str:
        """An id to `append` parts to, of which the file will have about `size` bytes. Raises `BusyError`, `DocumentError`."""
        with self._database.read() as connection:
            self._require_room(connection, namespace, size)
        return self._uploads.begin(namespace)

    def append_upload(self, namespace: str, upload_id: str, offset: int, part: bytes) -> None:
        """See `Uploads.append`. A part has at most `MAX_PART_BYTES`."""
        self._uploads.append(namespace, upload_id, offset, part)

    def drop_upload(self, namespace: str, upload_id: str) -> None:
        self._uploads.drop(namespace, upload_id)

    def finish_upload(self, namespace: str, upload_id: str, name: str, purpose: str) -> FileInfo:
        """The upload is a file now. Raises `DocumentError`, after which the upload is still there, unless there is no room for the file."""
        check_filename(name)
        check_purpose(purpose)
        upload = self._uploads.finish(namespace, upload_id)
        now = self._clock()
        info = FileInfo(new_id(FILE_PREFIX, now), name, purpose, upload.size, now)
        digest = upload.digest.hexdigest()
        row = {"namespace": namespace, "id": info.id, "name": name, "purpose": purpose, "bytes": info.bytes, "sha256": digest}
        try:
            with self._lock, self._database.write() as connection:
                # Again: how long it is was not known before, and others came meanwhile.
                self._require_room(connection, namespace, info.bytes)
                self._keep_bytes(upload.path, self._path(namespace, digest))
                connection.execute(insert(files), {**row, "created_at": now})
        except DocumentError:
            upload.path.unlink(missing_ok=True)
            raise
        return info

    def _require_room(self, connection: Connection, namespace: str, more: int) -> None:
        kept = connection.scalar(select(func.sum(files.c.bytes)).where(files.c.namespace == namespace)) or 0
        if kept + more > self._config.max_tenant_bytes:
            raise DocumentError(f"your files have {kept} bytes; allowed: {self._config.max_tenant_bytes}: delete some", "file")

    def list_files(self, namespace: str, page: Page, purpose: str | None = None) -> list[FileInfo]:
        query = select(*_COLUMNS).where(files.c.namespace == namespace)
        if purpose is not None:
            query = query.where(files.c.purpose == purpose)
        with self._database.read() as connection:
            return [FileInfo(*row) for row in connection.execute(rows.page_of(query, files.c.id, page))]

    def get_file(self, namespace: str, file_id: str) -> FileInfo:
        return self.get_all(namespace, [file_id])[file_id]

    def get_all(self, namespace: str, ids: list[str]) -> dict[str, FileInfo]:
        """Raises `UnknownFileError` if one is missing."""
        query = select(*_COLUMNS).where(files.c.namespace == namespace)
        with self._database.read() as connection:
            found = [FileInfo(*row) for part in rows.parts_of(ids) for row in connection.execute(query.where(files.c.id.in_(part)))]
        infos = {info.id: info for info in found}
        if unknown := [each for each in ids if each not in infos]:
            raise UnknownFileError("no file of this id", unknown[0] if len(ids) > 1 else "")
        return infos

    def delete(self, namespace: str, file_id: str) -> None:
        with self._lock:
            path = self.path(namespace, file_id)
            with self._database.write() as connection:
                connection.execute(delete(files).where(files.c.namespace == namespace, files.c.id == file_id))
                others = connection.scalar(select(func.count()).where(files.c.namespace == namespace, files.c.sha256 == path.name))
            if not others:
                path.unlink(missing_ok=True)

    def read_file(self, namespace: str, file_id: str, offset: int, size: int) -> bytes:
        """At most `size` bytes, and at most `MAX_PART_BYTES`; empty behind the end."""
        try:
            with self.path(namespace, file_id).open("rb") as file:
                file.seek(offset)
                return file.read(min(size, MAX_PART_BYTES))
        except OSError as error:
            raise StorageError(f"a file's bytes could not be read: {error.strerror}: see to the data directory") from error

    def path(self, namespace: str, file_id: str) -> Path:
        """Where its bytes are. They stay while the file is not deleted."""
        query = select(files.c.sha256).where(files.c.namespace == namespace, files.c.id == file_id)
        with self._database.read() as connection:
            digest = connection.scalar(query)
        if digest is None:
            raise UnknownFileError("no file of this id")
        return self._path(namespace, digest)

    def expire(self) -> None:
        """Drops uploads that are silent."""
        self._uploads.expire()

    def _path(self, namespace: str, digest: str) -> Path:
        return self._contents / namespace / digest

    def _remove_orphans(self) -> None:
        """Bytes whose process ended before their row was there, or after it was gone. Young ones may get a row yet."""
        for directory in self._contents.glob("*"):
            with self._database.read() as connection:
                known = set(connection.scalars(select(files.c.sha256).where(files.c.namespace == directory.name)))
            for path in directory.iterdir():
                if path.name not in known and self._clock() - path.stat().st_mtime > ORPHAN_S:
                    path.unlink(missing_ok=True)

    def _make(self, directory: Path) -> None:
        """For its owner only, as are those above it that are not there yet."""
        try:
            for each in (*reversed(directory.parents), directory):
                each.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot write the directory {directory}: {error.strerror}: see to the data directory") from error

    def _keep_bytes(self, source: Path, target: Path) -> None:
        self._make(target.parent)
        try:
            source.replace(target)  # over equal bytes, if they are there
            flush(target.parent)  # the row must not outlive the bytes
        except OSError as error:
            raise StorageError(f"a file could not be kept: {error.strerror}: see to the data directory") from error


def check_filename(name: str) -> None:
    """Raises `DocumentError`."""
    if not name:
        raise DocumentError("a file has a name", "file")
    check_name(name, "file")


def check_purpose(purpose: str) -> None:
    """Raises `DocumentError`."""
    if purpose not in PURPOSES:
        raise DocumentError(f"purpose is not an allowed value; allowed: {', '.join(PURPOSES)}", "purpose")
