"""The contract of chunk indexes: one version of a collection's vectors, to be searched."""

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from cache.entry import Vector, Vectors

Kind = Literal["auto", "flat", "hnsw", "ivf"]
RowIds = npt.NDArray[np.int64]
"""Numbers of chunks' rows in SQL, shape (n,). No number is ever given to a second chunk."""
NONE: RowIds = np.empty(0, np.int64)
Flags = npt.NDArray[np.bool_]
Slice = tuple[RowIds, Vectors]
"""Row ids and, for each of them, its unit vector."""
Slices = Iterable[Slice]
"""A collection that need not fit into memory at once."""


class Found(NamedTuple):
    """A row, and its vector's cosine with the query in [-1, 1]; larger is closer."""

    row: int
    score: float


class Selection(Protocol):
    """Rows that a search may return, prepared for one version of one index: to be made once for each filter and version, and kept."""

    def __len__(self) -> int:
        """How many of the index's rows it has."""


class ChunkIndex(Protocol):
    """One version of a collection. Never changes, so a search, and all stages of one, see that version. Thread-safe.

    It holds vectors and row ids only. Searches are exact (`flat`), or find at least 95 of 100 nearest rows (the other kinds, Milvus's
    youngest rows excepted), also among few selected ones. Calls may raise `cache.errors.VectorIndexError`: for a vector that is none of
    unit length, or because a server does not answer.
    """

    @property
    def version(self) -> int:
        """The collection's version in SQL that this is."""

    @property
    def dimension(self) -> int:
        """Length of every vector."""

    @property
    def kind(self) -> str:
        """`flat`, `hnsw`, `ivf` or `milvus`."""

    @property
    def rows(self) -> RowIds:
        """All rows that can be found, in ascending order: to be compared with those in SQL."""

    def __len__(self) -> int:
        """How many rows can be found."""

    def select(self, rows: RowIds) -> Selection:
        """Those of the rows, in any order, that the index has."""

    def search(self, vector: Vector, k: int, allowed: Selection | None = None) -> list[Found]:
        """At most `k` rows nearest to a unit vector, best first, rows of one score in ascending order; of the selected rows only."""

    def stages(self, vector: Vector, k: int, allowed: Selection | None = None) -> Iterator[list[Found]]:
        """The results of `search` as far as it has come, each better than the one before or equal to it; the last one is its result.

        There is at least one. Whoever stops taking them ends the search.
        """

    def changed(self, version: int, added: Slices, removed: RowIds) -> "ChunkIndex":
        """The collection's next version, made beside this one, which stays as it is.

        A row that is already there must not be added: `VectorIndexError`. Removed rows that are not there are ignored.
        """


def best(rows: RowIds, scores: npt.NDArray[np.float32], k: int) -> list[Found]:
    """The `k` largest scores, rows of one score in ascending order. Scores are rounded as `cache.vectors.base.cosine` does."""
    rounded = np.clip(np.round(scores.astype(np.float64), 6), -1.0, 1.0)
    if 0 < k < len(rounded):
        chosen = np.flatnonzero(rounded >= np.partition(rounded, -k)[-k])  # all that share the last place
        rows, rounded = rows[chosen], rounded[chosen]
    order = np.lexsort((rows, -rounded))[: max(k, 0)]
    return [Found(row, score) for row, score in zip(rows[order].tolist(), rounded[order].tolist(), strict=True)]
