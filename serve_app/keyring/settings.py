"""What an administrator says of a key and of a tenant. The types are also the admin API's bodies."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from cache.config import TENANT_NAME
from retrieval.config import GROUP_NAME
from serve_app.errors import InvalidRequestError

Role = Literal["user", "admin"]
CacheUse = Literal["on", "exact", "off"]
Tenant = Annotated[str, Meta(pattern=TENANT_NAME.removesuffix("$") + r"\Z")]
Name = Annotated[str, Meta(max_length=255)]
Group = Annotated[str, Meta(pattern=GROUP_NAME.removesuffix("$") + r"\Z")]
Groups = Annotated[tuple[Group, ...], Meta(max_length=256)]
Count = Annotated[int, Meta(ge=0, le=10**12)]
DEFAULT_WEIGHT = 1.0


class Named(msgspec.Struct):
    """A tenant, as a path or a command names it."""

    name: Tenant


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """None: no limit here; those of the tenant and of the configuration hold as well. 0 lets nothing pass."""

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    """Of prompts and answers together, as engines count them; of prompts also what is cached."""
    concurrency: Count | None = None
    """Requests that are answered at the same time."""
    queue: Count | None = None
    """Requests that wait for an engine at the same time."""


class KeySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a key may do."""

    tenant: Tenant
    name: Name = ""
    """For people."""
    role: Role = "user"
    """`admin` may also use `/v1/admin`."""
    limits: Limits = Limits()
    models: Annotated[tuple[Name, ...], Meta(max_length=256)] | None = None
    """Names that it may ask for. None: all."""
    groups: Groups | None = None
    """Of its tenant's access groups, those whose documents it may reach. None: all of them."""
    cache: CacheUse = "on"
    """The most that its requests may have of the answer cache; a request may ask for less."""
    expires_at: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    """Seconds since the epoch."""


class TenantSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all keys of a tenant have together."""

    weight: Annotated[float, Meta(gt=0, le=1000)] = DEFAULT_WEIGHT
    """Its share of the engines when there is not enough for all, in relation to the others' weights."""
    limits: Limits = Limits()
    context_tokens: Count | None = None
    """Tokens of beginnings of chats that are kept at the same time because it was asked for. None: as configured."""
    groups: Groups = ()
    """Access groups that it is in, besides those of `retrieval.groups` in the configuration. A group is there once it is named."""


def changed(settings: KeySettings | TenantSettings, change: dict[str, Any]) -> dict[str, Any]:
    """The settings with some fields set anew; of `limits`, those that are given. To be checked yet.

    Raises `InvalidRequestError` for another tenant: what a key has kept would be out of its reach.
    """
    before: dict[str, Any] = msgspec.to_builtins(settings)
    if change.get("tenant", before.get("tenant")) != before.get("tenant"):
        raise InvalidRequestError("tenant cannot be changed: make a key for the other tenant.", param="tenant", code="invalid_value")
    limits = change.get("limits")
    if "limits" in change and limits is None:
        change = {**change, "limits": {}}
    elif isinstance(limits, dict):
        change = {**change, "limits": {**before["limits"], **limits}}
    return {**before, **change}


class KeyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A key as the store knows it, but for its hash. Times are seconds since the epoch."""

    id: str
    settings: KeySettings
    created_at: float
    rotated_at: float | None = None
    revoked_at: float | None = None
    last_used_at: float | None = None
    """To the minute."""

    def state(self, now: float) -> Literal["active", "revoked", "expired"]:
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.settings.expires_at is not None and self.settings.expires_at <= now else "active"


def shown(info: KeyInfo, now: float) -> dict[str, Any]:
    """A key, but for its text, which nobody knows."""
    times = {name: _whole(getattr(info, name)) for name in ("created_at", "rotated_at", "revoked_at", "last_used_at")}
    return {"id": info.id, "object": "key", "state": info.state(now), **msgspec.to_builtins(info.settings), **times}


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was done to a key or a tenant."""

    seq: int
    at: float
    actor: str
    """`key:ID` of an admin's key, or `shell:USER` for the command line."""
    action: str
    """For example `key.create`."""
    target: str
    """`key:ID` or `tenant:NAME`."""
    details: dict[str, Any]
    """What was set. Never a secret."""
