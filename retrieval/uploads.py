"""Files that are on their way in, part by part. They are in this process's care: what an earlier one left is deleted once it is old."""

import contextlib
import hashlib
import os
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrieval.config import FilesConfig
from retrieval.errors import BusyError, OversizeError, StorageError, UnknownUploadError
from retrieval.sharing import has_room


@dataclass(slots=True)
class Upload:
    """`touched`: when its last part came; `lock` is held by who writes or deletes it."""

    namespace: str
    path: Path
    touched: float
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    lock: Any = field(default_factory=threading.RLock)


class Uploads:
    """Thread-safe. Calls block on I/O and may raise `StorageError`. An upload that is silent for too long is gone."""

    def __init__(self, directory: Path, config: FilesConfig, clock: Callable[[], float]) -> None:
        """`clock` gives seconds since the epoch."""
        self._directory = directory
        self._config = config
        self._clock = clock
        self._open: dict[str, Upload] = {}
        self._lock = threading.Lock()
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(error) from error
        self.expire()

    def begin(self, namespace: str) -> str:
        """The id of a new upload. Raises `BusyError`."""
        self.expire()
        upload_id = secrets.token_hex(16)
        with self._lock:
            own = sum(upload.namespace == namespace for upload in self._open.values())
            if not has_room(own, len(self._open), 1, self._config.max_uploads):
                raise BusyError(f"yours of the {self._config.max_uploads} uploads that may be under way at once")
            self._open[upload_id] = Upload(namespace, self._directory / upload_id, self._clock())
        return upload_id

    def append(self, namespace: str, upload_id: str, offset: int, part: bytes) -> None:
        """`offset`: how much of the file is before this part, so that none counts twice.

        Raises `UnknownUploadError`, and `OversizeError`, which ends the upload.
        """
        upload = self._get(namespace, upload_id)
        with upload.lock:
            if offset != upload.size or upload_id not in self._open:
                raise UnknownUploadError("the upload has other parts, or is gone")
            if upload.size + len(part) > self._config.max_bytes:
                self.drop(namespace, upload_id)
                raise OversizeError(f"a file has at most {self._config.max_bytes} bytes")
            try:
                with upload.path.open("ab") as file:
                    file.write(part)
            except OSError as error:
                raise _unwritable(error) from error
            upload.digest.update(part)
            upload.size += len(part)
            upload.touched = self._clock()

    def finish(self, namespace: str, upload_id: str) -> Upload:
        """The upload, all of it on disk, and from now on the caller's."""
        upload = self._get(namespace, upload_id)
        with upload.lock:
            try:
                with upload.path.open("ab") as file:
                    os.fsync(file.fileno())
                now = self._clock()
                os.utime(upload.path, (now, now))  # or `expire` takes it for left behind before the caller has it
            except OSError as error:
                raise _unwritable(error) from error
            with self._lock:
                is_there = self._open.pop(upload_id, None) is not None
            if not is_there:
                upload.path.unlink(missing_ok=True)
                raise UnknownUploadError("there is no such upload")
        return upload

    def drop(self, namespace: str, upload_id: str) -> None:
        """Harmless if there is none."""
        with self._lock:
            upload = self._open.get(upload_id)
            if upload is None or upload.namespace != namespace:
                return
            del self._open[upload_id]
        with upload.lock:
            upload.path.unlink(missing_ok=True)

    def expire(self) -> None:
        """Drops what is silent, also of a process that is gone: of one that is ending beside this one it may still be written."""
        now = self._clock()
        with self._lock:
            silent = [(each.namespace, id_) for id_, each in self._open.items() if now - each.touched > self._config.upload_timeout_s]
        for namespace, upload_id in silent:
            self.drop(namespace, upload_id)
        for path in self._directory.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.name not in self._open and now - path.stat().st_mtime > self._config.upload_timeout_s:
                    path.unlink()

    def __len__(self) -> int:
        return len(self._open)

    def _get(self, namespace: str, upload_id: str) -> Upload:
        self.expire()
        with self._lock:
            upload = self._open.get(upload_id)
        if upload is None or upload.namespace != namespace:
            raise UnknownUploadError("there is no such upload")
        return upload


def _unwritable(error: OSError) -> StorageError:
    return StorageError(f"a file could not be written: {error.strerror}: see to the data directory")
