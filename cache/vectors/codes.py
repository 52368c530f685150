"""Vectors in a few bits: an approximate order of many, for a small part of what comparing them costs."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cache.entry import Vector
from cache.errors import VectorIndexError

Rows = npt.NDArray[np.float32]
"""Of shape (rows, dimension), in C order."""

TRAINING_ROWS = 8192
LISTS, ROWS_OF_LIST = 256, 32
"""The most lists that rows are divided into by k-means, and the least rows for each of them when they are made."""
CLOSE = 0.7
CLOSE_PART, STRANGE_PART = 6, 3
"""Rows with at least the inner product `CLOSE` are looked for in the closest lists only: one of so many, or one of `STRANGE_PART` when the
lists were made without many of the rows, which may be of other topics."""
STRANGE = 1.2
"""So many times the rows that the lists were made for are many more."""
MIN_PROBED = 16
"""Of few lists a sixth would be too few."""


class Codes:
    """An approximate order of rows by their inner product with a vector.

    Product quantisation with 4 bits for a pair of components, summed up in registers (FAISS's fast scan), in lists around centroids:
    100,000 rows of 384 take 10 MB, 4 s to make, and 0.2 to 0.4 ms to search in the closest lists, 1.3 ms in all. Nothing here ever
    changes, so a search needs no lock.
    """

    def __init__(self, index: Any, trained_on: int) -> None:
        self._index = index
        self.count: int = index.ntotal
        self.trained_on = trained_on
        """Of how many rows the sample was drawn that the quantiser was fitted to."""

    @classmethod
    def of(cls, rows: Rows) -> "Codes":
        """Takes about a second for each 100,000 rows, and three for the fitting."""
        faiss = load_faiss()
        dimension, lists = rows.shape[1], max(1, min(LISTS, len(rows) // ROWS_OF_LIST))
        pair = 1 if dimension % 2 else 2
        centroids = faiss.IndexFlatIP(dimension)
        index = faiss.IndexIVFPQFastScan(centroids, dimension, lists, dimension // pair, 4, faiss.METRIC_INNER_PRODUCT)
        index.by_residual = False  # else each list that is searched needs a table of its own
        for clustering in (index.cp, index.pq.cp):
            clustering.min_points_per_centroid = 1  # FAISS prints warnings about samples that are small
        step = -(-len(rows) // TRAINING_ROWS)
        index.train(np.ascontiguousarray(rows[::step]))
        index.add(rows)
        return cls(index, trained_on=len(rows))

    def extended(self, rows: Rows) -> "Codes":
        """These codes, followed by those of more rows."""
        index = load_faiss().clone_index(self._index)
        index.add(rows)
        return Codes(index, self.trained_on)

    def closest(self, vector: Vector, count: int, at_least: float) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Approximate inner products, largest first, and the numbers of their rows: `count` of them, which is at most the number of rows,
        or fewer if the lists that were searched have no more. Where `is_partial`, only some of the lists are."""
        lists = self._index.nlist
        part = 1 if not self.is_partial(at_least) else STRANGE_PART if self.count > STRANGE * self.trained_on else CLOSE_PART
        probed = load_faiss().SearchParametersIVF(nprobe=min(lists, max(MIN_PROBED, lists // part)))
        products, rows = self._index.search(vector[np.newaxis], count, params=probed)
        found = int(np.count_nonzero(rows[0] >= 0))  # those that there are come first
        return products[0, :found], rows[0, :found]

    @staticmethod
    def is_partial(at_least: float) -> bool:
        """Whether a search for rows with at least this inner product leaves lists out."""
        return at_least >= CLOSE


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
