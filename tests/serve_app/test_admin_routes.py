"""Keys and tenants over HTTP."""

from typing import Any

import httpx
import pytest

from serve_app.keyring.watch import Keyring
from tests.serve_app.clients import CANARY, CHAT, client_of, error_of
from tests.serve_app.fakes import World
from tests.serve_app.test_keys_http import CHATS, app, http, key, keyring

__all__ = ["app", "http", "keyring"]  # fixtures

KEYS = "/v1/admin/keys"


@pytest.fixture
def admin(keyring: Keyring) -> dict[str, str]:
    return key(keyring, "ops", "admin")


async def test_a_key_is_made_used_changed_rotated_and_revoked(http: httpx.AsyncClient, admin: dict[str, str]) -> None:
    made = (await http.post(KEYS, json={"tenant": "ada", "name": "laptop", "limits": {"concurrency": 2}}, headers=admin)).json()
    expected = {"object": "key", "tenant": "ada", "name": "laptop", "role": "user", "state": "active", "cache": "on", "models": None}
    assert {name: made[name] for name in expected} == expected
    assert made["last_used_at"] is None
    path, ada = f"{KEYS}/{made['id']}", {"authorization": f"Bearer {made['key']}"}
    assert (await http.post(CHATS, json=CHAT, headers=ada)).status_code == 200
    shown = (await http.get(path, headers=admin)).json()
    assert shown == {name: value for name, value in made.items() if name != "key"}
    changed = (await http.post(path, json={"limits": {"queue": 5}, "role": "admin"}, headers=admin)).json()
    assert (changed["limits"]["concurrency"], changed["limits"]["queue"], changed["role"], changed["name"]) == (2, 5, "admin", "laptop")
    assert (await http.get(path, headers=ada)).status_code == 200  # it is an administrator's now
    rotated = (await http.post(f"{path}/rotate", headers=admin)).json()
    new = {"authorization": f"Bearer {rotated['key']}"}
    assert [(await http.post(CHATS, json=CHAT, headers=each)).status_code for each in (ada, new)] == [401, 200]
    kept = (await http.post(f"{path}/rotate", json={"keep_old_s": 60}, headers=admin)).json()
    newest = {"authorization": f"Bearer {kept['key']}"}
    assert [(await http.post(CHATS, json=CHAT, headers=each)).status_code for each in (new, newest)] == [200, 200]
    assert (await http.delete(path, headers=admin)).json()["state"] == "revoked"
    assert [(await http.post(CHATS, json=CHAT, headers=each)).status_code for each in (new, newest)] == [401, 401]


async def test_lists(http: httpx.AsyncClient, admin: dict[str, str], keyring: Keyring) -> None:
    for tenant in ("ada", "ada", "bob"):
        key(keyring, tenant)
    every = (await http.get(KEYS, headers=admin)).json()
    assert (len(every["data"]), every["has_more"], every["object"]) == (4, False, "list")
    first = (await http.get(f"{KEYS}?limit=3", headers=admin)).json()
    rest = (await http.get(f"{KEYS}?limit=3&after={first['last_id']}", headers=admin)).json()
    assert (first["has_more"], first["data"] + rest["data"]) == (True, every["data"])
    assert [each["tenant"] for each in (await http.get(f"{KEYS}?tenant=ada", headers=admin)).json()["data"]] == ["ada", "ada"]
    assert not any("key" in each or "digest" in each for each in every["data"])


async def test_tenants(http: httpx.AsyncClient, admin: dict[str, str]) -> None:
    path = "/v1/admin/tenants/ada"
    assert (await http.get(path, headers=admin)).json()["weight"] == 1.0
    await http.post(path, json={"weight": 3, "limits": {"tokens_per_minute": 100}}, headers=admin)
    changed = (await http.post(path, json={"limits": {"concurrency": 1}}, headers=admin)).json()
    assert (changed["id"], changed["weight"]) == ("ada", 3.0)
    assert (changed["limits"]["tokens_per_minute"], changed["limits"]["concurrency"]) == (100, 1)
    assert (await http.get("/v1/admin/tenants", headers=admin)).json()["data"] == [changed]


async def test_every_change_is_in_the_audit_log(http: httpx.AsyncClient, admin: dict[str, str]) -> None:
    made = (await http.post(KEYS, json={"tenant": "ada"}, headers=admin)).json()
    await http.post("/v1/admin/tenants/ada", json={"weight": 3}, headers=admin)
    await http.delete(f"{KEYS}/{made['id']}", headers=admin)
    records = (await http.get("/v1/admin/audit?limit=3", headers=admin)).json()
    assert [(each["action"], each["target"]) for each in records["data"]] == [
        ("key.revoke", f"key:{made['id']}"),
        ("tenant.change", "tenant:ada"),
        ("key.create", f"key:{made['id']}"),
    ]
    assert {each["actor"] for each in records["data"]} == {f"key:{admin['authorization'].split('_')[1]}"}
    assert made["key"] not in str(records)
    older = (await http.get(f"/v1/admin/audit?after={records['last_id']}", headers=admin)).json()
    assert [each["action"] for each in older["data"]] == ["key.create"]


async def test_users_are_not_administrators(http: httpx.AsyncClient, keyring: Keyring) -> None:
    ada = key(keyring)
    for method, path in (
        ("GET", KEYS),
        ("POST", KEYS),
        ("DELETE", f"{KEYS}/x"),
        ("POST", "/v1/admin/tenants/ada"),
        ("GET", "/v1/admin/audit"),
    ):
        refused = await http.request(method, path, headers=ada, json={})
        assert (refused.status_code, error_of(refused)["code"]) == (403, "admin_required")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "tenant"),
        ({"tenant": "a/b"}, "tenant"),
        ({"tenant": "a\n"}, "tenant"),
        ({"tenant": CANARY * 11}, "tenant"),
        ({"tenant": "a", "role": CANARY}, "role"),
        ({"tenant": "a", "limits": {"concurrency": -1}}, "limits.concurrency"),
        ({"tenant": "a", "limits": {"concurrency": 1.5}}, "limits.concurrency"),
        ({"tenant": "a", "limits": {"speed": 1}}, "limits.speed"),
        ({"tenant": "a", "models": "m"}, "models"),
        ({"tenant": "a", "models": [1]}, "models[0]"),
        ({"tenant": "a", "expires_at": "tomorrow"}, "expires_at"),
        ({"tenant": "a", "cache": "refresh"}, "cache"),
        ({"tenant": "a", "groups": "g"}, "groups"),
        ({"tenant": "a", "groups": ["a/b"]}, "groups[0]"),
        ({"tenant": "a", "group": "g"}, "group"),
    ],
)
async def test_settings_that_are_none(http: httpx.AsyncClient, admin: dict[str, str], body: dict[str, Any], param: str) -> None:
    refused = await http.post(KEYS, json=body, headers=admin)
    error = error_of(refused)
    assert (refused.status_code, error["param"]) == (400, param)


async def test_bad_requests(http: httpx.AsyncClient, admin: dict[str, str], keyring: Keyring) -> None:
    key_id = admin["authorization"].split("_")[1]
    cases = [
        ("GET", f"{KEYS}/none", None, 404),
        ("POST", f"{KEYS}/none", {"name": "x"}, 404),
        ("POST", f"{KEYS}/none/rotate", None, 404),
        ("DELETE", f"{KEYS}/none", None, 404),
        ("POST", f"{KEYS}/{key_id}", {"tenant": "other"}, 400),
        ("POST", f"{KEYS}/{key_id}", {"limits": 7}, 400),
        ("POST", f"{KEYS}/{key_id}/rotate", {"keep_old_s": -1}, 400),
        ("POST", f"{KEYS}/{key_id}/rotate", {"keep": 1}, 400),
        ("POST", "/v1/admin/tenants/a%20b", {"weight": 1}, 400),
        ("POST", "/v1/admin/tenants/ada", {"weight": 0}, 400),
        ("POST", "/v1/admin/tenants/ada", {"tenant": "ada"}, 400),
        ("GET", f"{KEYS}?limit=0", None, 400),
        ("GET", f"{KEYS}?limit=x", None, 400),
        ("GET", f"{KEYS}?limit=²", None, 400),
        ("GET", "/v1/admin/audit?after=x", None, 400),
        ("PUT", KEYS, None, 405),
    ]
    for method, path, body, status in cases:
        refused = (
            await http.request(method, path, json=body, headers=admin)
            if body is not None
            else await http.request(method, path, headers=admin)
        )
        error_of(refused)
        assert refused.status_code == status, (method, path)
    assert len(keyring.store.audit(None, 100)) == 1


async def test_where_there_are_no_keys_the_routes_say_so(world: World) -> None:
    async with client_of(world) as client:
        for method, path in (("GET", KEYS), ("POST", KEYS), ("DELETE", f"{KEYS}/x"), ("GET", "/v1/admin/audit")):
            refused = await client.request(method, path)
            assert (refused.status_code, error_of(refused)["code"]) == (404, "no_keys")
