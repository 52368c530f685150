"""Vectors in a few bits: an approximate order of many, for a small part of what comparing them costs."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cache.entry import Vector
from cache.errors import VectorIndexError

Rows = npt.NDArray[np.float32]
"""Of shape (rows, dimension), in C order."""

TRAINING_ROWS = 8192


class Codes:
    """An approximate order of rows by their inner product with a vector.

    Product quantisation with 4 bits for a pair of components, summed up in registers (FAISS's fast scan): 100,000 rows of 384
    take 10 MB, 1 s to make and 0.3 ms to search. Nothing here ever changes, so a search needs no lock.
    """

    def __init__(self, index: Any, trained_on: int) -> None:
        self._index = index
        self.count: int = index.ntotal
        self.trained_on = trained_on
        """Of how many rows the sample was drawn that the quantiser was fitted to."""

    @classmethod
    def of(cls, rows: Rows) -> "Codes":
        """Takes about a second for each 100,000 rows, and another one for the fitting."""
        faiss = load_faiss()
        dimension = rows.shape[1]
        pair = 1 if dimension % 2 else 2
        index = faiss.IndexPQFastScan(dimension, dimension // pair, 4, faiss.METRIC_INNER_PRODUCT)
        index.pq.cp.min_points_per_centroid = 1  # FAISS prints warnings about samples that are small
        step = -(-len(rows) // TRAINING_ROWS)
        index.train(np.ascontiguousarray(rows[::step]))
        index.add(rows)
        return cls(index, trained_on=len(rows))

    def extended(self, rows: Rows) -> "Codes":
        """These codes, followed by those of more rows."""
        index = load_faiss().clone_index(self._index)
        index.add(rows)
        return Codes(index, self.trained_on)

    def closest(self, vector: Vector, count: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Approximate inner products, largest first, and the numbers of their rows. `count` is at most the number of rows."""
        products, rows = self._index.search(vector[np.newaxis], count)
        return products[0], rows[0]


def inner_products(vector: Vector, rows: Rows, chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Exact inner products with the chosen rows. Unlike NumPy's, it starts no threads."""
    faiss = load_faiss()
    products = np.empty(len(chosen), np.float32)
    pointers = [faiss.swig_ptr(array) for array in (products, vector, rows, chosen)]
    faiss.fvec_inner_products_by_idx(*pointers, rows.shape[1], 1, len(chosen))
    return products


def load_faiss() -> Any:
    """The library, told to compute in the calling thread: a single query gains nothing from more of them, and on busy cores loses
    milliseconds to their waiting for each other. OpenMP keeps this number for each thread, so whoever calls sets it."""
    try:
        import faiss
    except ImportError as error:
        advice = "install the project with its extra `cpu` or `gpu`"
        raise VectorIndexError(f"FAISS is not installed ({error}): {advice}") from error
    faiss.omp_set_num_threads(1)
    return faiss
