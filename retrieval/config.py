"""Configuration of the retrieval tier."""

from typing import Annotated

from pydantic import Field

from cache.config import Section


class RetrievalConfig(Section):
    """Documents and their search."""

    enabled: bool = True
    chunk_tokens: Annotated[int, Field(ge=16)] = 200
    """Longest chunk, in tokens of the encoder."""
    chunk_overlap_tokens: Annotated[int, Field(ge=0)] = 30
    max_top_k: Annotated[int, Field(ge=1)] = 50
    max_document_bytes: Annotated[int, Field(ge=1)] = 8 * 1024 * 1024
