"""A BERT encoder that runs, and the padding of what it reads."""

from collections.abc import Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from cache.bert.graph import HIDDEN, MASK, WORDS, Shape, Weights, build
from cache.bert.precision import Precision

Floats = NDArray[np.float32]
_FATAL = 4
"""Severity of ONNX Runtime's log from which on it is shown: errors come as exceptions."""


class BertNetwork:
    """Thread-safe. `threads`: of one call; None: as many as there are cores.

    In int8 ONNX Runtime computes large batches otherwise than small ones: who needs equal numbers for equal texts gives them one by one.
    """

    def __init__(self, weights: Weights, shape: Shape, precision: Precision = "float32", threads: int | None = None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = _FATAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the cores have other work
        model = build(weights, shape, precision)
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._places: Floats = weights["embeddings.position_embeddings.weight"].astype(np.float32)
        self._segments: Floats = weights["embeddings.token_type_embeddings.weight"].astype(np.float32)

    def hidden(self, words: Sequence[Floats], segments: Sequence[Sequence[int]] | None = None) -> tuple[Floats, NDArray[np.int32]]:
        """What the last layer says of texts, shape (texts, tokens, width), and which tokens are there, (texts, tokens).

        `words`: each text's word embeddings, (tokens, width); `segments`: each token's, 0 where they are not given.
        """
        lengths = [len(each) for each in words]
        embedded = np.zeros((len(words), max(lengths), self._places.shape[1]), np.float32)
        mask = np.zeros(embedded.shape[:2], np.int32)
        for row, (each, length) in enumerate(zip(words, lengths, strict=True)):
            parts = self._segments[0] if segments is None else self._segments[list(segments[row])]
            embedded[row, :length] = each + self._places[:length] + parts
            mask[row, :length] = 1
        (found,) = self._session.run([HIDDEN], {WORDS: embedded, MASK: mask})
        return found, mask


def mean(hidden: Floats, mask: NDArray[np.int32]) -> Floats:
    """Of each text's tokens: shape (texts, width)."""
    read = mask.astype(np.float32)
    averaged: Floats = (hidden * read[:, :, None]).sum(axis=1) / read.sum(axis=1, keepdims=True)
    return averaged
