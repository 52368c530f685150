"""Configuration of the retrieval tier."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from cache.config import TENANT_NAME, Section
from retrieval.indexes.config import IndexConfig
from retrieval.result_cache import ResultCacheConfig

GROUP_NAME = r"^[A-Za-z0-9._-]{1,64}$"
GroupName = Annotated[str, Field(pattern=GROUP_NAME)]
TenantNames = Annotated[tuple[Annotated[str, Field(pattern=TENANT_NAME)], ...], Field(min_length=1)]


class FilesConfig(Section):
    """Uploaded files, and how they are read into collections."""

    max_bytes: Annotated[int, Field(ge=1, le=2**40)] = 64 * 1024 * 1024
    """Longest file."""
    max_tenant_bytes: Annotated[int, Field(ge=1)] = 16 * 1024 * 1024 * 1024
    """All files of one tenant; equal ones count each."""
    max_uploads: Annotated[int, Field(ge=1)] = 64
    """Uploads that are under way at once; one tenant's are at most half of them (`retrieval.sharing`)."""
    upload_timeout_s: Annotated[float, Field(gt=0)] = 60
    """An upload that is silent for so long is dropped."""
    max_text_bytes: Annotated[int, Field(ge=1)] = 16 * 1024 * 1024
    """Longest text of a file, in UTF-8."""
    max_pages: Annotated[int, Field(ge=1)] = 5000
    """Of a PDF."""
    parse_timeout_s: Annotated[float, Field(ge=1)] = 60
    """How long reading one file may take."""
    parse_memory_bytes: Annotated[int, Field(ge=2**28)] = 2**30
    """How much memory reading one file may take."""
    ingest_threads: Annotated[int, Field(ge=1, le=64)] = 2
    """Files that are read, cut and encoded at once."""
    max_waiting: Annotated[int, Field(ge=1)] = 20_000
    """Files that wait to be read; more are refused. One tenant's are at most half of them (`retrieval.sharing`)."""


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
    """Longest text that a request may bring; files have a limit of their own."""
    max_loaded_stores: Annotated[int, Field(ge=1)] = 64
    """Collections whose index is kept open; past it the least recently searched is dropped. A million chunks of 384 components take 0.5 to
    0.7 GB of memory, most of it mapped from files, and 2 GB on disk; while an index is made anew, twice that."""
    max_text_bytes: Annotated[int, Field(ge=0)] = 64 * 1024 * 1024
    """Texts of chunks that were found lately, kept in memory."""
    index: IndexConfig = IndexConfig()
    result_cache: ResultCacheConfig = ResultCacheConfig()
    files: FilesConfig = FilesConfig()
    groups: dict[GroupName, TenantNames] = Field(default_factory=dict)
    """By name: the tenants that share the collections which a member has made for the group. With keys, a tenant's settings may put it into
    more of them, and a key may reach fewer."""

    @model_validator(mode="after")
    def _overlap_leaves_room(self) -> Self:
        if 2 * self.chunk_overlap_tokens > self.chunk_tokens:
            allowed = f"at most half of chunk_tokens, which is {self.chunk_tokens}"
            raise ValueError(f"chunk_overlap_tokens is {self.chunk_overlap_tokens}; allowed: {allowed}")
        return self
