"""Configuration of the retrieval tier."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from cache.config import Section


class RetrievalConfig(Section):
    """Documents and their search."""

    enabled: bool = True
    chunk_tokens: Annotated[int, Field(ge=16)] = 200
    """Longest chunk, in tokens of the encoder."""
    chunk_overlap_tokens: Annotated[int, Field(ge=0)] = 30
    """Most that two neighbouring chunks share; at most half of `chunk_tokens`."""
    max_displacement: Annotated[int, Field(ge=0)] = 4
    """How many places a document may be from its rank in the prompt, so that more of it is cached. 0: none."""
    tie: Annotated[float, Field(ge=0)] = 0.0
    """Hits whose scores differ by no more are equally relevant, and may always change places."""
    max_top_k: Annotated[int, Field(ge=1)] = 50
    max_document_bytes: Annotated[int, Field(ge=1)] = 8 * 1024 * 1024
    max_loaded_stores: Annotated[int, Field(ge=1)] = 64
    """Collections whose index is kept in memory; past it the least recently searched is dropped."""

    @model_validator(mode="after")
    def _overlap_leaves_room(self) -> Self:
        if 2 * self.chunk_overlap_tokens > self.chunk_tokens:
            allowed = f"at most half of chunk_tokens, which is {self.chunk_tokens}"
            raise ValueError(f"chunk_overlap_tokens is {self.chunk_overlap_tokens}; allowed: {allowed}")
        return self
