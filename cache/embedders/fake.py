"""Hashed words: an embedder without a model."""

import hashlib
import re
import sys
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cache.entry import Vectors

DIMENSION = 256
WORD = re.compile(r"\w+")


class HashedWordsEmbedder:
    """Texts are as similar as the words that they share, whatever the words' order. The same in every process.

    Each word has a direction of its own, given by its hash; a text points to the sum of its words' directions.
    Unrelated words are nearly, not exactly, orthogonal: their cosine is within about 0.2 of 0.
    """

    @property
    def name(self) -> str:
        return "hashed-words@1"

    @property
    def dimension(self) -> int:
        return DIMENSION

    @property
    def max_tokens(self) -> int:
        return sys.maxsize

    def embed(self, texts: Sequence[str]) -> Vectors:
        return np.array([_direction(text) for text in texts], np.float32).reshape(-1, DIMENSION)

    def covers(self, texts: Sequence[str]) -> list[bool]:
        return [True] * len(texts)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(_words(text)) for text in texts]


def _words(text: str) -> list[str]:
    return WORD.findall(text.casefold())


def _direction(text: str) -> NDArray[np.float64]:
    # Integers until the end: their sum does not depend on the order of the words.
    total = np.zeros(DIMENSION, np.int64)
    for word, times in Counter(_words(text)).items():
        total += times * _signs(word)
    if not total.any():
        total[0] = 1  # no words: a unit vector like any other text's
    direction: NDArray[np.float64] = total / np.linalg.norm(total)
    return direction


def _signs(word: str) -> NDArray[np.int64]:
    """+1 or -1 in each dimension."""
    digest = hashlib.shake_256(word.encode("utf-8", "surrogatepass")).digest(DIMENSION // 8)
    return np.unpackbits(np.frombuffer(digest, np.uint8)).astype(np.int64) * 2 - 1
