"""What Milvus does with chunks' rows, in memory."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from retrieval.indexes.milvus import ChunkConnection


class MemoryConnection(ChunkConnection):
    """Our filters happen to be Python, too."""

    def __init__(self, name: str) -> None:
        """`name`: what it calls the primary key of what a search finds. Servers do not agree."""
        self._name = name
        self._rows: dict[int, dict[str, Any]] = {}

    def call(self, purpose: str, method: str, timeout_s: float, **arguments: Any) -> Any:
        return getattr(self, f"_{method}")(**arguments)

    def drop(self, timeout_s: float) -> None:
        self._rows.clear()

    def close(self) -> None: ...

    def _upsert(self, data: Sequence[dict[str, Any]]) -> None:
        self._rows |= {record["row"]: record for record in data}

    def _delete(self, ids: Sequence[int] = (), filter: str = "False") -> None:  # noqa: A002
        for row in [*ids, *self._matching(filter)]:
            self._rows.pop(row, None)

    def _query(self, filter: str, output_fields: list[str], limit: int | None = None, **_: Any) -> list[dict[str, Any]]:  # noqa: A002
        found = sorted(self._matching(filter))
        return [{"count(*)": len(found)}] if output_fields == ["count(*)"] else [{"row": row} for row in found[:limit]]

    def _search(self, data: list[Any], limit: int, filter: str, **_: Any) -> list[list[dict[str, Any]]]:  # noqa: A002
        hits = [{self._name: row, "distance": float(np.dot(self._rows[row]["vector"], data[0]))} for row in self._matching(filter)]
        return [sorted(hits, key=lambda hit: -hit["distance"])[:limit]]

    def _matching(self, condition: str) -> list[int]:
        return [row for row, record in self._rows.items() if eval(condition, {}, record)]  # noqa: S307
