"""Tells who a request is from: by its key, or, where there are none, by the tenant that it names."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from serve_app.errors import AuthenticationError, ForbiddenError, InvalidRequestError
from serve_app.keyring.watch import Keyring
from serve_app.tenants import TENANT_HEADER, Principal, check_name

RawHeaders = Sequence[tuple[bytes, bytes]]
"""As ASGI gives them: names in lower case."""
_TENANT = TENANT_HEADER.encode()
_AUTHORIZATION = b"authorization"
_API_KEY = b"x-api-key"
_BEARER = b"bearer "


class Door(Protocol):
    """One for each ingress replica."""

    def at_once(self, headers: Mapping[bytes, bytes]) -> Principal | None:
        """Who it is, if that is known without waiting; None: `principal` knows more. `headers`: none of them stood twice.

        May raise as `principal` does.
        """

    async def principal(self, headers: RawHeaders) -> Principal:
        """Raises `AuthenticationError`, `ForbiddenError`, `InvalidRequestError`, and `KeyringError`."""


class OpenDoor:
    """Lets everybody in, under the name that they give."""

    def at_once(self, headers: Mapping[bytes, bytes]) -> Principal | None:
        named = headers.get(_TENANT)
        return _STRANGER if named is None else Principal(check_name(named.decode("latin-1")))

    async def principal(self, headers: RawHeaders) -> Principal:
        named = _one(headers, _TENANT)
        return _STRANGER if named is None else Principal(check_name(named.decode("latin-1")))


class KeyDoor:
    """Lets in who has a key: `Authorization: Bearer KEY`, or `x-api-key: KEY`, as Anthropic's clients send it."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def at_once(self, headers: Mapping[bytes, bytes]) -> Principal | None:
        text = _key_in(headers.get(_AUTHORIZATION), headers.get(_API_KEY))
        found = self._keyring.known(text)
        return found and _as_named(found, headers.get(_TENANT))

    async def principal(self, headers: RawHeaders) -> Principal:
        text = _key_in(_one(headers, _AUTHORIZATION), _one(headers, _API_KEY))
        return _as_named(await self._keyring.principal(text), _one(headers, _TENANT))


def door_of(keyring: Keyring | None) -> Door:
    """`keyring`: None where there are no keys."""
    return KeyDoor(keyring) if keyring else OpenDoor()


_STRANGER = Principal()


def _one(headers: RawHeaders, name: bytes) -> bytes | None:
    """Raises `InvalidRequestError` for a header that stands twice."""
    found = [value for each, value in headers if each == name]
    if len(found) > 1:
        raise InvalidRequestError(f"The header {name.decode()} must be given once.", param=name.decode())
    return found[0] if found else None


def _key_in(authorization: bytes | None, api_key: bytes | None) -> str:
    """Raises `AuthenticationError`."""
    if authorization is None and api_key is None:
        raise AuthenticationError("A key is needed: send the header Authorization: Bearer KEY.", code="missing_api_key")
    given = set()
    if authorization is not None:
        if authorization[: len(_BEARER)].lower() != _BEARER:
            raise AuthenticationError("The header Authorization must be: Bearer KEY.", code="invalid_api_key")
        given.add(authorization[len(_BEARER) :].strip())
    if api_key is not None:
        given.add(api_key.strip())
    if len(given) > 1:
        raise AuthenticationError("The headers Authorization and x-api-key give different keys.", code="invalid_api_key")
    return given.pop().decode("latin-1")


def _as_named(principal: Principal, named: bytes | None) -> Principal:
    """A key is of one tenant; the header may say so too, as clients of a server without keys do."""
    if named is not None and named.decode("latin-1") != principal.tenant:
        raise ForbiddenError(f"The header {TENANT_HEADER} names another tenant than the key's.", code="other_tenant")
    return principal
