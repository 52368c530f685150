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
    """One complete answer, and what it may be found by.

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
    vector: Vector | None = field(default=None, compare=False)

    def live(self, now: float) -> bool:
        return now < self.expires_at
