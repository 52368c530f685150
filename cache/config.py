"""Configuration of the cache tier, and the base class of every configuration section."""

import os
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator, model_validator

from cache.decision.account import Budget, BudgetOf
from cache.policy import Dialogue, Mode, Policy
from cache.stores.base import Quota

TENANT_NAME = r"^[A-Za-z0-9._@:-]{1,128}$"
DATABASES = ("sqlite:", "mysql+pymysql:", "mariadb+pymysql:")
VECTOR_INDEXES = ("faiss:", "memory:", "milvus:", "milvus-lite:", "http:", "https:")


class Section(BaseModel):
    """A frozen part of the configuration tree that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _from_environment(value: object) -> object:
    """What `env:NAME` stands for."""
    if not (isinstance(value, str) and value.startswith("env:")):
        return value
    name = value.removeprefix("env:")
    found = os.environ.get(name)
    if not found:
        named = name if name.isidentifier() and name.isupper() else "that it names"  # lest it be the secret itself
        raise ValueError(f"the environment variable {named} is not set, or empty, where the application is built")
    return found


Secret = Annotated[SecretStr, BeforeValidator(_from_environment)]
"""A string that is not printed, or `env:NAME` for the value of an environment variable."""


def _known_database(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(DATABASES):
        raise ValueError(f"it must begin with one of {', '.join(DATABASES)}")
    return url


DatabaseUrl = Annotated[Secret, AfterValidator(_known_database)]


def is_server(database: SecretStr | None) -> bool:
    """Not a file of this machine's, nor unset."""
    return database is not None and not database.get_secret_value().startswith("sqlite")


class ExactConfig(Section):
    """The exact tier: answers to the very same request, whatever the order of its keys."""

    enabled: bool = True
    max_bytes: Annotated[int, Field(ge=0)] = 64 * 1024 * 1024
    """Size limit of the in-process LRU of one ingress replica."""


class SemanticConfig(Section):
    """The semantic tier: answers to questions that mean the same."""

    enabled: bool = True
    """False: `off` for all tenants, whatever their own mode."""
    mode: Mode = "verified"
    """`verified`: within the error budget, learning from answers that are computed anew now and then. `static`: from
    `min_probability` on. `shadow`: decide and learn as in `verified`, but never serve. `off`: neither compare nor learn."""
    error_budget: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """The most that may be answered wrongly, as a share of `error_budget_of`."""
    error_budget_of: BudgetOf = "requests"
    """`requests` that reach the semantic tier, hits or not; or `hits`, which is stricter."""
    min_similarity: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Cosine below which a kept question is not looked at."""
    min_probability: Annotated[float, Field(gt=0, lt=1)] = 0.88
    """In mode `static`: the least that the verifier must give a kept answer for it to be served."""
    floor: Annotated[float, Field(gt=0, lt=1)] = 0.8
    """In the other modes: below it a kept answer is never served, whatever was learnt."""
    long_chars: Annotated[int, Field(ge=1)] = 256
    """Questions longer than this are not for the verifier, but compared by `long_similarity`."""
    long_similarity: Annotated[float, Field(gt=0, lt=1)] = 0.97
    """Cosine from which on a longer question may be served."""
    top_k: Annotated[int, Field(ge=1, le=100)] = 8
    """Kept questions that are looked at."""
    max_verified: Annotated[int, Field(ge=1, le=100)] = 3
    """Of those, the most that the verifier judges."""
    audit_share: Annotated[float, Field(ge=0, le=1)] = 0.02
    """Share of the hits whose answer is also computed anew, off the reply's path, to measure how many are wrong."""
    verifier: str = "packaged"
    """`packaged`: the project's own model (`cache/verifiers/model/README.md`), for English. `none`: the cosine decides. Or a directory or
    hub id of a cross-encoder."""
    dialogue: Dialogue = "last_turn"
    """`last_turn`: the last question may be worded otherwise, what was said before is equal. `summary`: what the user said in all turns
    is taken together, and may be worded otherwise; the model's own words do not count."""
    max_text_chars: Annotated[int, Field(ge=1)] = 8192
    """Longer questions are not looked up."""

    @model_validator(mode="after")
    def _verified_are_looked_at(self) -> Self:
        if self.max_verified > self.top_k:
            raise ValueError("max_verified must not be more than top_k, of which they are")
        return self

    def policy(self) -> Policy:
        return Policy(
            mode=self.mode if self.enabled else "off",
            budget=Budget(self.error_budget, self.error_budget_of),
            min_similarity=self.min_similarity,
            min_probability=self.min_probability,
            floor=self.floor,
            long_chars=self.long_chars,
            long_similarity=self.long_similarity,
            top_k=self.top_k,
            max_verified=self.max_verified,
            audit_share=self.audit_share,
        )


class QuotaConfig(Section):
    """The most that one tenant may keep; past it what saves least goes first. Unset: no limit but that of the whole store."""

    max_entries: Annotated[int, Field(ge=1)] | None = None
    max_bytes: Annotated[int, Field(ge=1)] | None = None
    """Of answers, questions and vectors. Kept within seconds, as is `max_entries`."""

    def quota(self) -> Quota:
        return Quota(self.max_entries, self.max_bytes)


class TenantConfig(Section):
    """What is otherwise for one tenant; unset: as for all. Keys as in `semantic`, `quota` and `cache`."""

    mode: Mode | None = None
    error_budget: Annotated[float, Field(gt=0, lt=1)] | None = None
    error_budget_of: BudgetOf | None = None
    min_similarity: Annotated[float, Field(ge=0, le=1)] | None = None
    min_probability: Annotated[float, Field(gt=0, lt=1)] | None = None
    floor: Annotated[float, Field(gt=0, lt=1)] | None = None
    audit_share: Annotated[float, Field(ge=0, le=1)] | None = None
    ttl_s: Annotated[float, Field(gt=0)] | None = None
    soft_ttl_s: Annotated[float, Field(gt=0)] | None = None
    max_entries: Annotated[int, Field(ge=1)] | None = None
    max_bytes: Annotated[int, Field(ge=1)] | None = None


class CacheConfig(Section):
    """Both tiers and what they share."""

    exact: ExactConfig = ExactConfig()
    semantic: SemanticConfig = SemanticConfig()
    single_flight: Literal["off", "process", "cluster"] = "cluster"
    """Where equal requests are computed once: nowhere, in each ingress process, or also across them. Needs `exact.enabled`. Where there is
    one ingress process before stores of its own, `cluster` is the same as `process`."""
    ttl_s: Annotated[float, Field(gt=0)] = 7 * 24 * 3600.0
    """Answers older than this are not served. A request may ask for less."""
    soft_ttl_s: Annotated[float, Field(gt=0)] | None = None
    """Answers older than this are served, and computed anew in the background. Unset: never."""
    quota: QuotaConfig = QuotaConfig()
    max_answer_bytes: Annotated[int, Field(ge=1, le=16 * 1024 * 1024 - 1)] = 1024 * 1024
    """Longer answers are not kept."""
    max_entries: Annotated[int, Field(ge=1)] = 100_000
    """Entries of all tenants in the store; past it what saves least goes first."""
    database_url: DatabaseUrl | None = None
    """SQLAlchemy URL, a secret because it holds a password. Default: an SQLite file in the data directory."""
    vector_url: Secret = SecretStr("faiss:")
    """Where the vectors are: `faiss:` in the cache's process, or `milvus://host:port`. They can be rebuilt from the database."""
    replicas: Annotated[int, Field(ge=1)] = 1
    """Processes that stand between the ingresses and the stores. More than one need stores of their own: a database server and Milvus."""
    tenants: dict[Annotated[str, Field(pattern=TENANT_NAME)], TenantConfig] = {}
    """By the tenant's name: what is otherwise for it. `default` is the tenant of requests that name none."""

    @field_validator("vector_url")
    @classmethod
    def _index_is_known(cls, url: SecretStr) -> SecretStr:
        if not url.get_secret_value().startswith(VECTOR_INDEXES):
            raise ValueError(f"it must begin with one of {', '.join(VECTOR_INDEXES)}")
        return url

    @model_validator(mode="after")
    def _answers_grow_old_before_they_end(self) -> Self:
        ages: list[tuple[str, CacheConfig]] = [("cache", self), *((f"cache.tenants.{name}", self.of(name)) for name in self.tenants)]
        for name, each in ages:
            if each.soft_ttl_s is not None and each.soft_ttl_s >= each.ttl_s:
                raise ValueError(f"{name}: soft_ttl_s must be less than ttl_s, or nothing ever reaches it")
        return self

    @model_validator(mode="after")
    def _replicas_share_their_stores(self) -> Self:
        vectors = self.vector_url.get_secret_value()
        embedded = not is_server(self.database_url) or vectors.startswith(("faiss:", "memory:", "milvus-lite:"))
        if self.replicas > 1 and embedded:
            raise ValueError("replicas must be 1 unless database_url names a database server and vector_url a Milvus server")
        return self

    def of(self, tenant: str) -> "CacheConfig":
        """What holds for one tenant."""
        own = self.tenants[tenant].model_dump(exclude_none=True) if tenant in self.tenants else {}
        ages = {key: value for key, value in own.items() if key in ("ttl_s", "soft_ttl_s")}
        return self.model_copy(update={**ages, "semantic": _changed(self.semantic, own), "quota": _changed(self.quota, own)})


def _changed(section: Section, values: dict[str, Any]) -> Section:
    """The section with those of the values that it has keys for."""
    return section.model_copy(update={key: value for key, value in values.items() if key in type(section).model_fields})
