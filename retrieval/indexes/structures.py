"""What FAISS makes of many vectors, so that a search need not compare all of them.

A structure covers the first `count` positions of an index and proposes some of them; the index compares the proposed ones exactly. So
structures keep vectors in fewer bits, and the vectors themselves may stay in a file.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cache.entry import Vector, Vectors
from cache.vectors.codes import load_faiss
from retrieval.indexes.base import Flags
from retrieval.indexes.gpu import clustering_index
from retrieval.indexes.matrix import Positions, Products

Proposed = tuple[Positions, Products]
"""Positions, and approximate inner products with them, largest first."""

MIN_LISTS, ROWS_OF_ROOT = 16, 4
"""Lists: `ROWS_OF_ROOT` times the square root of the rows."""
TRAINED_OF_LIST, ITERATIONS = 40, 10
"""Vectors for each list that k-means sees, and how often it sees them."""
PROBES, PROBED_PART = 160, 25
"""Lists that a search reads: so many, or one of `PROBED_PART` if that is more."""
FEW = 32_768
"""Selected rows of 384 components that are compared one by one, wherever their vectors are, in some 3 ms."""
ALLOWED_ROWS = 8192
"""Among selected rows lists are read until so many of them have been seen."""
PROPOSED, PROPOSED_TIMES = 1024, 8
"""Rows that are proposed: so many, or so many times those that are asked for if that is more."""
STAGES = (16, 4, 2, 1)
"""One of so many lists has been read after each stage."""
LINKS, BUILD_EF, SEARCH_EF, FIRST_EF = 16, 100, 600, 64
"""HNSW: links of a row in the graph; candidates that are followed to make it, by a search, and by a search's first stage."""
SPARE = 32
"""Rows that it proposes beyond those that are asked for."""
RARE = 16
"""A walk among fewer selected rows than one of so many meets too many others, and takes longer than comparing them."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which of a structure's positions may be proposed."""

    flags: npt.NDArray[np.uint8]
    """A bit for each position."""
    count: int
    per_list: npt.NDArray[np.int64] | None = None
    """How many of them are in each list of an IVF; None: not counted, because they are nearly all."""

    @classmethod
    def of(cls, flags: Flags) -> "Wanted":
        return cls(np.packbits(flags, bitorder="little"), int(np.count_nonzero(flags)))

    def selector(self) -> Any:
        faiss = load_faiss()
        return faiss.IDSelectorBitmap(len(self.flags), faiss.swig_ptr(self.flags))


class Structure(Protocol):
    """Thread-safe, and never changes."""

    @property
    def few(self) -> int:
        """So many positions are compared one by one sooner than they are searched for."""

    @property
    def kind(self) -> str:
        """`hnsw` or `ivf`."""

    @property
    def count(self) -> int:
        """How many positions it covers, from 0 on."""

    @property
    def bytes(self) -> int:
        """What it takes in memory, or of a file that is mapped."""

    def prepared(self, wanted: Wanted) -> Wanted:
        """The same positions, with what searches among few of them need."""

    def scan(self, vector: Vector, k: int, wanted: Wanted | None) -> Iterator[Proposed]:
        """After each stage, positions that the `k` nearest are among, as far as it has come: more of them, as the products are inexact."""

    def extended(self, vectors: Iterable[Vectors]) -> "Structure":
        """A copy that covers the vectors behind those that are covered, too."""

    def write(self, path: Path) -> None:
        """Raises `OSError`."""


class Ivf:
    """Lists around the centroids of k-means, of which the closest are read, and product quantisation in them, as in `cache.vectors.codes`:
    half a byte for two components.

    Scalar quantisation (a byte for each) finds as much with fewer proposals, in four times the memory and twice the time
    (`benchmarks/vector_search.py`).
    """

    kind = "ivf"

    def __init__(self, index: Any) -> None:
        self._index = index
        self.count: int = index.ntotal

    @classmethod
    def of(cls, count: int, sample: Vectors, vectors: Iterable[Vectors], threads: int) -> "Ivf":
        """Of `count` vectors. The quantisers are fitted to the sample."""
        with _threads(threads) as faiss:
            dimension, inner_product = sample.shape[1], faiss.METRIC_INNER_PRODUCT
            pair = 1 if dimension % 2 else 2
            centroids = faiss.IndexFlatIP(dimension)
            index = faiss.IndexIVFPQFastScan(centroids, dimension, lists_for(count), dimension // pair, 4, inner_product)
            index.by_residual = False  # else each list that is read needs a table of its own
            index.cp.max_points_per_centroid = TRAINED_OF_LIST
            for clustering in (index.cp, index.pq.cp):
                clustering.niter, clustering.min_points_per_centroid = ITERATIONS, 1
            index.clustering_index = helper = clustering_index(faiss, dimension)  # a name keeps it: FAISS only points to it
            index.train(np.ascontiguousarray(sample))
            index.clustering_index = None
            del helper
            return cls(_added(index, vectors))

    @property
    def few(self) -> int:
        return FEW

    @property
    def bytes(self) -> int:
        return int(self.count * (self._index.code_size + 8) + 4 * self._index.nlist * self._index.d)

    @cached_property
    def _list_of(self) -> npt.NDArray[np.int32]:
        """The list that each position is in."""
        faiss, lists = load_faiss(), self._index.invlists
        of = np.empty(self.count, np.int32)
        for number in range(self._index.nlist):
            if size := lists.list_size(number):
                of[faiss.rev_swig_ptr(lists.get_ids(number), size)] = number
        return of

    def prepared(self, wanted: Wanted) -> Wanted:
        flags = np.unpackbits(wanted.flags, count=self.count, bitorder="little").view(np.bool_)
        return replace(wanted, per_list=np.bincount(self._list_of[flags], minlength=self._index.nlist))

    def scan(self, vector: Vector, k: int, wanted: Wanted | None) -> Iterator[Proposed]:
        depth = min(max(PROPOSED, PROPOSED_TIMES * k), self.count)
        distances, lists = self._probed(vector, wanted)
        selector = None if wanted is None else wanted.selector()
        found, products = np.empty(0, np.int64), np.empty(0, np.float32)
        start = 0
        for part in STAGES:
            stop = -(-len(lists) // part)
            if stop > start:
                more, of_more = self._read(vector, depth, lists[start:stop], distances[start:stop], selector)
                found, products = _merged(found, products, more, of_more, depth)
            start = stop
            yield found, products

    def _probed(self, vector: Vector, wanted: Wanted | None) -> tuple[Products, Positions]:
        """The lists to be read, closest first, and the inner products with their centroids."""
        count = self._index.nlist
        probes = min(count, max(PROBES, count // PROBED_PART))
        if wanted is None or wanted.per_list is None:
            products, lists = self._index.quantizer.search(vector[np.newaxis], probes)
            return products[0], lists[0]
        products, lists = (found[0] for found in self._index.quantizer.search(vector[np.newaxis], count))
        filled = wanted.per_list[lists] > 0
        products, lists = products[filled], lists[filled]
        seen = int(np.searchsorted(np.cumsum(wanted.per_list[lists]), ALLOWED_ROWS)) + 1
        return products[: max(probes, seen)], lists[: max(probes, seen)]

    def _read(self, vector: Vector, depth: int, lists: Positions, centroids: Products, selector: Any) -> Proposed:
        faiss = load_faiss()
        products, found = np.empty(depth, np.float32), np.empty(depth, np.int64)
        lists, centroids = np.ascontiguousarray(lists), np.ascontiguousarray(centroids)
        probed = faiss.SearchParametersIVF(nprobe=len(lists), sel=selector)
        arrays = [faiss.swig_ptr(array) for array in (lists, centroids, products, found)]
        # FAISS's own wrapper takes no parameters; without them, threads would have to share the index's `nprobe`.
        self._index.search_preassigned_c(1, faiss.swig_ptr(vector), depth, *arrays, False, probed)
        there = found >= 0
        return found[there], products[there]

    def extended(self, vectors: Iterable[Vectors]) -> "Ivf":
        return Ivf(_grown(self._index, vectors))

    def write(self, path: Path) -> None:
        _write(self._index, path)


class Hnsw:
    """A graph of near neighbours, which a search walks, and a byte for each component. Slower to make than lists: a millisecond of a core
    for a vector."""

    kind = "hnsw"

    def __init__(self, index: Any) -> None:
        self._index = index
        self.count: int = index.ntotal

    @classmethod
    def of(cls, count: int, sample: Vectors, vectors: Iterable[Vectors], threads: int) -> "Hnsw":
        """Of `count` vectors. The quantiser is fitted to the sample."""
        with _threads(threads) as faiss:
            index = faiss.IndexHNSWSQ(sample.shape[1], faiss.ScalarQuantizer.QT_8bit, LINKS, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = BUILD_EF
            index.train(np.ascontiguousarray(sample))
            return cls(_added(index, vectors))

    @property
    def few(self) -> int:
        return max(FEW, self.count // RARE)

    @property
    def bytes(self) -> int:
        return int(self.count * (self._index.d + 4 * 2 * LINKS + 24))

    def prepared(self, wanted: Wanted) -> Wanted:
        return wanted

    def scan(self, vector: Vector, k: int, wanted: Wanted | None) -> Iterator[Proposed]:
        faiss, count = load_faiss(), min(k + max(k, SPARE), self.count)
        selector = None if wanted is None else wanted.selector()
        for ef in (FIRST_EF, self._effort(wanted)):
            walk = faiss.SearchParametersHNSW(efSearch=max(ef, count), sel=selector)
            products, found = (each[0] for each in self._index.search(vector[np.newaxis], count, params=walk))
            yield found[found >= 0], products[found >= 0]

    def _effort(self, wanted: Wanted | None) -> int:
        """More, where most of the rows that a walk meets do not count."""
        return SEARCH_EF if wanted is None else min(SEARCH_EF * self.count // max(1, wanted.count), self.count)

    def extended(self, vectors: Iterable[Vectors]) -> "Hnsw":
        return Hnsw(_grown(self._index, vectors))

    def write(self, path: Path) -> None:
        _write(self._index, path)


def lists_for(count: int) -> int:
    return int(max(1, min(max(MIN_LISTS, ROWS_OF_ROOT * count**0.5), count // 4)))


def _write(index: Any, path: Path) -> None:
    """Into a file of Python's: FAISS's own raises no `OSError`, and nothing at all if only the last bytes find no room."""
    faiss = load_faiss()
    with path.open("wb") as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))


def _grown(index: Any, vectors: Iterable[Vectors]) -> Any:
    """Through bytes, because an index that is mapped from a file cannot be added to, nor a clone of it: FAISS ends the process."""
    faiss = load_faiss()
    return _added(faiss.deserialize_index(faiss.serialize_index(index)), vectors)


def _added(index: Any, vectors: Iterable[Vectors]) -> Any:
    for block in vectors:
        index.add(np.ascontiguousarray(block))
    return index


@contextmanager
def _threads(count: int) -> Iterator[Any]:
    """FAISS, with so many threads for what this one makes."""
    faiss = load_faiss()
    faiss.omp_set_num_threads(count)
    try:
        yield faiss
    finally:
        faiss.omp_set_num_threads(1)


def _merged(found: Positions, products: Products, more: Positions, of_more: Products, depth: int) -> Proposed:
    """The `depth` positions of largest products, of both."""
    found, products = np.concatenate([found, more]), np.concatenate([products, of_more])
    order = np.argsort(-products, kind="stable")[:depth]
    return found[order], products[order]
