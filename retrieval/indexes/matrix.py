"""Rows and their vectors, numbered through by position: in files, in memory, or both."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from cache.entry import Vector, Vectors
from cache.vectors.codes import inner_products, load_faiss
from retrieval.indexes.base import Flags, RowIds, Slice

Positions = npt.NDArray[np.int64]
Products = npt.NDArray[np.float32]

BLOCK = 16_384
"""Rows that are read at once where all are read."""


class Part:
    """Some rows and their vectors, both in C order. Never changes. `mapped`: they are in files, not in memory."""

    def __init__(self, rows: RowIds, vectors: Vectors, mapped: bool = False) -> None:
        self.rows, self.vectors, self.mapped = rows, vectors, mapped

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def _order(self) -> Positions | None:
        """None: the rows are in ascending order."""
        return None if bool(np.all(self.rows[1:] > self.rows[:-1])) else np.argsort(self.rows, kind="stable")

    def positions(self, rows: RowIds) -> Positions:
        """Of those of the rows that are here, in no order."""
        if not len(self):
            return np.empty(0, np.int64)
        places = np.searchsorted(self.rows, rows, sorter=self._order)
        places = np.minimum(places, len(self) - 1)
        if self._order is not None:
            places = self._order[places]
        found: Positions = places[self.rows[places] == rows]
        return found

    def products(self, vector: Vector, start: int) -> Products:
        """With all vectors from `start` on."""
        faiss, count = load_faiss(), len(self) - start
        products = np.empty(count, np.float32)
        arrays = (products, vector, self.vectors[start:])
        faiss.fvec_inner_products_ny(*(faiss.swig_ptr(array) for array in arrays), self.vectors.shape[1], count)
        return products


class Matrix:
    """Parts behind each other. Never changes: `appended` makes another one, which shares the parts."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = tuple(part for part in parts if len(part))
        self._starts = np.cumsum([0, *(len(part) for part in self._parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def bytes(self) -> int:
        """Of vectors and row ids in memory; files that are mapped do not count."""
        return sum(part.rows.nbytes + part.vectors.nbytes for part in self._parts if not part.mapped)

    def rows(self, positions: Positions) -> RowIds:
        """The rows at these positions, in their order."""
        rows = np.empty(len(positions), np.int64)
        for part, here, places in self._split(positions):
            rows[here] = part.rows[places]
        return rows

    def products(self, vector: Vector, positions: Positions) -> Products:
        """Exact inner products with the vectors at these positions, in their order."""
        products = np.empty(len(positions), np.float32)
        for part, here, places in self._split(positions):
            products[here] = inner_products(vector, part.vectors, places)
        return products

    def products_from(self, vector: Vector, position: int) -> Products:
        """Exact inner products with all vectors from this position on."""
        behind = [(part, max(0, position - start)) for part, start in zip(self._parts, self._starts.tolist(), strict=False)]
        found = [part.products(vector, start) for part, start in behind if start < len(part)]
        return np.concatenate(found) if found else np.empty(0, np.float32)

    def positions(self, rows: RowIds) -> Positions:
        """Of those of the rows that are here, in ascending order. A row that is here twice has both."""
        found = [part.positions(rows) + start for part, start in zip(self._parts, self._starts.tolist(), strict=False)]
        return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)

    def slices(self, kept: Flags | None = None, start: int = 0) -> Iterator[Slice]:
        """What is here from `start` on, in blocks; with `kept`, only the positions that have a true flag."""
        for part, first in zip(self._parts, self._starts.tolist(), strict=False):
            for block in range(max(0, start - first), len(part), BLOCK):
                some = slice(block, min(block + BLOCK, len(part)))
                rows, vectors = part.rows[some], part.vectors[some]
                if kept is not None:
                    flags = kept[first + some.start : first + some.stop]
                    rows, vectors = rows[flags], vectors[flags]
                yield rows, vectors

    def appended(self, part: Part) -> "Matrix":
        """Parts in memory are joined with a neighbour of about their size, so that there are few, and each row is seldom copied."""
        parts = [*self._parts]
        while parts and _is_small(parts[-1], part):
            last = parts.pop()
            part = Part(np.concatenate([last.rows, part.rows]), np.concatenate([last.vectors, part.vectors]))
        return Matrix([*parts, part])

    def _split(self, positions: Positions) -> Iterator[tuple[Part, slice | Flags, Positions]]:
        """Each part that is concerned, which of the positions are its, and where they are in it."""
        if len(self._parts) == 1:
            yield self._parts[0], slice(None), np.ascontiguousarray(positions)
            return
        owners = np.searchsorted(self._starts, positions, side="right") - 1
        for number in np.unique(owners).tolist():
            here = owners == number
            yield self._parts[number], here, positions[here] - self._starts[number]


def _is_small(last: Part, new: Part) -> bool:
    return not last.mapped and len(last) <= 2 * len(new)
