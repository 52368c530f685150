"""What is refused before it gets into an index."""

import numpy as np

from cache.entry import Vectors
from cache.errors import VectorIndexError
from cache.vectors.base import UNIT_TOLERANCE
from retrieval.indexes.base import RowIds


def check_slice(rows: RowIds, vectors: Vectors, dimension: int) -> None:
    """Raises `VectorIndexError` unless these are int64 rows of at least 0, and as many finite float32 unit vectors of this dimension."""
    if rows.dtype != np.int64 or rows.ndim != 1 or bool(np.any(rows < 0)):
        raise VectorIndexError("rows must be int64 numbers, none of them below 0, in one dimension")
    if vectors.dtype != np.float32 or vectors.shape != (len(rows), dimension):
        raise VectorIndexError(
            f"float32 vectors of shape ({len(rows)}, {dimension}) are needed, not {vectors.dtype} of shape {vectors.shape}"
        )
    lengths = np.linalg.norm(vectors, axis=1)
    if not bool(np.all(np.abs(lengths - 1) <= UNIT_TOLERANCE)):  # also true for NaN
        raise VectorIndexError("unit vectors are needed")
