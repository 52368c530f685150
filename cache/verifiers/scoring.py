"""The network's output for pairs, in batches of similar length."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.verifiers.network import MAX_TOKENS, batch, encode
from cache.verifiers.pairs import LabelledPair

BATCH = 64


def logits(network: Any, tokens: Any, pairs: Sequence[LabelledPair]) -> NDArray[np.float64]:
    """Shape (len(pairs),): the mean of both orders of the two questions."""
    there = _logits(network, encode(tokens, [pair.a for pair in pairs], [pair.b for pair in pairs], MAX_TOKENS))
    back = _logits(network, encode(tokens, [pair.b for pair in pairs], [pair.a for pair in pairs], MAX_TOKENS))
    return (there + back) / 2


def _logits(network: Any, encoded: Any) -> NDArray[np.float64]:
    import torch

    lengths = [len(ids) for ids in encoded["input_ids"]]
    found = np.zeros(len(lengths))
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    with torch.inference_mode():
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            found[rows] = network(**batch(encoded, rows)).logits.squeeze(-1).float().numpy()
    return found
