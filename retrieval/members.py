"""What one version of a collection consists of: chunks' rows, which document each is of, and what documents say of themselves."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import msgspec
import numpy as np
import numpy.typing as npt

from retrieval.documents import Attributes
from retrieval.indexes.base import RowIds
from retrieval.reads import Numbers, SeenDocument

_encode = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True, eq=False)
class Members:
    """Never changes. 20 bytes for each row, and for each document 16 and, unless another says the same of itself, its attributes."""

    rows: RowIds
    """Chunks' numbers, ascending."""
    revisions: Numbers
    """Of each row, the revision that it is of."""
    documents: Numbers
    """Revisions, ascending: one of each document."""
    attributes: npt.NDArray[np.object_]
    """Of each document."""

    @classmethod
    def of(cls, rows: RowIds, revisions: Numbers, documents: Sequence[SeenDocument]) -> "Members":
        """Rows ascending."""
        return cls(rows, revisions, *_described(documents))

    def changed(self, gone: RowIds, rows: RowIds, revisions: Numbers, documents: Sequence[SeenDocument], ended: Numbers) -> "Members":
        """Without the rows that are gone and the revisions that have ended, and with these rows, in any order, of these revisions;
        `documents` are new, or say something else of themselves."""
        kept = ~np.isin(self.rows, gone) if len(gone) else np.ones(len(self.rows), np.bool_)
        rows, revisions = np.concatenate([self.rows[kept], rows]), np.concatenate([self.revisions[kept], revisions])
        numbers, attributes = _described(documents)
        stay = ~np.isin(self.documents, np.concatenate([ended, numbers]))
        every, all_attributes = np.concatenate([self.documents[stay], numbers]), np.concatenate([self.attributes[stay], attributes])
        by_row, by_number = np.argsort(rows, kind="stable"), np.argsort(every, kind="stable")
        return Members(rows[by_row], revisions[by_row], every[by_number], all_attributes[by_number])

    def lacks(self, document: SeenDocument) -> bool:
        return not _has(self.documents, document.revision)

    def rows_of(self, revisions: Numbers) -> RowIds:
        return self.rows[np.isin(self.revisions, revisions)]

    def having(self, rows: Iterable[int]) -> list[int]:
        """Those of the rows that are here, in their order."""
        return [row for row in rows if _has(self.rows, row)]

    def attributes_of(self, row: int) -> Attributes:
        """Of the document of a row that is here."""
        place = self._owners[np.searchsorted(self.rows, row)]
        found: Attributes = self.attributes[place]
        return found

    def matching(self, where: Callable[[Attributes], bool]) -> RowIds:
        """The rows of documents whose attributes `where` accepts. It is asked once for all documents that share theirs."""
        verdicts: dict[int, bool] = {}
        accepted = np.empty(len(self.documents), np.bool_)
        for place, attributes in enumerate(self.attributes):
            name = id(attributes)
            if name not in verdicts:
                verdicts[name] = where(attributes)
            accepted[place] = verdicts[name]
        return self.rows[accepted[self._owners]]

    @cached_property
    def _owners(self) -> npt.NDArray[np.int32]:
        """Of each row, the place of its document."""
        return np.searchsorted(self.documents, self.revisions).astype(np.int32)


def _described(documents: Sequence[SeenDocument]) -> tuple[Numbers, npt.NDArray[np.object_]]:
    """Revisions, ascending, and the attributes of each; equal ones are one object."""
    shared: dict[bytes, Attributes] = {}
    ordered = sorted(documents, key=lambda document: document.revision)
    attributes = np.empty(len(ordered), np.object_)
    for place, document in enumerate(ordered):
        attributes[place] = shared.setdefault(_encode(document.attributes), document.attributes)
    return np.array([document.revision for document in ordered], np.int64), attributes


def _has(numbers: Numbers, number: int) -> bool:
    place = int(np.searchsorted(numbers, number))
    return place < len(numbers) and int(numbers[place]) == number
