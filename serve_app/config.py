"""The configuration tree: one typed, frozen object, checked before anything starts."""

import difflib
import ipaddress
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import Field, ValidationError, model_validator

from cache.config import CacheConfig, DatabaseUrl, Secret, Section, is_server
from deployments.channel.frames import MAX_PAYLOAD
from deployments.config import EmbeddingConfig, LlmConfig, RoutingConfig
from retrieval.config import RetrievalConfig
from serve_app.content.config import ContentConfig
from serve_app.errors import ConfigError
from serve_app.keyring.settings import Limits


class AuthConfig(Section):
    """Who may use the application."""

    mode: Literal["none", "keys"] = "none"
    """`keys`: whoever has a key, which `mygo keys` makes. `none`: everybody who can reach it, as the tenant that the header `x-mygo-tenant`
    names."""
    open_to_all: bool = False
    """Says a second time that there are to be no keys: without it, `none` is for loopback addresses only."""
    database_url: DatabaseUrl | None = None
    """SQLAlchemy URL of the keys' database. Default: `cache.database_url` if that is a server's, else an SQLite file in the data directory,
    which all ingress replicas must be able to open."""
    grace_s: Annotated[float, Field(ge=5)] = 60.0
    """How long keys that are known to a process are good while their database does not answer."""

    @model_validator(mode="after")
    def _is_open_without_keys_only(self) -> Self:
        if self.open_to_all and self.mode != "none":
            raise ValueError("open_to_all is for mode none")
        return self


class LimitsConfig(Section):
    """What a tenant may have, where nothing else is said of it (`mygo tenants change`). Unset: no limit."""

    requests_per_minute: Annotated[int, Field(ge=0)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=0)] | None = None
    """Of prompts and answers, as engines count them."""
    concurrency: Annotated[int, Field(ge=0)] | None = None
    """Requests that are answered at the same time."""
    queue: Annotated[int, Field(ge=0)] | None = None
    """Requests that wait for an engine at the same time."""

    def limits(self) -> Limits:
        return Limits(**self.model_dump())


class ContextsConfig(Section):
    """Beginnings of chats that are kept because it was asked for: `cache_control`, and `/v1/caching`."""

    enabled: bool = True
    database_url: DatabaseUrl | None = None
    """SQLAlchemy URL of what `/v1/caching` keeps. Default: `cache.database_url` if that is a server's, else an SQLite file in the data
    directory, which all ingress replicas must be able to open."""
    tokens: Annotated[int, Field(ge=0)] | None = 65_536
    """That a tenant may have kept at the same time, if nothing else is said of it (`mygo tenants change`). Unset: as many as the replicas
    have room for."""


class IngressConfig(Section):
    """The deployment that HTTP requests reach."""

    replicas: Annotated[int, Field(ge=1)] = 1
    """Processes that answer HTTP requests; each has a memory of exact answers of its own."""
    max_ongoing_requests: Annotated[int, Field(ge=1)] = 1000
    """Requests that one ingress replica has open at once; more wait in HAProxy, then get 503."""
    max_body_bytes: Annotated[int, Field(ge=1024, le=MAX_PAYLOAD // 4)] = MAX_PAYLOAD // 4
    """Written anew for the engine, a body may be four times as long: the private channel must be able to carry it."""
    first_token_timeout_s: Annotated[float, Field(gt=0)] = 300
    """From the moment when a streamed request is sent to an engine to the first token of its answer."""
    between_tokens_timeout_s: Annotated[float, Field(gt=0)] = 120
    """Between two tokens that an engine streams."""
    client_timeout_s: Annotated[float, Field(gt=0)] = 60
    """A client that takes nothing of its answer for so long is left."""
    total_timeout_s: Annotated[float, Field(gt=0)] = 1800
    """From a request's admission to the last byte of its answer, waiting for an engine included."""
    drain_timeout_s: Annotated[float, Field(gt=0)] = 120
    """How long an ingress replica that is to stop may finish its streams."""


class ModelCacheConfig(Section):
    """ModelCache's protocol: `POST /modelcache`, and the WebSocket of that path."""

    enabled: bool = True
    blocked_models: tuple[str, ...] = ()
    """Values of `scope.model` that are refused."""
    query_log: bool = True
    """Write the last million look-ups, with their questions, to the table `cache_queries`, which no route shows."""


class EmbeddingModelConfig(EmbeddingConfig):
    """The encoder, and the name that clients write in `model`."""

    name: str = "all-MiniLM-L6-v2"
    aliases: tuple[Annotated[str, Field(min_length=1, max_length=128)], ...] = ()
    """Other names that it answers to. Answers have its own."""

    @property
    def names(self) -> tuple[str, ...]:
        """All that clients may write."""
        return (self.name, *self.aliases)

    @model_validator(mode="after")
    def _has_each_name_once(self) -> Self:
        if len(set(self.names)) < len(self.names):
            raise ValueError("aliases must differ from each other and from name")
        return self


class AppConfig(Section):
    """What `serve_app.app:build` receives as `args`."""

    auth: AuthConfig = AuthConfig()
    limits: LimitsConfig = LimitsConfig()
    contexts: ContextsConfig = ContextsConfig()
    ingress: IngressConfig = IngressConfig()
    llm: LlmConfig = LlmConfig()
    routing: RoutingConfig = RoutingConfig()
    embedding: EmbeddingModelConfig = EmbeddingModelConfig()
    cache: CacheConfig = CacheConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    modelcache: ModelCacheConfig = ModelCacheConfig()
    content: ContentConfig = ContentConfig()
    data_dir: Path = Path("~/.local/share/mygo")
    """Where the embedded stores and the generated secret live."""
    environment: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")] = "production"
    """Environments share nothing, not even with one database, vector index and secret."""
    secret: Secret | None = None
    """Names tenants' namespaces and guards the replicas' private ports. Default: generated once, kept in `data_dir`."""

    def url_of(self, own: DatabaseUrl | None, file: str) -> str:
        """SQLAlchemy URL of the database that is configured for something: `own`, the cache's if that is a server's, or an SQLite file in
        the data directory. It holds the password, if there is one.
        """
        for url in (own, self.cache.database_url if is_server(self.cache.database_url) else None):
            if url is not None:
                return url.get_secret_value()
        return f"sqlite:///{self.data_dir.expanduser().absolute() / file}"


def load_config(args: dict[str, Any]) -> AppConfig:
    """The checked tree. Raises `ConfigError`, which names each bad key, what it got and what is allowed."""
    try:
        return AppConfig.model_validate(args)
    except ValidationError as error:
        raise ConfigError("\n".join(_describe(each) for each in error.errors())) from None


_SECRET_KEYS = {"secret", "database_url", "vector_url", "url", "env", "key"}


def _describe(error: Any) -> str:
    key = ".".join(_path(error["loc"])) or "args"
    if error["type"] == "extra_forbidden":
        known = _siblings(error["loc"])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        return f"{key}: unknown key; allowed here: {', '.join(known)}{meant}"
    got = "a secret" if any(part in _SECRET_KEYS for part in error["loc"]) else repr(_shown(error["input"]))
    if error["type"] == "tuple_type":
        return f"{key}: got {got[:200]}; {_a_list(error['input'])}"
    return f"{key}: got {got[:200]}; {reason(error)}"


def reason(error: Any) -> str:
    """Of an error of pydantic's, without what it puts before a check's own words."""
    message: str = error["msg"].removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def _a_list(got: Any) -> str:
    """What should be there instead of a value that is no list."""
    is_plain = isinstance(got, str | int | float) and got != ""
    return f"input should be a list, for example [{got if is_plain and len(str(got)) < 50 else 'a, b'}]"


def _shown(value: Any) -> Any:
    """A value without the secrets in it."""
    if isinstance(value, dict):
        return {key: "a secret" if key in _SECRET_KEYS else _shown(each) for key, each in value.items()}
    return [_shown(each) for each in value] if isinstance(value, list) else value


def _path(loc: tuple[str | int, ...]) -> list[str]:
    """The keys as they stand in the file: pydantic puts a union's tag among them, and `[key]` behind a bad one."""
    path: list[str] = []
    section: Any = AppConfig
    for part in loc:
        below = _step(section, str(part))
        if part != "[key]" and not _is_tag(section, str(part)):
            path.append(str(part))
        section = below
    return path


def _siblings(loc: tuple[str | int, ...]) -> list[str]:
    """The keys that the section of an unknown key has."""
    section: Any = AppConfig
    for part in loc[:-1]:
        section = _step(section, str(part))
    section = next((each for each in get_args(section) if hasattr(each, "model_fields")), section)  # a list's, or one that may be unset
    return sorted(getattr(section, "model_fields", {}))


def _step(section: Any, part: str) -> Any:
    """The type behind a key of a section, or behind the tag of a union."""
    if get_origin(section) in (tuple, UnionType) and _tag_of(get_args(section)[0]) is None:
        if part.isdigit():
            return get_args(section)[0]
        section = next((each for each in get_args(section) if hasattr(each, "model_fields")), section)
    fields = getattr(section, "model_fields", {})
    if part in fields:
        return fields[part].annotation
    if get_origin(section) is dict:
        return get_args(section)[1]
    return next((member for member in get_args(section) if _tag_of(member) == part), section)


def _is_tag(section: Any, part: str) -> bool:
    return any(_tag_of(member) == part for member in get_args(section))


def _tag_of(member: Any) -> Any:
    fields = getattr(member, "model_fields", {})
    return fields["type"].default if "type" in fields else None


def require_safe_exposure(config: AppConfig, http_host: str | None) -> None:
    """Without keys, only this machine may reach the application, unless that is said twice. Raises `ConfigError`."""
    if config.auth.mode == "none" and not config.auth.open_to_all and not is_loopback(http_host):
        raise ConfigError(
            f"http_options.host: got {http_host!r}; auth.mode none lets anyone in under any tenant's name, so it needs a loopback "
            "address (127.0.0.1); set auth.mode: keys, or say auth.open_to_all: true as well"
        )


def is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
