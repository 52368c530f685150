"""The contract of embedders: texts to unit vectors."""

from collections.abc import Sequence
from typing import Protocol

from cache.entry import Vectors


class Embedder(Protocol):
    """Turns texts into unit vectors. Thread-safe; calls may block for milliseconds; may raise `EmbedderError`.

    Texts may have millions of characters: no model's tokenizer is to get them whole (`cache.embedders.pieces`).
    """

    @property
    def name(self) -> str:
        """Identifies model and revision: vectors of different names must not be compared."""

    @property
    def dimension(self) -> int:
        """Length of every vector."""

    @property
    def max_tokens(self) -> int:
        """Longest text that a vector stands for, in tokens without special ones; the rest is cut off."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, shape (len(texts), dimension), float32, in the order of the texts."""

    def covers(self, texts: Sequence[str]) -> list[bool]:
        """Whether each vector stands for its whole text: nothing was cut off, and no character was unknown."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has for this model, before truncation and without special tokens.

        A word of more than `cache.embedders.pieces.MAX_PIECE_CHARS` characters counts as several.
        """
