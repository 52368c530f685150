"""What a network in training, and the encoder, say of labelled pairs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cache.embedders.base import Embedder
from cache.verifiers.pairs import LabelledPair
from cache.verifiers.reader import Reader

BATCH = 64


def logits(network: Any, pairs: Sequence[LabelledPair]) -> NDArray[np.float64]:
    """Shape (len(pairs),), the two texts of each in their order, as `PairModel` reads them, but cut where they are too long."""
    reader = Reader(truncates=True)
    encoded = reader.encode([(min(pair.a, pair.b), max(pair.a, pair.b)) for pair in pairs])
    found = np.zeros(len(pairs))
    order = sorted(range(len(pairs)), key=lambda row: len(encoded[row].ids))  # little padding
    with torch.inference_mode():
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            inputs = reader.batch([encoded[row] for row in rows])
            found[rows] = network(**{name: torch.from_numpy(array) for name, array in inputs.items()}).numpy()
    return found


def cosines(encoder: Embedder, pairs: Sequence[LabelledPair]) -> NDArray[np.float64]:
    """Shape (len(pairs),)."""
    found: list[float] = []
    for start in range(0, len(pairs), BATCH):
        part = pairs[start : start + BATCH]
        found += np.sum(encoder.embed([pair.a for pair in part]) * encoder.embed([pair.b for pair in part]), axis=1).tolist()
    return np.array(found)
