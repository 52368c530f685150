"""What a process remembers of keys: never longer than it may."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from serve_app.errors import AuthenticationError, KeyringError
from serve_app.keyring.secret import new_id, new_key
from serve_app.keyring.settings import KeySettings, Limits, TenantSettings
from serve_app.keyring.store import KeyStore, open_keyring
from serve_app.keyring.watch import Keyring

GRACE_S = 60.0
ADA = KeySettings(tenant="ada")


class Times:
    """A clock that both kinds of time follow."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Counting(KeyStore):
    """Counts its reads, and can be down."""

    reads = 0
    is_down = False

    def find(self, key_id: str) -> Any:
        self.reads += 1
        self._up()
        return super().find(key_id)

    def revision(self) -> int:
        self._up()
        return super().revision()

    def _up(self) -> None:
        if self.is_down:
            raise KeyringError("down")


@pytest.fixture
def times() -> Times:
    return Times()


@pytest.fixture
def store(tmp_path: Path) -> Counting:
    return Counting(open_keyring(f"sqlite:///{tmp_path}/keyring.db")._database)


@pytest.fixture
async def keyring(store: Counting, times: Times) -> AsyncIterator[Keyring]:
    keyring = Keyring(store, GRACE_S, times, times)
    yield keyring
    await keyring.close()


async def refused(keyring: Keyring, text: str) -> None:
    assert keyring.known(text) is None
    with pytest.raises(AuthenticationError) as caught:
        await keyring.principal(text)
    assert not text or text not in caught.value.message
    assert caught.value.code == "invalid_api_key"


async def test_a_key_says_what_its_request_may_do(keyring: Keyring, store: Counting) -> None:
    limits = Limits(queue=3)
    info, text = store.create(KeySettings(tenant="ada", role="admin", limits=limits, models=("m",), cache="off"), "a", 1.0)
    shared = store.change_tenant("ada", lambda now: msgspec.structs.replace(now, weight=4.0), "a", 1.0)
    principal = await keyring.principal(text)
    assert (principal.tenant, principal.key_id, principal.role, principal.cache) == ("ada", info.id, "admin", "off")
    assert (principal.limits, principal.shared, principal.models) == (limits, TenantSettings(weight=4.0), frozenset({"m"}))
    assert shared == principal.shared


async def test_a_known_key_is_not_read_again_nor_an_unknown_one(keyring: Keyring, store: Counting) -> None:
    _, text = store.create(ADA, "a", 1.0)
    first = await keyring.principal(text)
    assert keyring.known(text) is first is await keyring.principal(text)
    unknown = new_key(new_id())
    await refused(keyring, unknown)
    await refused(keyring, unknown)
    assert store.reads == 2
    for text in ("", "nonsense", "mygo_x_y", "é", "\udc80"):
        await refused(keyring, text)
    assert store.reads == 2


async def test_another_secret_of_the_same_key_is_none(keyring: Keyring, store: Counting) -> None:
    info, _ = store.create(ADA, "a", 1.0)
    await refused(keyring, new_key(info.id))


async def test_equal_keys_that_come_together_are_read_once(keyring: Keyring, store: Counting) -> None:
    _, text = store.create(ADA, "a", 1.0)
    principals = await asyncio.gather(*(keyring.principal(text) for _ in range(20)))
    assert len({principal.tenant for principal in principals}) == 1
    assert store.reads <= 2


async def test_a_change_is_seen_at_the_next_look(keyring: Keyring, store: Counting) -> None:
    info, text = store.create(ADA, "a", 1.0)
    late, early = new_key(new_id()), await keyring.principal(text)
    await refused(keyring, late)
    store.change_tenant("ada", lambda now: msgspec.structs.replace(now, weight=9.0), "a", 2.0)
    await keyring.look()
    changed = await keyring.principal(text)
    assert (changed.shared.weight, changed.stamp == early.stamp) == (9.0, False)
    store.revoke(info.id, "a", 3.0)
    await keyring.look()
    await refused(keyring, text)


async def test_one_that_was_unknown_can_be_made(keyring: Keyring, store: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    text = new_key("0123456789ab")
    await refused(keyring, text)
    monkeypatch.setattr("serve_app.keyring.secret.new_id", lambda: "0123456789ab")
    monkeypatch.setattr("serve_app.keyring.secret.new_key", lambda key_id: text)
    store.create(ADA, "a", 1.0)
    await refused(keyring, text)  # nobody has looked yet
    await keyring.look()
    assert (await keyring.principal(text)).tenant == "ada"


async def test_own_changes_hold_at_once(keyring: Keyring, store: Counting) -> None:
    info, text = store.create(ADA, "a", 1.0)
    await keyring.principal(text)
    await keyring.call(store.revoke, info.id, "a", 2.0)
    keyring.forget()
    await refused(keyring, text)


async def test_keys_expire_while_they_are_remembered(keyring: Keyring, store: Counting, times: Times) -> None:
    _, text = store.create(KeySettings(tenant="ada", expires_at=1010), "a", 1.0)
    assert (await keyring.principal(text)).tenant == "ada"
    times.now = 1010.0
    await refused(keyring, text)


async def test_after_a_rotation_both_texts_are_good_until_the_old_one_is_not(keyring: Keyring, store: Counting, times: Times) -> None:
    info, old = store.create(ADA, "a", 1.0)
    _, new = store.rotate(info.id, 5.0, "a", times.now)
    for text in (old, new):
        assert (await keyring.principal(text)).key_id == info.id
    times.now += 5.0
    await refused(keyring, old)
    assert (await keyring.principal(new)).key_id == info.id


async def test_while_the_database_is_down_known_keys_are_good_for_a_while(keyring: Keyring, store: Counting, times: Times) -> None:
    _, text = store.create(ADA, "a", 1.0)
    _, other = store.create(ADA, "a", 1.0)
    await keyring.principal(text)
    store.is_down = True
    with pytest.raises(KeyringError):
        await keyring.look()
    with pytest.raises(KeyringError):
        await keyring.principal(other)
    times.now += GRACE_S
    assert keyring.known(text) is not None
    times.now += 0.1
    assert keyring.known(text) is None
    with pytest.raises(KeyringError):
        await keyring.principal(text)
    store.is_down = False
    assert (await keyring.principal(text)).tenant == "ada"


async def test_a_database_that_hangs_is_not_waited_for(keyring: Keyring, store: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setattr("serve_app.keyring.watch.CALL_LIMIT_S", 0.05)
    hangs = threading.Event()
    monkeypatch.setattr(store, "revision", hangs.wait)
    with pytest.raises(KeyringError):
        await keyring.principal(new_key(new_id()))
    hangs.set()


async def test_what_is_read_while_a_change_is_made_is_not_remembered_for_long(
    keyring: Keyring, store: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is read, then revoked, and the look that sees it comes before what was read is remembered."""
    info, text = store.create(ADA, "a", 1.0)
    await keyring.look()
    find = store.find

    def slow(key_id: str) -> Any:
        found = find(key_id)
        store.revoke(info.id, "a", 2.0)
        return found

    monkeypatch.setattr(store, "find", slow)
    await keyring.principal(text)  # it was good when it was asked
    monkeypatch.setattr(store, "find", find)
    await keyring.look()
    await refused(keyring, text)


async def test_uses_are_noted_once_a_minute(keyring: Keyring, store: Counting, times: Times) -> None:
    info, text = store.create(ADA, "a", 1.0)
    await keyring.principal(text)
    await keyring.look()
    assert store.get(info.id).last_used_at is None
    times.now += 60.0
    keyring.known(text)
    await keyring.look()
    assert store.get(info.id).last_used_at == times.now
    assert keyring.known(text) is not None  # a use is no change


async def test_more_keys_than_are_remembered(keyring: Keyring, store: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.keyring.watch.MAX_REMEMBERED", 2)
    texts = [store.create(ADA, "a", 1.0)[1] for _ in range(3)]
    for text in texts:
        await keyring.principal(text)
    assert [keyring.known(text) is not None for text in texts] == [False, True, True]
