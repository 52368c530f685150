"""Indexes in files: each version that is saved is a directory of its own, complete or not there."""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cache.entry import Vectors
from cache.vectors.codes import load_faiss
from retrieval.disk import flush
from retrieval.errors import IndexFileError
from retrieval.indexes.base import Flags, RowIds
from retrieval.indexes.checks import check_slice
from retrieval.indexes.faiss_index import Contents, FaissChunkIndex
from retrieval.indexes.matrix import Matrix, Part
from retrieval.indexes.structures import Hnsw, Ivf, Structure

FORMAT = 1
ROWS, VECTORS, LIVE, STRUCTURE, HEADER = "rows.i64", "vectors.f32", "live.bits", "structure.faiss", "header.json"
_NAME = re.compile(r"\d{12}-\d{4}")
_DRAFT = "draft-"


class Stamp(msgspec.Struct, frozen=True):
    """What a file must be, to be the one that was written."""

    bytes: int
    sha256: str


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a saved index is. Written last: a directory without one is no index."""

    format: int
    version: int
    kind: str
    dimension: int
    embedder: str
    rows: int
    made_for: int
    files: dict[str, Stamp]


class IndexFiles:
    """The saved versions of one collection, under one directory. One process at a time writes there.

    Methods raise `IndexFileError`. Files are written under another name, flushed to disk, and then renamed, so a power failure leaves
    the version or nothing. Readers map them, and may go on when they have been removed.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def open_newest(self, dimension: int, embedder: str) -> FaissChunkIndex:
        """The newest version that was saved. Raises `IndexFileError` if there is none, or if it is damaged or of another encoder: then it
        is to be made from SQL."""
        saved = self._saved()
        if not saved:
            raise IndexFileError("no index has been saved: make it from the database")
        return FaissChunkIndex(_opened(saved[-1], dimension, embedder))

    def save(self, index: FaissChunkIndex) -> FaissChunkIndex:
        """The same version, from its files. Older ones are removed."""
        contents = index.contents
        with self.draft(index.dimension) as draft:
            for rows, vectors in contents.matrix.slices():
                draft.add(rows, vectors)
            return self.keep(draft, contents.version, contents.embedder, contents.structure, contents.made_for, contents.live)

    @contextmanager
    def draft(self, dimension: int) -> Iterator["Draft"]:
        """A place for rows and vectors; what is not kept is removed. Raises `IndexFileError` if the disk is full, or may not be written."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            path = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=self.directory))
            with ExitStack() as ending:
                ending.callback(shutil.rmtree, path, ignore_errors=True)
                draft = Draft(path, dimension)
                ending.callback(draft.close)  # it may raise: what is left in a buffer is written then
                yield draft
        except OSError as error:
            advice = "check space and rights in the data directory"
            raise IndexFileError(f"an index could not be written ({error.strerror}): {advice}") from error

    def keep(
        self, draft: "Draft", version: int, embedder: str, structure: Structure | None, made_for: int, live: Flags | None = None
    ) -> FaissChunkIndex:
        """Makes the draft the newest version."""
        if live is not None:
            draft.write(LIVE, np.packbits(live, bitorder="little"))
        if structure is not None:
            draft.write_structure(structure)
        kind = "flat" if structure is None else structure.kind
        header = Header(FORMAT, version, kind, draft.dimension, embedder, draft.count, made_for, draft.stamps())
        draft.finish(header)
        path = self._next(version)
        draft.path.rename(path)
        flush(self.directory)
        self._remove_but(path)
        return FaissChunkIndex(_contents(path, header))

    def tidy(self) -> None:
        """Removes what a process that was killed has left half written, and all versions but the newest."""
        saved = self._saved()
        self._remove_but(saved[-1] if saved else None)

    def _saved(self) -> list[Path]:
        return sorted(path for path in _children(self.directory) if _NAME.fullmatch(path.name))

    def _next(self, version: int) -> Path:
        number = sum(path.name.startswith(f"{version:012}-") for path in _children(self.directory))
        while (path := self.directory / f"{version:012}-{number:04}").exists():
            number += 1
        return path

    def _remove_but(self, kept: Path | None) -> None:
        for path in _children(self.directory):
            if path != kept and (_NAME.fullmatch(path.name) or path.name.startswith(_DRAFT)):
                shutil.rmtree(path, ignore_errors=True)


class Draft:
    """An index that is being written: rows and vectors first, which can be mapped as soon as all are there."""

    def __init__(self, path: Path, dimension: int) -> None:
        self.path, self.count, self.dimension = path, 0, dimension
        with ExitStack() as opened:
            self._files = {name: opened.enter_context((path / name).open("wb")) for name in (ROWS, VECTORS)}
            self._open = opened.pop_all()
        self._hashes = {name: hashlib.sha256() for name in self._files}

    def add(self, rows: RowIds, vectors: Vectors) -> None:
        check_slice(rows, vectors, self.dimension)
        for name, array in ((ROWS, np.ascontiguousarray(rows, "<i8")), (VECTORS, np.ascontiguousarray(vectors, "<f4"))):
            self._files[name].write(array.data)
            self._hashes[name].update(array.data)
        self.count += len(rows)

    def matrix(self) -> Matrix:
        """All that was added. Nothing can be added any more."""
        self.close()
        return _mapped(self.path, self.count, self.dimension)

    def write(self, name: str, array: Any) -> None:
        (self.path / name).write_bytes(array.tobytes())
        self._hashes[name] = hashlib.sha256(array.tobytes())

    def write_structure(self, structure: Structure) -> None:
        structure.write(self.path / STRUCTURE)
        self._hashes[STRUCTURE] = _hash(self.path / STRUCTURE)

    def stamps(self) -> dict[str, Stamp]:
        self.close()
        return {name: Stamp((self.path / name).stat().st_size, hashed.hexdigest()) for name, hashed in self._hashes.items()}

    def finish(self, header: Header) -> None:
        """Writes the header, with a hash of its own in a second line, and flushes everything."""
        encoded = msgspec.json.encode(header)
        (self.path / HEADER).write_bytes(encoded + b"\n" + hashlib.sha256(encoded).hexdigest().encode())
        for name in (*self._hashes, HEADER):
            flush(self.path / name)
        flush(self.path)

    def close(self) -> None:
        """All files, also if one raises. Twice does no harm."""
        self._open.close()


def _opened(path: Path, dimension: int, embedder: str) -> Contents:
    try:
        header = _header(path)
        if (header.format, header.dimension, header.embedder) != (FORMAT, dimension, embedder):
            raise IndexFileError("the saved index is of another format, dimension or encoder: make it anew from the database")
        for name, stamp in header.files.items():
            file = path / name
            if file.stat().st_size != stamp.bytes or _hash(file).hexdigest() != stamp.sha256:
                raise IndexFileError("a file of the saved index is damaged: make it anew from the database")
        return _contents(path, header)
    except (OSError, RuntimeError, ValueError) as error:  # FAISS raises RuntimeError, NumPy and msgspec ValueError
        raise IndexFileError("the saved index cannot be read: make it anew from the database") from error


def _header(path: Path) -> Header:
    encoded, _, hashed = (path / HEADER).read_bytes().partition(b"\n")
    if hashlib.sha256(encoded).hexdigest().encode() != hashed:
        raise IndexFileError("the header of the saved index is damaged: make it anew from the database")
    return msgspec.json.decode(encoded, type=Header)


def _contents(path: Path, header: Header) -> Contents:
    """Only for files that are known to be whole: FAISS reads whatever it is given."""
    live = None
    if LIVE in header.files:
        live = np.unpackbits(np.fromfile(path / LIVE, np.uint8), count=header.rows, bitorder="little").view(np.bool_)
    structure = _structure(path, header.kind) if STRUCTURE in header.files else None
    matrix = _mapped(path, header.rows, header.dimension)
    return Contents(header.version, header.dimension, header.embedder, matrix, live, structure, header.made_for)


def _structure(path: Path, kind: str) -> Structure:
    faiss = load_faiss()
    index = faiss.read_index(str(path / STRUCTURE), faiss.IO_FLAG_MMAP_IFC)
    return Ivf(index) if kind == Ivf.kind else Hnsw(index)


def _mapped(path: Path, count: int, dimension: int) -> Matrix:
    if not count:
        return Matrix([])
    rows = np.memmap(path / ROWS, "<i8", mode="r", shape=(count,))
    vectors = np.memmap(path / VECTORS, "<f4", mode="r", shape=(count, dimension))
    return Matrix([Part(np.asarray(rows), np.asarray(vectors), mapped=True)])


def _hash(path: Path) -> Any:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256")


def _children(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.is_dir() else []
