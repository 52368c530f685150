"""A whole retrieval tier with an encoder that a test can break, hold up, and look at."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cache.embedders.base import Embedder
from cache.embedders.fake import HashedWordsEmbedder
from cache.entry import Vectors
from retrieval.config import RetrievalConfig
from retrieval.documents import AttachedFile, Attachment, FileInfo, Page, SearchRequest
from retrieval.files import MAX_PART_BYTES
from retrieval.scopes import Scopes
from retrieval.service import RetrievalService
from retrieval.sources import FaissSource
from retrieval.store import DocumentStore
from retrieval.tier import RetrievalTier

NOW = 1_700_000_000.0
LONG = " ".join(f"word{i}" for i in range(2000))
"""A text of many chunks."""


class Encoder(HashedWordsEmbedder):
    """`before` is called with the texts before they are encoded."""

    max_tokens = 200

    def __init__(self) -> None:
        self.before: Callable[[Sequence[str]], None] = lambda texts: None
        self.encoded: list[str] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.before(texts)
        self.encoded += texts
        return super().embed(texts)


class QuickEncoder(Encoder):
    """Any two texts have different vectors; that is all it knows."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.before(texts)
        self.encoded += texts
        numbers = [int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) for text in texts]
        vectors = np.array([np.random.default_rng(number).standard_normal(8) for number in numbers], np.float32).reshape(-1, 8)
        unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        self.now += 0.001  # ids are in the order of their time
        return self.now


def make_tier(
    directory: Path,
    encoder: Encoder | None = None,
    clock: Callable[[], float] | None = None,
    pause: Callable[[float], object] | None = None,
    **config: Any,
) -> RetrievalTier:
    """`config`: of the section `retrieval`. Files are read when a test says `drain`."""
    encoder = encoder or Encoder()
    store = DocumentStore(f"sqlite:///{directory}/documents.db", encoder.name)
    settings = RetrievalConfig(**{"chunk_tokens": 16, "chunk_overlap_tokens": 4, **config})
    source = in_memory(settings, encoder)
    return RetrievalTier(store, encoder, settings, directory / "files", source, clock or Clock(), pause or (lambda seconds: None))


def in_memory(config: RetrievalConfig, encoder: Embedder) -> FaissSource:
    """Indexes that are saved nowhere."""
    return FaissSource(config.index, encoder.dimension, encoder.name)


def service_of(
    store: DocumentStore, encoder: Embedder, config: RetrievalConfig, new_store_id: Callable[[], str] | None = None
) -> RetrievalService:
    return RetrievalService(store, encoder, config, Scopes(store), in_memory(config, encoder), lambda: NOW, new_store_id)


def upload(tier: RetrievalTier, content: bytes, name: str = "a.txt", namespace: str = "a", purpose: str = "assistants") -> FileInfo:
    upload_id = tier.files.begin_upload(namespace, len(content))
    for offset in range(0, len(content), MAX_PART_BYTES):
        tier.files.append_upload(namespace, upload_id, offset, content[offset : offset + MAX_PART_BYTES])
    return tier.files.finish_upload(namespace, upload_id, name, purpose)


def attach(tier: RetrievalTier, store_id: str, content: str | bytes, name: str = "a.txt", **more: Any) -> str:
    """The id of a new file, which waits to be read."""
    file = upload(tier, content.encode() if isinstance(content, str) else content, name)
    tier.attachments.attach_file("a", store_id, Attachment(file.id, **more))
    return file.id


def drain(tier: RetrievalTier) -> None:
    while tier.ingest.step():
        pass


def attached(tier: RetrievalTier, store_id: str, file_id: str) -> AttachedFile:
    return tier.attachments.get_attached("a", store_id, file_id)


def found(tier: RetrievalTier, store_id: str, query: str = "word") -> list[str]:
    return [hit.chunk.text for hit in tier.service.search("a", SearchRequest([store_id], [query], 50)).hits]


def all_files(tier: RetrievalTier, store_id: str) -> list[AttachedFile]:
    return tier.attachments.list_attached("a", store_id, Page())
