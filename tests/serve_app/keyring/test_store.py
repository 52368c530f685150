"""Keys and tenants in SQL, on SQLite and MariaDB, and what is written down of every change."""

import threading
from typing import Any

import msgspec
import pytest

from serve_app.errors import InvalidRequestError, NotFoundError
from serve_app.keyring.secret import digest, id_of
from serve_app.keyring.settings import KeySettings, Limits, TenantSettings, changed
from serve_app.keyring.store import KeyStore

ADA = KeySettings(tenant="ada", name="laptop", limits=Limits(concurrency=2), models=("m", "n"), cache="exact", expires_at=99)


def to(**change: Any) -> Any:
    return lambda now: msgspec.convert(changed(now, change), type(now))


def test_a_key_is_found_as_it_was_made_and_only_its_hash_is_kept(store: KeyStore) -> None:
    info, text = store.create(ADA, "shell:root", 1.5)
    found = store.find(info.id)
    assert found is not None
    known, shared = found
    assert (known.info, known.digest, known.old_digest, shared) == (info, digest(text), None, TenantSettings())
    assert (info.settings, info.created_at, id_of(text)) == (ADA, 1.5, info.id)
    with store._database.read() as connection:
        for table in ("keyring_keys", "keyring_audit"):
            assert text not in str(connection.exec_driver_sql(f"SELECT * FROM {table}").all())  # noqa: S608


def test_no_key_no_tenant(store: KeyStore) -> None:
    assert store.find("000000000000") is None
    assert store.tenant("ada") == TenantSettings()
    for call in (store.get, lambda key_id: store.revoke(key_id, "a", 1.0), lambda key_id: store.rotate(key_id, 0, "a", 1.0)):
        with pytest.raises(NotFoundError):
            call("000000000000")
    assert (store.revision(), store.audit(None, 10), store.keys(None, "", 10)) == (0, [], [])


def test_a_rotated_key_has_a_new_text_and_keeps_the_old_one_for_a_while(store: KeyStore) -> None:
    info, old = store.create(ADA, "a", 1.0)
    rotated, new = store.rotate(info.id, 60.0, "a", 10.0)
    known = store.find(info.id)
    assert known is not None
    assert (known[0].digest, known[0].old_digest, known[0].old_until) == (digest(new), digest(old), 70.0)
    assert (rotated.id, rotated.rotated_at, rotated.settings) == (info.id, 10.0, ADA)


def test_a_revoked_key_stays_so(store: KeyStore) -> None:
    info, _ = store.create(ADA, "a", 1.0)
    assert store.revoke(info.id, "a", 5.0).revoked_at == 5.0
    assert store.revoke(info.id, "a", 9.0).revoked_at == 5.0
    with pytest.raises(NotFoundError):
        store.rotate(info.id, 0.0, "a", 9.0)
    assert [record.action for record in store.audit(None, 10)] == ["key.revoke", "key.create"]


def test_of_settings_only_what_is_given_is_changed(store: KeyStore) -> None:
    info, _ = store.create(ADA, "a", 1.0)
    after = store.change(info.id, to(role="admin", limits={"queue": 7}, models=None), "b", 2.0)
    expected = msgspec.structs.replace(ADA, role="admin", limits=Limits(concurrency=2, queue=7), models=None)
    assert after.settings == expected == store.get(info.id).settings
    assert store.audit(None, 1)[0].details == {"role": "admin", "models": None, "limits": {**msgspec.to_builtins(expected.limits)}}
    assert store.change(info.id, to(limits=None), "b", 3.0).settings.limits == Limits()
    with pytest.raises(InvalidRequestError):
        store.change(info.id, to(tenant="bob"), "b", 4.0)
    assert len(store.audit(None, 10)) == 3  # nothing was noted of what was refused


def test_a_tenants_settings_are_its_keys_too(store: KeyStore) -> None:
    info, _ = store.create(ADA, "a", 1.0)
    assert store.change_tenant("ada", to(weight=2.5), "b", 2.0) == TenantSettings(weight=2.5)
    settings = store.change_tenant("ada", to(limits={"requests_per_minute": 10}), "b", 3.0)
    assert settings == TenantSettings(weight=2.5, limits=Limits(requests_per_minute=10))
    found = store.find(info.id)
    assert found is not None
    assert found[1] == settings == store.tenant("ada")
    assert store.tenants("", 10) == [("ada", settings)]


def test_keys_and_tenants_are_listed_page_by_page(store: KeyStore) -> None:
    made = sorted(store.create(KeySettings(tenant=tenant), "a", 1.0)[0].id for tenant in ("ada", "bob", "ada", "ada"))
    assert [info.id for info in store.keys(None, "", 3)] == made[:3]
    assert [info.id for info in store.keys(None, made[2], 3)] == made[3:]
    assert len(store.keys("ada", "", 10)) == 3
    for name in ("b", "a", "c"):
        store.change_tenant(name, to(weight=2), "a", 1.0)
    assert [name for name, _ in store.tenants("a", 10)] == ["b", "c"]


def test_records_are_numbered_and_read_backwards(store: KeyStore) -> None:
    ids = [store.create(ADA, f"actor-{number}", float(number))[0].id for number in range(5)]
    newest = store.audit(None, 2)
    assert [(record.target, record.actor, record.at) for record in newest] == [(f"key:{ids[n]}", f"actor-{n}", float(n)) for n in (4, 3)]
    assert [record.target for record in store.audit(newest[-1].seq, 10)] == [f"key:{ids[number]}" for number in (2, 1, 0)]


def test_uses_are_noted_and_are_no_change(store: KeyStore) -> None:
    info, _ = store.create(ADA, "a", 1.0)
    before = store.revision()
    store.used({info.id: 7.0, "000000000000": 8.0})
    store.used({})
    assert store.get(info.id).last_used_at == 7.0
    assert (store.revision(), len(store.audit(None, 10))) == (before, 1)


def test_changes_at_the_same_time_are_all_made_one_after_the_other(store: KeyStore) -> None:
    info, _ = store.create(KeySettings(tenant="ada", limits=Limits(queue=0)), "a", 1.0)

    def raise_both() -> None:
        for _ in range(5):
            store.change(info.id, lambda now: msgspec.structs.replace(now, limits=Limits(queue=(now.limits.queue or 0) + 1)), "a", 2.0)
            store.change_tenant("ada", lambda now: msgspec.structs.replace(now, weight=now.weight + 1), "a", 2.0)

    threads = [threading.Thread(target=raise_both) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (store.get(info.id).settings.limits.queue, store.tenant("ada").weight) == (20, 21.0)
    assert (store.revision(), len(store.audit(None, 100))) == (41, 41)
