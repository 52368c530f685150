"""A BERT encoder that runs."""

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import ctranslate2
import numpy as np
from numpy.typing import NDArray

from cache.bert.model_file import WORDS, Shape, Weights, write_model
from cache.bert.precision import Precision

Floats = NDArray[np.float32]


class BertNetwork:
    """Thread-safe: the cores that this process may use are shared by the calls that run at the same time.

    In float32 what it says of a text does not depend on those beside it. In int8 it may, by a rounding that falls otherwise: in one of
    fifty texts, and then the cosine with itself is 0.998 and more.
    """

    def __init__(self, weights: Weights, shape: Shape, precision: Precision = "float32", threads: int | None = None) -> None:
        """`threads`: of one call; None: all cores. Raises `KeyError`, `ValueError`, `OSError` and `RuntimeError`."""
        cores = len(os.sched_getaffinity(0))
        threads = threads or cores
        self._words = len(weights[WORDS])
        with TemporaryDirectory(prefix="mygo-bert-") as directory:  # files that it gets in memory it keeps there
            write_model(weights, shape, Path(directory))
            at_once = max(1, cores // threads)
            self._encoder = ctranslate2.Encoder(directory, compute_type=precision, inter_threads=at_once, intra_threads=threads)

    def hidden(self, texts: Sequence[Sequence[int]], token_types: Sequence[Sequence[int]] | None = None) -> list[Floats]:
        """What the last layer says of each text, shape (tokens, width).

        `texts`: the numbers of their tokens, none without one; `token_types`: each token's, 0 where not given. Raises `ValueError`.
        """
        if any(max(each) >= self._words for each in texts):  # it would read what lies behind them in memory
            raise ValueError("the tokenizer knows words that the model lacks")
        of_tokens = None if token_types is None else [list(each) for each in token_types]
        output = self._encoder.forward_batch([list(each) for each in texts], token_type_ids=of_tokens)
        hidden: Floats = np.asarray(output.last_hidden_state)
        return [hidden[row, : len(text)] for row, text in enumerate(texts)]
