"""Where the indexes of collections come from and are kept: FAISS's files in the data directory, or Milvus."""

import hashlib
import logging
import secrets
import shutil
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Protocol

from cache.embedders.base import Embedder
from retrieval.errors import IndexFileError, Stopping
from retrieval.indexes.base import NONE, ChunkIndex, Kind, Slice, Slices
from retrieval.indexes.building import MIN_COVERED, build
from retrieval.indexes.config import IndexConfig
from retrieval.indexes.factory import open_chunks
from retrieval.indexes.faiss_index import FLAT_ROWS, FaissChunkIndex
from retrieval.indexes.files import IndexFiles
from retrieval.indexes.milvus import MilvusChunks

log = logging.getLogger("ray.serve")

MIN_SAVED = 4096
"""Rows of a collection that is worth files; those of a smaller one are read from SQL in 40 ms."""
UNSAVED_PART = 8
"""An index is saved again when one of so many of its rows is not in its files: all its rows are written each time."""
RETRY_S = 60.0
"""For so long nothing is written, or made in the background, after that failed: most often the disk is full."""
IDENTITY = "identity"


class IndexSource(Protocol):
    """Indexes by the names of their collections. Thread-safe for different names."""

    def opened(self, name: str, version: int) -> ChunkIndex | None:
        """What was kept of a collection, perhaps of an older version, or of none that there is any more; None: nothing usable."""

    def made(self, name: str, version: int, slices: Callable[[], Slices]) -> ChunkIndex:
        """A new one of all these rows, soon: what takes minutes is left to `tended`."""

    def is_due(self, index: ChunkIndex) -> bool:
        """Whether `tended` would do something."""

    def tended(self, name: str, index: ChunkIndex, is_stopping: Callable[[], bool]) -> ChunkIndex:
        """The same version made anew so that searches are faster, or saved. May take minutes. Raises `IndexFileError`, `Stopping`."""

    def forget(self, name: str) -> None:
        """The collection is gone, or what is kept of it is of no use."""

    def kept(self) -> list[str]:
        """Names of which something may be kept."""

    def close(self) -> None: ...


class FaissSource:
    """Indexes in this process. For each million rows of 384 components: a structure of 0.4 GB, mapped from its file, so that the system may
    drop what is not used; and 1.5 KB for each row that is not in files: an eighth of them at most, or all while the disk takes nothing.
    """

    def __init__(
        self,
        config: IndexConfig,
        dimension: int,
        embedder: str,
        directory: Path | None = None,
        min_saved: int = MIN_SAVED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`embedder`: the encoder's name. Without a directory nothing is saved."""
        self._kind, self._threads = config.kind, config.build_threads
        self._dimension, self._embedder = dimension, embedder
        self._directory, self._min_saved = directory, min_saved
        self._clock, self._failed_at = clock, float("-inf")

    def opened(self, name: str, version: int) -> ChunkIndex | None:
        files = self._files(name)
        if files is None or not files.directory.is_dir():
            return None
        files.tidy()
        try:
            return files.open_newest(self._dimension, self._embedder)
        except IndexFileError as error:
            log.warning("a saved index is not used: %s", error)
            return None

    def made(self, name: str, version: int, slices: Callable[[], Slices]) -> ChunkIndex:
        """Flat: the structure comes later."""
        found, few, count = iter(slices()), list[Slice](), 0
        while count < self._min_saved and (part := next(found, None)) is not None:
            few.append(part)
            count += len(part[0])
        files = self._files(name) if count >= self._min_saved and not self._is_pausing else None
        try:
            return self._build(chain(few, found), version, "flat", files)
        except IndexFileError as error:
            self._failed(error)
            return self._build(slices(), version, "flat")

    def is_due(self, index: ChunkIndex) -> bool:
        return (
            isinstance(index, FaissChunkIndex)
            and not self._is_pausing
            and (self._is_old(index) or self._has_tail(index) or self._is_unsaved(index))
        )

    def tended(self, name: str, index: ChunkIndex, is_stopping: Callable[[], bool]) -> ChunkIndex:
        if not isinstance(index, FaissChunkIndex):
            return index
        files = self._files(name) if len(index) >= self._min_saved else None
        try:
            if self._has_tail(index):
                index = index.extended()
            if self._is_old(index):
                slices = _until(is_stopping, index.slices())
                return self._build(slices, index.version, self._kind, files)
            return files.save(index) if files is not None and self._is_unsaved(index) else index
        except Stopping:
            raise
        except Exception as error:  # whatever it is: every search asks for it again
            self._failed(error)
            raise

    def forget(self, name: str) -> None:
        if self._directory is not None:
            shutil.rmtree(self._directory / name, ignore_errors=True)

    def kept(self) -> list[str]:
        if self._directory is None or not self._directory.is_dir():
            return []
        return [path.name for path in self._directory.iterdir() if path.is_dir()]

    def close(self) -> None: ...

    def _build(self, slices: Slices, version: int, kind: Kind, files: IndexFiles | None = None) -> FaissChunkIndex:
        return build(
            slices,
            version=version,
            dimension=self._dimension,
            embedder=self._embedder,
            kind=kind,
            files=files,
            threads=self._threads,
        )

    def _files(self, name: str) -> IndexFiles | None:
        return None if self._directory is None else IndexFiles(self._directory / name)

    def _is_old(self, index: FaissChunkIndex) -> bool:
        enough = {"flat": float("inf"), "auto": FLAT_ROWS + 1}.get(self._kind, MIN_COVERED)
        return index.renewal_is_due or (index.kind == "flat" and len(index) >= enough)

    def _has_tail(self, index: FaissChunkIndex) -> bool:
        return index.tail_is_long and not self._is_old(index)

    def _is_unsaved(self, index: FaissChunkIndex) -> bool:
        in_memory = index.contents.matrix.bytes / (4 * self._dimension + 8)
        return self._directory is not None and in_memory >= max(self._min_saved, len(index) / UNSAVED_PART)

    @property
    def _is_pausing(self) -> bool:
        return self._clock() < self._failed_at + RETRY_S

    def _failed(self, error: Exception) -> None:
        self._failed_at = self._clock()
        log.warning("indexes stay in memory for now: %s", error)


class MilvusSource:
    """Indexes in Milvus, where they are kept and made anew by themselves. Only one process at a time may change a collection's."""

    def __init__(self, chunks: MilvusChunks) -> None:
        self._chunks = chunks

    def opened(self, name: str, version: int) -> ChunkIndex | None:
        """Rows that a process before this one has not finished, or has not removed, are among them.

        Younger ones are of a state of the database that was given up, and would be found when their version's number is reached again.
        """
        self._chunks.forget(name, after=version)
        return self._chunks.version(name, version)

    def made(self, name: str, version: int, slices: Callable[[], Slices]) -> ChunkIndex:
        self.forget(name)
        return self._chunks.version(name, version).changed(version, slices(), NONE)

    def is_due(self, index: ChunkIndex) -> bool:
        return False

    def tended(self, name: str, index: ChunkIndex, is_stopping: Callable[[], bool]) -> ChunkIndex:
        return index

    def forget(self, name: str) -> None:
        """May raise `cache.errors.VectorIndexError`."""
        self._chunks.forget(name)

    def kept(self) -> list[str]:
        """Milvus cannot list them."""
        return []

    def close(self) -> None:
        self._chunks.close()


def open_source(config: IndexConfig, directory: Path, embedder: Embedder) -> FaissSource | MilvusSource:
    """As configured. Raises `cache.errors.VectorIndexError` for a URL that is not understood, `IndexFileError`."""
    url = config.url.get_secret_value()
    if url.startswith("faiss:"):
        return FaissSource(config, embedder.dimension, embedder.name, directory)
    named = hashlib.sha256(f"{_identity(directory)}/{embedder.name}".encode()).hexdigest()[:16]
    return MilvusSource(open_chunks(url, f"mygo_chunks_{named}_{embedder.dimension}", embedder.dimension))


def index_name(namespace: str, store_id: str) -> str:
    """Hexadecimal, as Milvus's scopes are, and a good name of a directory."""
    return hashlib.sha256(f"{namespace}/{store_id}".encode()).hexdigest()[:40]


def _identity(directory: Path) -> str:
    """Tells this database's rows from those of others, which have the same numbers, in one Milvus. Made by chance, once."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / IDENTITY
        if not path.exists():
            path.write_text(secrets.token_hex(16))
        return path.read_text()
    except OSError as error:
        raise IndexFileError(f"the data directory cannot be written ({error.strerror}): check space and rights there") from error


def _until(is_stopping: Callable[[], bool], slices: Slices) -> Slices:
    for each in slices:
        if is_stopping():
            raise Stopping
        yield each
