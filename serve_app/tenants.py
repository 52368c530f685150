"""Who a request is from, as the rest of the application sees it, and the namespaces that tenants' names become."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from starlette.datastructures import Headers

from cache.keys import namespace_of
from retrieval.scopes import Access
from retrieval.scopes import Caller as DocumentCaller
from serve_app.errors import ForbiddenError, InvalidRequestError
from serve_app.keyring.settings import CacheUse, Limits, Role, TenantSettings

TENANT_HEADER = "x-mygo-tenant"
MAX_WAIT_HEADER = "x-mygo-max-wait"
DEFAULT_TENANT = "default"
MAX_REMEMBERED = 10_000
"""Tenants whose namespace is not computed anew for each request."""
NO_GROUPS: Mapping[str, Iterable[str]] = {}
_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?\Z")
_NAME = re.compile(r"[A-Za-z0-9._@:-]{1,128}\Z")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a request is from, and what it may do."""

    tenant: str = DEFAULT_TENANT
    key_id: str = ""
    """Empty where there are no keys."""
    role: Role = "user"
    models: frozenset[str] | None = None
    """Names that it may ask for. None: all."""
    groups: frozenset[str] | None = None
    """Of its tenant's access groups, those that it may reach. None: all."""
    cache: CacheUse = "on"
    limits: Limits = Limits()  # noqa: RUF009  # frozen
    """The key's own."""
    shared: TenantSettings = TenantSettings()  # noqa: RUF009  # frozen
    """What all of the tenant's keys have together."""
    stamp: int = 0
    """Another one whenever something of this may have changed: what is remembered of an older one is not to be used."""

    def may_ask(self, model: str) -> bool:
        return self.models is None or model in self.models

    def require_cache(self) -> None:
        """For what shows or changes the answers that are kept for all of the tenant's keys. Raises `ForbiddenError`."""
        if self.cache != "on" or self.groups is not None:
            raise ForbiddenError("This key may not see or change all that is kept for its tenant.", code="cache_not_allowed")

    def require_admin(self) -> None:
        """Raises `ForbiddenError`."""
        if self.role != "admin":
            raise ForbiddenError("This is for keys with the role admin.", code="admin_required")


@dataclass(frozen=True, slots=True)
class Caller:
    """What a request's headers say."""

    request_id: str
    principal: Principal = Principal()  # frozen
    no_store: bool = False
    no_cache: bool = False
    max_wait_s: float | None = None
    """It is not worth its while to wait for an engine for longer."""

    @property
    def tenant(self) -> str:
        return self.principal.tenant


def caller_of(headers: Headers, request_id: str, principal: Principal) -> Caller:
    """Raises `InvalidRequestError`."""
    directives = {part.strip().lower() for line in headers.getlist("cache-control") for part in line.split(",")}
    return Caller(request_id, principal, "no-store" in directives, "no-cache" in directives, _seconds(headers.get(MAX_WAIT_HEADER)))


def _seconds(given: str | None) -> float | None:
    if given is None:
        return None
    if not _SECONDS.match(given):
        raise InvalidRequestError(f"The header {MAX_WAIT_HEADER} must be a number of seconds.", param=MAX_WAIT_HEADER)
    return float(given)


def check_name(name: str) -> str:
    """A tenant's name. Raises `InvalidRequestError` for one that is none, without repeating it."""
    if not _NAME.match(name):
        raise InvalidRequestError(
            f"The header {TENANT_HEADER} must have 1 to 128 letters, digits, or characters of . _ @ : -", param=TENANT_HEADER
        )
    return name


def name_of(tenant: str | None) -> str:
    """The tenant's name, also of a request that gives none."""
    return DEFAULT_TENANT if tenant is None else tenant


class Namespaces:
    """Turns tenants' names into namespaces: below this, nothing sees a name.

    Environments (production, staging, ...) that share stores and secret have namespaces of their own.
    """

    def __init__(self, secret: bytes, environment: str, groups: Mapping[str, Iterable[str]] = NO_GROUPS) -> None:
        """`groups`: access groups by name, with the names of the tenants that the configuration puts into them."""
        self._secret = secret
        self._environment = environment
        self._known = lru_cache(MAX_REMEMBERED)(self._namespace)
        self._known_groups = lru_cache(MAX_REMEMBERED)(self._group)
        self._groups_of: dict[str, set[str]] = {}
        for name, members in groups.items():
            for member in members:
                self._groups_of.setdefault(member, set()).add(name)

    def of(self, name: str) -> str:
        """A tenant's. Raises `InvalidRequestError` for a name that is none."""
        return self._known(name)

    def reach(self, principal: Principal) -> DocumentCaller:
        """Whose documents a request may use: its tenant's own, and those of the tenant's groups, as far as its key may reach them.

        A tenant is in the groups that its settings or the configuration name; a key may narrow that, and never widens it.
        """
        names = self._groups_of.get(principal.tenant, set()).union(principal.shared.groups)
        if principal.groups is not None:
            names &= principal.groups
        namespace = self.of(principal.tenant)
        return Access(namespace, {name: self.group(name) for name in sorted(names)}) if names else namespace

    def group(self, name: str) -> str:
        """The namespace of what a group of tenants shares."""
        return self._known_groups(name)

    def _group(self, name: str) -> str:
        return namespace_of(self._secret, f"{self._environment}/group/{name}")

    def _namespace(self, name: str) -> str:
        return namespace_of(self._secret, f"{self._environment}/{check_name(name)}")  # no name has a slash
