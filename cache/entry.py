"""What the cache keeps."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
"""One unit vector, shape (dimension,)."""
Vectors = NDArray[np.float32]
"""Unit vectors, shape (n, dimension)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One complete answer, and what it may be found by. Never changed: another answer is another entry.

    `namespace` is the tenant's opaque name, `fingerprint` a hash of everything in the request that must be equal
    for another question to get this answer, `text` the question that is compared. Times are seconds since the epoch.
    """

    id: str
    namespace: str
    exact_key: str
    fingerprint: str
    model: str
    text: str | None
    """None: found by its exact key only."""
    answer: bytes
    """The answer as JSON, as `serve_app.openai` renders it."""
    created_at: float
    expires_at: float
    """The hard end: not served from then on."""
    stale_at: float | None = None
    """The soft end: from then on it may be served while a new answer is computed. None: none before the hard one."""
    epoch: int = 0
    """The namespace's epoch when the request came in: an invalidation since then covers this answer too."""
    tokens: int = 0
    """Tokens that were computed for it, and that each hit saves."""
    tags: tuple[str, ...] = ()
    """What the tenant may invalidate it by."""
    normal_key: str | None = None
    """Hash of the question's normal form: questions that have it in common need no further comparison."""
    embedder: str = ""
    """Name of the embedder that made `vector`."""
    vector: Vector | None = field(default=None, compare=False)

    def live(self, now: float) -> bool:
        return now < self.expires_at

    def is_stale(self, now: float) -> bool:
        """Past its soft end: to be served while a new answer is computed."""
        return self.stale_at is not None and now >= self.stale_at

    @property
    def size(self) -> int:
        """Bytes that it takes in a store, without keys and indexes."""
        return (
            len(self.answer) + len((self.text or "").encode("utf-8", "surrogatepass")) + (0 if self.vector is None else self.vector.nbytes)
        )
