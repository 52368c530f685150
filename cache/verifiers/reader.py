"""Pairs of texts as the packaged verifier's network takes them in."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from tokenizers import Encoding, Tokenizer

from cache.embedders.sources import PACKAGED, locate

MAX_TOKENS = 128
"""Of a pair, special tokens included. Longer pairs are not judged: nothing was learnt on them, and they would take too long."""
WORDS, MASK, SEGMENTS = "words", "mask", "segments"
"""The network's inputs."""
_EMBEDDINGS = "embeddings.word_embeddings.weight"


class Reader:
    """The tokenizer and the word embeddings of the packaged sentence encoder. Thread-safe."""

    def __init__(self, truncates: bool = False) -> None:
        """`truncates`: to `MAX_TOKENS`. Raises `EmbedderError`, or what files and tokenizers raise."""
        directory = locate(PACKAGED)
        self._tokenizer: Tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self._tokenizer.no_padding()
        if truncates:
            self._tokenizer.enable_truncation(MAX_TOKENS)
        else:
            self._tokenizer.no_truncation()
        with safe_open(str(directory / "model.safetensors"), "np") as tensors:
            self._embeddings: NDArray[np.float32] = tensors.get_tensor(_EMBEDDINGS)
        self._unknown = self._tokenizer.token_to_id("[UNK]")

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

    def words(self, pair: Encoding) -> NDArray[np.float32]:
        """The words' embeddings, shape (tokens, width)."""
        embedded: NDArray[np.float32] = self._embeddings[pair.ids]
        return embedded

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
