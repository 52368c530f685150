"""The vectors of one partition: searched without a lock, while one writer appends and forgets."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cache.entry import Vector
from cache.vectors.codes import Codes, Rows, inner_products, load_faiss

DEPTHS = (64, 256, 1024)
"""How many candidates the codes propose; more, if the first ones leave a doubt. A search in doubt after all compares every row."""
DOUBT = 4.0
"""An uncompared row counts as further away if it would need an error of the codes of so many standard deviations to be closer."""
SPARE = 8
"""Rows fetched beyond what was asked for, because some may have been forgotten."""

Found = list[tuple[float, str]]
"""Inner products and ids, closest first."""


class View(NamedTuple):
    """What a search sees. Rows are written once, before their names are appended, and never change; a forgotten row's name is None.

    `rows` has room to spare: only those with a name count. The first `codes.count` rows have codes.
    """

    rows: Rows
    names: list[str | None]
    codes: Codes | None

    @property
    def size(self) -> int:
        return min(len(self.names), len(self.rows))  # names may have grown on, beside larger rows, since this view was taken

    @property
    def coded(self) -> int:
        return self.codes.count if self.codes else 0

    def search(self, vector: Vector, k: int, at_least: float) -> Found:
        """Exact in rows without codes. Of those with codes it may miss a neighbour that is hardly closer than the last one found, and, when
        only close ones are wanted, one that lies in a list of further ones."""
        found = self._by_codes(self.codes, vector, k, at_least) if self.codes else []
        found += self._by_comparing(vector, k, self.coded, self.size)
        return sorted(found, reverse=True)[:k]

    def _by_codes(self, codes: Codes, vector: Vector, k: int, at_least: float) -> Found:
        for depth in DEPTHS:
            if k < depth < codes.count:
                guesses, rows = codes.closest(vector, depth, at_least)
                products = inner_products(vector, self.rows, rows)
                order = np.argsort(-products)
                found = self._named(products[order], rows[order], k)
                last = found[-1][0] if len(found) == k else -1.0
                if len(rows) < depth:  # there are no more in the lists that were searched
                    if codes.is_partial(at_least):
                        return found
                    break
                if max(last, at_least) >= _reach(guesses, products):
                    return found
        return self._by_comparing(vector, k, 0, codes.count)

    def _by_comparing(self, vector: Vector, k: int, start: int, stop: int) -> Found:
        faiss, wanted = load_faiss(), k + SPARE
        while start < stop:
            count = min(wanted, stop - start)
            products, rows = faiss.knn(vector[np.newaxis], self.rows[start:stop], count, metric=faiss.METRIC_INNER_PRODUCT)
            found = self._named(products[0], rows[0] + start, k)
            if len(found) == k or count == stop - start:
                return found
            wanted *= 4
        return []

    def _named(self, products: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], k: int) -> Found:
        """The first `k` that have not been forgotten."""
        found: Found = []
        for start in range(0, len(rows), k + SPARE):  # the first few are enough in most cases
            some = slice(start, start + k + SPARE)
            for product, row in zip(products[some].tolist(), rows[some].tolist(), strict=True):
                name = self.names[row]
                if name is not None:
                    found.append((product, name))
            if len(found) >= k:
                break
        return found[:k]


def _reach(guesses: npt.NDArray[np.float32], products: npt.NDArray[np.float32]) -> float:
    """The inner product that rows behind the last guess hardly exceed, judging by how wrong the guesses were."""
    errors = products - guesses
    mean = float(errors.sum()) / len(errors)
    variance = float(errors.dot(errors)) / len(errors) - mean * mean  # NumPy's `std` takes three times as long for so few
    return float(guesses[-1]) + mean + DOUBT * math.sqrt(max(0.0, variance))


class Partition:
    """One writer at a time; `view` may be taken, and searched, by anyone at any time."""

    __slots__ = ("busy", "dead", "key", "view")

    def __init__(self, key: tuple[str, str], dimension: int) -> None:
        self.key = key
        self.view = View(np.empty((1, dimension), np.float32), [], None)
        self.dead = 0
        """Rows that were forgotten and still take room."""
        self.busy = False
        """Whether the background works on it: then nobody else renumbers its rows."""

    @property
    def live(self) -> int:
        return len(self.view.names) - self.dead

    def append(self, name: str, vector: Vector) -> int:
        """The number of the new row."""
        row = len(self.view.names)
        if row == len(self.view.rows):
            self.view = self.view._replace(rows=_roomy(self.view.rows, row + row))
        self.view.rows[row] = vector
        self.view.names.append(name)  # only now a search sees the row
        return row

    def forget(self, row: int) -> None:
        self.view.names[row] = None
        self.dead += 1

    def compact(self, size: int, kept: list[int], rows: Rows, codes: Codes | None) -> None:
        """Puts `rows`, copies of the rows `kept`, in place of the first `size` ones. What was appended or forgotten since stays so."""
        since = len(self.view.names) - size
        if len(rows) < len(kept) + since:
            rows = _roomy(rows, len(kept) + since)
        rows[len(kept) : len(kept) + since] = self.view.rows[size : size + since]
        names = [self.view.names[row] for row in kept] + self.view.names[size:]
        self.view, self.dead = View(rows, names, codes), names.count(None)


def _roomy(rows: Rows, room: int) -> Rows:
    larger = np.empty((room, rows.shape[1]), np.float32)
    larger[: len(rows)] = rows
    return larger
