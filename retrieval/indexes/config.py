"""Configuration of chunk indexes."""

from typing import Annotated

from pydantic import Field, SecretStr, field_validator

from cache.config import Secret, Section
from retrieval.indexes.base import Kind

URLS = ("faiss:", "milvus:", "http:", "https:")


class IndexConfig(Section):
    """The index of each collection's vectors."""

    url: Secret = SecretStr("faiss:")
    """Where it is: `faiss:` in the retrieval's process, saved in the data directory, or `milvus://host:port` for more than one machine."""
    kind: Kind = "auto"
    """With `faiss:`. `flat`: all vectors are compared. `ivf`: those in the closest lists. `hnsw`: those that a walk through a graph
    meets, which takes much longer to make. `auto`: `flat` for small collections, `ivf` for others."""
    build_threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Threads that make the index of a large collection. A search has one."""

    @field_validator("url")
    @classmethod
    def _is_known(cls, url: SecretStr) -> SecretStr:
        if not url.get_secret_value().startswith(URLS):
            raise ValueError(f"it must begin with one of {', '.join(URLS)}")
        return url
