"""What the protocol needs of a cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Message = dict[str, Any]
"""`{"role": ..., "content": ...}`, as the client wrote it."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A kept answer. `query` is the text of the question that it was kept under; `similarity` a cosine."""

    id: str
    query: str
    answer: str
    similarity: float


class CacheBackend(Protocol):
    """A tenant's cache. `model` is the `scope.model` of a request: a partition of the tenant's own, by its exact name.

    Every call may raise; the text of a `BackendError` may be shown to the client, that of other errors never.
    """

    async def query(self, tenant: str | None, model: str, messages: Sequence[Message]) -> Hit | None:
        """The answer to an equivalent question. None for blank messages."""

    async def insert(self, tenant: str | None, model: str, items: Sequence[tuple[Sequence[Message], str]]) -> list[str]:
        """Keeps each (messages, answer), and returns their ids in the same order."""

    async def delete(self, tenant: str | None, model: str, ids: Sequence[str]) -> int:
        """Deletes these entries of the model, and returns how many there were."""

    async def truncate(self, tenant: str | None, model: str) -> int | None:
        """Deletes all entries of the model, and returns how many there were. None: there is no such model."""

    async def register(self, tenant: str | None, model: str) -> bool:
        """Makes the model known. False: it already was."""

    async def log(self, records: "Sequence[QueryRecord]") -> None:
        """Writes lines of the query log. Nobody waits for it but the log's writer."""


@dataclass(frozen=True, slots=True)
class QueryRecord:
    """One `query` request, answered or refused, for the query log. `seconds` is how long it took."""

    tenant: str | None
    model: str
    error_code: int
    error_desc: str
    hit: Hit | None
    seconds: float
    query: str


class BackendError(Exception):
    """What went wrong, in words for the client."""
