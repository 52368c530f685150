"""One version of a collection in this process: vectors in memory or in mapped files, and, if they are many, a structure before them."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from cache.entry import Vector
from cache.errors import VectorIndexError
from cache.vectors.base import check_vector
from retrieval.indexes.base import Flags, Found, RowIds, Selection, Slices, best
from retrieval.indexes.checks import check_slice
from retrieval.indexes.matrix import Matrix, Part, Positions, Products
from retrieval.indexes.structures import Proposed, Structure, Wanted

ROUNDED = 1e-5
"""More than two scores that are equal once they are rounded differ by."""
FLAT_ROWS = 16_384
"""So many rows of 384 components are compared one by one in a millisecond."""
COMPARED, COMPARED_TIMES, STEP = 64, 4, 4
"""Proposed rows that are compared: so many, or so many times those that are asked for; if that leaves a doubt, `STEP` times as many."""
DOUBT = 4.0
"""A row counts as further away if it would need an error of its guess of so many standard deviations to be closer."""
MIN_TAIL, TAIL_SHARE = 4096, 50
"""Rows behind the structure, compared one by one, are put into it when they are so many, and one of so many of those in it."""
MOST_GROWN = 65_536
"""More rows than these would take longer than some seconds: they stay behind the structure until somebody asks for `extended`."""
GROWN, REMOVED = 2.0, 0.25
"""An index is worth being made anew with so many times the rows that its structure was made for, or so large a part of them removed."""


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """A `Selection` of one `FaissChunkIndex`."""

    index: "FaissChunkIndex"
    positions: Positions
    """Ascending."""
    wanted: Wanted | None
    """Those that the structure covers, unless they are few."""

    def __len__(self) -> int:
        return len(self.positions)


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """What an index is made of, and what its files hold."""

    version: int
    dimension: int
    embedder: str
    """Name of the encoder that made the vectors."""
    matrix: Matrix
    live: Flags | None = None
    """A flag for each position that has not been removed; None: none has been."""
    structure: Structure | None = None
    made_for: int = 0
    """How many rows there were when the kind was chosen, and the structure made."""


class FaissChunkIndex:
    """A `ChunkIndex` in this process; `retrieval.indexes.building` makes it.

    `changed` takes time in proportion to what is added, and to what was added since the structure last took rows; it
    takes them when they are a fiftieth of it, which at a million rows of 384 components copies 0.1 GB and takes about 4 s. More than
    `MOST_GROWN` rows it leaves behind the structure (`tail_is_long`), where a search compares them in 60 ms a million.
    A removed row keeps its place until the index is made anew (`renewal_is_due`).
    """

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        live, structure = contents.live, contents.structure
        self._count = len(contents.matrix) if live is None else int(np.count_nonzero(live))
        self._covered = 0 if structure is None else structure.count

    @property
    def version(self) -> int:
        return self.contents.version

    @property
    def dimension(self) -> int:
        return self.contents.dimension

    @property
    def kind(self) -> str:
        return "flat" if self.contents.structure is None else self.contents.structure.kind

    @property
    def bytes(self) -> int:
        """Memory that it takes, mapped structure included, mapped vectors not."""
        live, structure = self.contents.live, self.contents.structure
        return self.contents.matrix.bytes + (0 if live is None else live.nbytes) + (0 if structure is None else structure.bytes)

    @property
    def renewal_is_due(self) -> bool:
        """Whether making it anew would be worth its cost: searches then are faster, and find more."""
        contents, size = self.contents, len(self.contents.matrix)
        enough = FLAT_ROWS if contents.structure is None else 0
        return size > max(enough, GROWN * contents.made_for) or size - self._count > REMOVED * size

    @property
    def tail_is_long(self) -> bool:
        """Whether `extended` would make searches faster."""
        return self.contents.structure is not None and len(self.contents.matrix) - self._covered > self._longest_tail

    def extended(self) -> "FaissChunkIndex":
        """The same version with all rows in the structure. Takes a second for each 20,000 that are behind it, at a million rows."""
        contents = self.contents
        if contents.structure is None:
            return self
        structure = contents.structure.extended(vectors for _, vectors in contents.matrix.slices(start=self._covered))
        return FaissChunkIndex(replace(contents, structure=structure))

    @cached_property
    def rows(self) -> RowIds:
        """All rows that can be found, in ascending order: to be compared with those in SQL."""
        rows = [some for some, _ in self.slices()]
        return np.sort(np.concatenate(rows)) if rows else np.empty(0, np.int64)

    def __len__(self) -> int:
        return self._count

    def slices(self) -> Slices:
        """All rows that can be found, with their vectors, in no order."""
        return self.contents.matrix.slices(self.contents.live)

    def select(self, rows: RowIds) -> Selection:
        positions = self._live(self.contents.matrix.positions(np.asarray(rows, np.int64)))
        structure, wanted = self.contents.structure, None
        if structure is not None and len(positions) > structure.few:
            flags = np.zeros(self._covered, np.bool_)
            flags[positions[positions < self._covered]] = True
            wanted = structure.prepared(Wanted.of(flags))
        return Chosen(self, positions, wanted)

    def search(self, vector: Vector, k: int, allowed: Selection | None = None) -> list[Found]:
        chosen = self._checked(vector, allowed)
        if k < 1:
            return []
        vector = np.ascontiguousarray(vector)
        structure = self._structure(chosen)
        if structure is None:
            return self._best(k, *self._products(vector, 0, chosen))
        (proposed,) = deque(structure.scan(vector, k, self._wanted if chosen is None else chosen.wanted), maxlen=1)
        return self._compared(vector, k, proposed, self._products(vector, self._covered, chosen))

    def stages(self, vector: Vector, k: int, allowed: Selection | None = None) -> Iterator[list[Found]]:
        chosen = self._checked(vector, allowed)
        structure = self._structure(chosen)
        if k < 1 or structure is None:
            yield self.search(vector, k, allowed)
            return
        vector = np.ascontiguousarray(vector)
        tail = self._products(vector, self._covered, chosen)
        for proposed in structure.scan(vector, k, self._wanted if chosen is None else chosen.wanted):
            yield self._compared(vector, k, proposed, tail)

    def changed(self, version: int, added: Slices, removed: RowIds) -> "FaissChunkIndex":
        contents = self.contents
        matrix, live = contents.matrix, contents.live
        gone = self._live(matrix.positions(np.asarray(removed, np.int64)))
        for rows, vectors in added:
            check_slice(rows, vectors, self.dimension)
            matrix = self._appended(matrix, rows, vectors, gone)
        if live is not None or len(gone):
            live = np.ones(len(matrix), np.bool_) if live is None else np.append(live, np.ones(len(matrix) - len(live), np.bool_))
            live[gone] = False
        return FaissChunkIndex(Contents(version, self.dimension, contents.embedder, matrix, live, self._grown(matrix), contents.made_for))

    def _appended(self, matrix: Matrix, rows: RowIds, vectors: Vector, gone: Positions) -> Matrix:
        there = matrix.positions(rows)
        known = np.concatenate([self._live(there[there < len(self.contents.matrix)]), there[there >= len(self.contents.matrix)]])
        if len(np.setdiff1d(known, gone)) or len(np.unique(rows)) < len(rows):
            raise VectorIndexError("a row that is in the index already cannot be added: remove it, or leave it")
        return matrix.appended(Part(rows.copy(), np.array(vectors, np.float32, order="C"))) if len(rows) else matrix

    def _grown(self, matrix: Matrix) -> Structure | None:
        """The structure, with the rows behind it if they are many."""
        structure, tail = self.contents.structure, len(matrix) - self._covered
        if structure is None or not self._longest_tail < tail <= MOST_GROWN:
            return structure
        return structure.extended(vectors for _, vectors in matrix.slices(start=self._covered))

    @property
    def _longest_tail(self) -> int:
        return max(MIN_TAIL, self._covered // TAIL_SHARE)

    def _checked(self, vector: Vector, allowed: Selection | None) -> Chosen | None:
        check_vector(vector, self.dimension)
        if allowed is None:
            return None
        if not isinstance(allowed, Chosen) or allowed.index is not self:
            raise VectorIndexError("a selection belongs to the version of the index that made it: make one of this version")
        return allowed

    def _live(self, positions: Positions) -> Positions:
        live = self.contents.live
        return positions if live is None else positions[live[positions]]

    def _structure(self, chosen: Chosen | None) -> Structure | None:
        """What is to propose rows; None: all that may be found is compared one by one."""
        return None if chosen is not None and chosen.wanted is None else self.contents.structure

    def _products(self, vector: Vector, start: int, chosen: Chosen | None) -> tuple[Positions, Products]:
        """The live, and chosen, positions from `start` on, and their inner products."""
        matrix, live = self.contents.matrix, self.contents.live
        if chosen is not None:
            positions = chosen.positions[np.searchsorted(chosen.positions, start) :]
            return positions, matrix.products(vector, positions)
        products = matrix.products_from(vector, start)
        if live is None:
            return np.arange(start, len(matrix)), products
        kept = np.flatnonzero(live[start:])
        return kept + start, products[kept]

    @cached_property
    def _wanted(self) -> Wanted | None:
        live = self.contents.live
        return None if live is None or live[: self._covered].all() else Wanted.of(live[: self._covered])

    def _compared(self, vector: Vector, k: int, proposed: Proposed, tail: tuple[Positions, Products]) -> list[Found]:
        """The best of the tail and of what is proposed, of which only the first are compared, unless they leave a doubt."""
        positions, guesses = proposed
        compared, products = 0, tail[1]
        while compared < len(positions):
            some = slice(compared, max(COMPARED, COMPARED_TIMES * k, STEP * compared))
            products = np.concatenate([products, self.contents.matrix.products(vector, positions[some])])
            compared = min(some.stop, len(positions))
            if _is_sure(k, products, products[len(tail[1]) :], guesses[:compared]):
                break
        return self._best(k, np.concatenate([tail[0], positions[:compared]]), products)

    def _best(self, k: int, positions: Positions, products: Products) -> list[Found]:
        if k < len(products):  # of the rest no rows need be looked up
            chosen = np.flatnonzero(products >= np.partition(products, -k)[-k] - ROUNDED)
            positions, products = positions[chosen], products[chosen]
        return best(self.contents.matrix.rows(positions), products, k)


def _is_sure(k: int, products: Products, compared: Products, guesses: Products) -> bool:
    """Whether no further guess is likely to stand for one of the `k` largest products, judging by how wrong those compared were."""
    if len(products) < k:
        return False
    errors = compared - guesses
    reach = float(guesses[-1] + errors.mean() + DOUBT * errors.std())
    return reach <= float(np.partition(products, -k)[-k])
