"""Configuration of the cache tier, and the base class of every configuration section."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class Section(BaseModel):
    """A frozen part of the configuration tree that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ExactConfig(Section):
    """The exact tier: answers of byte-identical requests."""

    enabled: bool = True
    max_bytes: Annotated[int, Field(ge=0)] = 64 * 1024 * 1024
    """Size limit of the in-process LRU of one ingress replica, in bytes of answers."""


class SemanticConfig(Section):
    """The semantic tier, first form: one cosine threshold."""

    enabled: bool = True
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.95
    top_k: Annotated[int, Field(ge=1, le=100)] = 5
    max_text_chars: Annotated[int, Field(ge=1)] = 8192
    """Longer questions are not looked up: one vector says too little about them."""


class CacheConfig(Section):
    """Both tiers and what they share."""

    exact: ExactConfig = ExactConfig()
    semantic: SemanticConfig = SemanticConfig()
    ttl_s: Annotated[float, Field(gt=0)] = 7 * 24 * 3600.0
    max_answer_bytes: Annotated[int, Field(ge=1, le=16 * 1024 * 1024 - 1)] = 1024 * 1024
    """Longer answers are not kept."""
    max_entries: Annotated[int, Field(ge=1)] = 100_000
    """Entries in the store; past it the least recently used go first."""
    database_url: SecretStr | None = None
    """SQLAlchemy URL, a secret because it holds a password. Default: an SQLite file in the data directory."""
