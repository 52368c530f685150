"""A BERT encoder that runs."""

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import ctranslate2
import numpy as np
from numpy.typing import NDArray

from cache.bert.model_file import Shape, Weights, write_model
from cache.bert.precision import Precision

Floats = NDArray[np.float32]


class BertNetwork:
    """Thread-safe: as many calls as there are cores run at the same time. What it says of a text does not depend on those beside it."""

    def __init__(self, weights: Weights, shape: Shape, precision: Precision = "float32", threads: int | None = None) -> None:
        """`threads`: of one call; None: as many as there are cores."""
        cores = os.cpu_count() or 1
        with TemporaryDirectory(prefix="mygo-bert-") as directory:  # files that it gets in memory it keeps there
            write_model(weights, shape, Path(directory))
            self._encoder = ctranslate2.Encoder(directory, compute_type=precision, inter_threads=cores, intra_threads=threads or cores)

    def hidden(self, texts: Sequence[Sequence[int]], token_types: Sequence[Sequence[int]] | None = None) -> list[Floats]:
        """What the last layer says of each text, shape (tokens, width).

        `texts`: the numbers of their tokens, none without one; `token_types`: each token's, 0 where they are not given.
        """
        of_tokens = None if token_types is None else [list(each) for each in token_types]
        output = self._encoder.forward_batch([list(each) for each in texts], token_type_ids=of_tokens)
        hidden: Floats = np.asarray(output.last_hidden_state)
        return [hidden[row, : len(text)] for row, text in enumerate(texts)]
