"""Who a request is from, by its headers."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from serve_app.door import Door, KeyDoor, OpenDoor, RawHeaders
from serve_app.errors import ApiError, AuthenticationError, ForbiddenError, InvalidRequestError
from serve_app.keyring.settings import KeySettings
from serve_app.keyring.store import open_keyring
from serve_app.keyring.watch import Keyring
from serve_app.tenants import DEFAULT_TENANT, Principal


@pytest.fixture
async def keyring(tmp_path: Path) -> AsyncIterator[Keyring]:
    keyring = Keyring(open_keyring(f"sqlite:///{tmp_path}/keyring.db"), 60.0)
    yield keyring
    await keyring.close()


@pytest.fixture
def key(keyring: Keyring) -> bytes:
    return keyring.store.create(KeySettings(tenant="ada"), "a", 1.0)[1].encode()


async def both(door: Door, headers: RawHeaders) -> Principal:
    """What both ways say."""
    principal = await door.principal(headers)
    assert door.at_once(dict(headers)) == principal
    return principal


async def refusal(door: Door, headers: RawHeaders) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await door.principal(headers)
    return caught.value


async def test_without_keys_the_tenant_is_who_is_named() -> None:
    assert (await both(OpenDoor(), [])).tenant == DEFAULT_TENANT
    assert await both(OpenDoor(), [(b"x-mygo-tenant", b"ada"), (b"authorization", b"Bearer anything")]) == Principal("ada")


@pytest.mark.parametrize("headers", [[(b"x-mygo-tenant", b"a/b")], [(b"x-mygo-tenant", b"")], [(b"x-mygo-tenant", b"a")] * 2])
async def test_without_keys_a_name_that_is_none_is_refused(headers: RawHeaders) -> None:
    assert isinstance(await refusal(OpenDoor(), headers), InvalidRequestError)


@pytest.mark.parametrize("form", [b"Bearer %s", b"bearer %s", b"BEARER  %s "])
async def test_a_key_is_read_as_openai_sends_it(keyring: Keyring, key: bytes, form: bytes) -> None:
    assert (await both(KeyDoor(keyring), [(b"authorization", form % key)])).tenant == "ada"


async def test_a_key_is_read_as_anthropic_sends_it(keyring: Keyring, key: bytes) -> None:
    assert (await both(KeyDoor(keyring), [(b"x-api-key", key)])).tenant == "ada"
    assert (await both(KeyDoor(keyring), [(b"x-api-key", key), (b"authorization", b"Bearer " + key)])).tenant == "ada"


async def test_what_is_not_known_yet_is_not_known_at_once(keyring: Keyring, key: bytes) -> None:
    door = KeyDoor(keyring)
    assert door.at_once({b"x-api-key": key}) is None
    await door.principal([(b"x-api-key", key)])
    assert door.at_once({b"x-api-key": key}) is not None


async def test_a_key_is_of_one_tenant(keyring: Keyring, key: bytes) -> None:
    door = KeyDoor(keyring)
    assert (await both(door, [(b"x-api-key", key), (b"x-mygo-tenant", b"ada")])).tenant == "ada"
    assert isinstance(await refusal(door, [(b"x-api-key", key), (b"x-mygo-tenant", b"bob")]), ForbiddenError)
    with pytest.raises(ForbiddenError):
        door.at_once({b"x-api-key": key, b"x-mygo-tenant": b"bob"})


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"x-mygo-tenant", b"ada")],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Basic YTpi")],
        [(b"authorization", b"Bearer \xff\xfe")],
        [(b"x-api-key", b"")],
        [(b"x-api-key", b"a"), (b"authorization", b"Bearer b")],
    ],
)
async def test_who_has_no_key_is_not_let_in(keyring: Keyring, headers: RawHeaders) -> None:
    error = await refusal(KeyDoor(keyring), headers)
    assert isinstance(error, AuthenticationError)
    assert error.headers["www-authenticate"] == "Bearer"


async def test_two_keys_are_none(keyring: Keyring, key: bytes) -> None:
    assert isinstance(await refusal(KeyDoor(keyring), [(b"authorization", b"Bearer " + key)] * 2), InvalidRequestError)
