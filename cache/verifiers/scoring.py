"""The network's output for pairs, in batches of similar length."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cache.embedders.base import Embedder
from cache.verifiers.network import MAX_TOKENS, batch, encode
from cache.verifiers.pairs import LabelledPair

BATCH = 64


def logits(network: Any, tokens: Any, pairs: Sequence[LabelledPair]) -> NDArray[np.float64]:
    """Shape (len(pairs),), the two texts of each in their order, as `PackagedVerifier` reads them."""
    texts = [sorted((pair.a, pair.b)) for pair in pairs]
    return _logits(network, encode(tokens, [first for first, _ in texts], [second for _, second in texts], MAX_TOKENS))


def cosines(encoder: Embedder, pairs: Sequence[LabelledPair]) -> NDArray[np.float64]:
    """Shape (len(pairs),)."""
    found: list[float] = []
    for start in range(0, len(pairs), BATCH):
        part = pairs[start : start + BATCH]
        found += np.sum(encoder.embed([pair.a for pair in part]) * encoder.embed([pair.b for pair in part]), axis=1).tolist()
    return np.array(found)


def _logits(network: Any, encoded: Any) -> NDArray[np.float64]:
    lengths = [len(ids) for ids in encoded["input_ids"]]
    found = np.zeros(len(lengths))
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    with torch.inference_mode():
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            found[rows] = network(**batch(encoded, rows)).numpy()
    return found
