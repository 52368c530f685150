"""Who a request is from. Until there are keys, the tenant is a header, on loopback addresses only."""

import re
from dataclasses import dataclass
from functools import lru_cache

from starlette.datastructures import Headers

from cache.keys import namespace_of
from serve_app.errors import InvalidRequestError

TENANT_HEADER = "x-mygo-tenant"
DEFAULT_TENANT = "default"
MAX_REMEMBERED = 10_000
"""Tenants whose namespace is not computed anew for each request."""
_NAME = re.compile(r"[A-Za-z0-9._@:-]{1,128}\Z")


@dataclass(frozen=True, slots=True)
class Caller:
    """What a request's headers say."""

    request_id: str
    tenant: str | None
    no_store: bool = False
    no_cache: bool = False

    @property
    def name(self) -> str:
        """The tenant's name, also of a request that gives none."""
        return name_of(self.tenant)


def tenant_of(headers: Headers) -> str | None:
    """Raises `InvalidRequestError` when a request names two."""
    named = headers.getlist(TENANT_HEADER)
    if len(named) > 1:
        raise InvalidRequestError(f"The header {TENANT_HEADER} must be given once.", param=TENANT_HEADER)
    return named[0] if named else None


def caller_of(headers: Headers, request_id: str) -> Caller:
    """Raises `InvalidRequestError` when a request names two tenants."""
    directives = {part.strip().lower() for line in headers.getlist("cache-control") for part in line.split(",")}
    return Caller(request_id, tenant_of(headers), "no-store" in directives, "no-cache" in directives)


def name_of(tenant: str | None) -> str:
    return DEFAULT_TENANT if tenant is None else tenant


class Authenticator:
    """Turns a request's headers into its namespace: below this, nothing sees the tenant's name.

    Environments (production, staging, ...) that share stores and secret have namespaces of their own.
    """

    def __init__(self, secret: bytes, environment: str) -> None:
        self._secret = secret
        self._environment = environment
        self._known = lru_cache(MAX_REMEMBERED)(self._namespace)

    def namespace(self, tenant: str | None) -> str:
        """Raises `InvalidRequestError` for a name that is none."""
        return self._known(name_of(tenant))

    def group(self, name: str) -> str:
        """The namespace of what a group of tenants shares."""
        return namespace_of(self._secret, f"{self._environment}/group/{name}")

    def _namespace(self, name: str) -> str:
        if not _NAME.match(name):
            raise InvalidRequestError(
                f"The header {TENANT_HEADER} must have 1 to 128 letters, digits, or characters of . _ @ : -", param=TENANT_HEADER
            )
        return namespace_of(self._secret, f"{self._environment}/{name}")  # no name has a slash
