"""Makes indexes from all vectors of a collection."""

import numpy as np

from cache.entry import Vectors
from cache.errors import VectorIndexError
from retrieval.indexes.base import Kind, Slices
from retrieval.indexes.checks import check_slice
from retrieval.indexes.faiss_index import FLAT_ROWS, Contents, FaissChunkIndex
from retrieval.indexes.files import IndexFiles
from retrieval.indexes.matrix import Matrix, Part
from retrieval.indexes.structures import TRAINED_OF_LIST, Hnsw, Ivf, Structure, lists_for

MIN_COVERED = 64
"""Fewer rows are not worth a structure."""
MIN_SAMPLE, SAMPLE_SEED = 8192, 0


def build(
    slices: Slices,
    *,
    version: int,
    dimension: int,
    embedder: str,
    kind: Kind = "auto",
    files: IndexFiles | None = None,
    threads: int = 1,
) -> FaissChunkIndex:
    """An index of all these rows, each of which comes once.

    With `files`, it is saved there and read from there, and while it is made, memory holds a slice, the sample that quantisers are
    fitted to, and the structure. Without, all vectors stay in memory. `auto` is `flat` for at most `FLAT_ROWS` rows and `ivf` for more.
    Raises `VectorIndexError` for vectors or rows that cannot be taken, and `IndexFileError`.
    """
    if files is None:
        matrix = _in_memory(slices, dimension)
        _check_distinct(matrix)
        structure = _structure(matrix, kind, threads)
        return FaissChunkIndex(Contents(version, dimension, embedder, matrix, None, structure, len(matrix)))
    with files.draft(dimension) as draft:
        for rows, vectors in slices:
            draft.add(rows, vectors)
        matrix = draft.matrix()
        _check_distinct(matrix)
        structure = _structure(matrix, kind, threads)
        return files.keep(draft, version, embedder, structure, len(matrix))


def _in_memory(slices: Slices, dimension: int) -> Matrix:
    parts = [Part(np.empty(0, np.int64), np.empty((0, dimension), np.float32))]
    for rows, vectors in slices:
        check_slice(rows, vectors, dimension)
        parts.append(Part(rows, vectors))
    return Matrix([Part(np.concatenate([part.rows for part in parts]), np.concatenate([part.vectors for part in parts]))])


def _check_distinct(matrix: Matrix) -> None:
    rows = np.sort(np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in matrix.slices())]))
    if bool(np.any(rows[1:] == rows[:-1])):
        raise VectorIndexError("a row that comes twice cannot be indexed: give each row once")


def _structure(matrix: Matrix, kind: Kind, threads: int) -> Structure | None:
    count = len(matrix)
    if kind == "auto":
        kind = "flat" if count <= FLAT_ROWS else "ivf"
    if kind == "flat" or count < MIN_COVERED:
        return None
    vectors = (block for _, block in matrix.slices())
    make = Ivf.of if kind == "ivf" else Hnsw.of
    return make(count, _sample(matrix), vectors, threads)


def _sample(matrix: Matrix) -> Vectors:
    """Enough vectors for k-means and for the ranges of the bytes that components become, from all over the matrix."""
    count = len(matrix)
    wanted = min(count, max(MIN_SAMPLE, TRAINED_OF_LIST * lists_for(count)))
    chosen = np.zeros(count, np.bool_)
    chosen[np.random.default_rng(SAMPLE_SEED).choice(count, wanted, replace=False)] = True
    return np.concatenate([vectors for _, vectors in matrix.slices(chosen)])
