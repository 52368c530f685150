"""Pairs of texts as the packaged verifier's network takes them in."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from tokenizers import Encoding, Tokenizer

from cache.bert import model_file
from cache.embedders.sources import PACKAGED, locate

MAX_TOKENS = 128
"""Of a pair, special tokens included. Longer pairs are not judged: nothing was learnt on them, and they would take too long."""
WORDS, MASK, SEGMENTS = "words", "mask", "segments"
"""The network's inputs."""


def word_embeddings() -> NDArray[np.float32]:
    """Those of the packaged sentence encoder, read from its file: shape (words, width)."""
    with safe_open(str(locate(PACKAGED) / "model.safetensors"), "np") as tensors:
        read: NDArray[np.float32] = tensors.get_tensor(model_file.WORDS)
    return read


class Reader:
    """The tokenizer of the packaged sentence encoder, and for training its word embeddings. Thread-safe."""

    def __init__(self, truncates: bool = False) -> None:
        """`truncates`: to `MAX_TOKENS`. Raises `EmbedderError`, or what files and tokenizers raise."""
        directory = locate(PACKAGED)
        self._tokenizer: Tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self._tokenizer.no_padding()
        if truncates:
            self._tokenizer.enable_truncation(MAX_TOKENS)
        else:
            self._tokenizer.no_truncation()
        self._unknown = self._tokenizer.token_to_id("[UNK]")

    @cached_property
    def _embeddings(self) -> NDArray[np.float32]:
        return word_embeddings()

    @property
    def width(self) -> int:
        """Of a word's embedding."""
        return int(self._embeddings.shape[1])

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[Encoding]:
        """`[CLS] a [SEP] b [SEP]` of each pair."""
        return self._tokenizer.encode_batch([tuple(pair) for pair in pairs])

    def knows(self, pair: Encoding) -> bool:
        """Whether the pair is short enough, and has no character that the vocabulary lacks."""
        return len(pair.ids) <= MAX_TOKENS and self._unknown not in pair.ids

    def batch(self, pairs: Sequence[Encoding]) -> dict[str, NDArray[np.float32] | NDArray[np.int64]]:
        """`WORDS`, float32 of shape (pairs, tokens, width); `MASK` and `SEGMENTS`, int64 of shape (pairs, tokens); 0 behind the end."""
        shape = len(pairs), max(len(pair.ids) for pair in pairs)
        words = np.zeros((*shape, self.width), np.float32)
        mask, segments = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, pair in enumerate(pairs):
            end = len(pair.ids)
            words[row, :end] = self._embeddings[pair.ids]
            mask[row, :end] = 1
            segments[row, :end] = pair.type_ids
        return {WORDS: words, MASK: mask, SEGMENTS: segments}
