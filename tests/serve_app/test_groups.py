"""Which documents of access groups a key may use, over HTTP and in chats."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from retrieval.scopes import Access
from serve_app.keyring.settings import TenantSettings
from serve_app.keyring.watch import Keyring
from serve_app.tenants import Namespaces, Principal
from tests.retrieval.tiers import make_tier
from tests.serve_app.clients import CHAT, error_of
from tests.serve_app.fakes import LocalRetrieval, World, make_world
from tests.serve_app.test_keys_http import CHATS, app, http, key, keyring

__all__ = ["app", "http", "keyring"]  # fixtures

STORES = "/v1/vector_stores"
Headers = dict[str, str]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = make_world(retrieval={"groups": {"staff": ["ada", "bob"]}})
    tier = make_tier(tmp_path)
    world.pipeline = replace(world.pipeline, documents=LocalRetrieval(tier))
    yield world
    await world.keeper.stop()
    await world.uses.stop()
    tier.close()


@pytest.fixture
def admin(keyring: Keyring) -> Headers:
    return key(keyring, "ops", "admin")


async def made(http: httpx.AsyncClient, headers: Headers, group: str | None) -> str:
    """The id of a collection with one document."""
    store = await http.post(STORES, json={"group": group} if group else {}, headers=headers)
    path = f"{STORES}/{store.raise_for_status().json()['id']}"
    documents = {"documents": [{"id": "bees", "text": f"Bees make honey for {group}."}]}
    (await http.post(f"{path}/documents", json=documents, headers=headers)).raise_for_status()
    return path.rpartition("/")[2]


async def seen(http: httpx.AsyncClient, headers: Headers) -> set[str]:
    return {each["id"] for each in (await http.get(STORES, headers=headers)).raise_for_status().json()["data"]}


async def statuses(http: httpx.AsyncClient, headers: Headers, store: str) -> set[int]:
    """Of every way to a collection's contents."""
    chat = {**CHAT, "retrieval": {"vector_store_ids": [store]}}
    answers = [
        await http.get(f"{STORES}/{store}", headers=headers),
        await http.post(f"{STORES}/{store}/search", json={"query": "honey"}, headers=headers),
        await http.get(f"{STORES}/{store}/documents", headers=headers),
        await http.get(f"{STORES}/{store}/documents/bees", headers=headers),
        await http.get(f"{STORES}/{store}/files", headers=headers),
        await http.post(f"{STORES}/{store}", json={"name": "x"}, headers=headers),
        await http.post(CHATS, json=chat, headers=headers),
        await http.post(f"{STORES}/{store}/documents", json={"documents": [{"id": "ants", "text": "Ants."}]}, headers=headers),
    ]
    return {answer.status_code for answer in answers}


async def test_a_key_reaches_those_of_its_tenants_groups_that_it_names(http: httpx.AsyncClient, keyring: Keyring, admin: Headers) -> None:
    await http.post("/v1/admin/tenants/ada", json={"groups": ["legal"]}, headers=admin)
    every, staff, none = key(keyring, "ada"), key(keyring, "ada", groups=("staff",)), key(keyring, "ada", groups=())
    stores = {group: await made(http, every, group) for group in ("staff", "legal", None)}
    assert await seen(http, every) == set(stores.values())
    assert await seen(http, staff) == {stores["staff"], stores[None]}
    assert await seen(http, none) == {stores[None]}
    assert await statuses(http, staff, stores["legal"]) == await statuses(http, none, stores["staff"]) == {404}
    assert await statuses(http, staff, stores["staff"]) == await statuses(http, every, stores["legal"]) == {200}
    refused = await http.post(STORES, json={"group": "legal"}, headers=staff)
    assert (refused.status_code, error_of(refused)["param"]) == (400, "group")


async def test_a_key_never_widens_what_its_tenant_may(http: httpx.AsyncClient, keyring: Keyring, admin: Headers) -> None:
    await http.post("/v1/admin/tenants/ada", json={"groups": ["legal"]}, headers=admin)
    store = await made(http, key(keyring, "ada"), "legal")
    stranger = key(keyring, "eve", groups=("legal", "staff"))
    assert await seen(http, stranger) == set()
    assert await statuses(http, stranger, store) == {404}


async def test_membership_begins_and_ends_without_a_restart(http: httpx.AsyncClient, keyring: Keyring, admin: Headers) -> None:
    eve = key(keyring, "eve")
    store = await made(http, key(keyring, "ada"), "staff")
    assert await statuses(http, eve, store) == {404}
    joined = await http.post("/v1/admin/tenants/eve", json={"groups": ["staff"]}, headers=admin)
    assert joined.json()["groups"] == ["staff"]
    assert await statuses(http, eve, store) == {200}
    await http.post("/v1/admin/tenants/eve", json={"groups": []}, headers=admin)
    assert await statuses(http, eve, store) == {404}


async def test_a_keys_groups_are_changed_and_noted(http: httpx.AsyncClient, admin: Headers) -> None:
    new = (await http.post("/v1/admin/keys", json={"tenant": "ada", "groups": ["staff"]}, headers=admin)).json()
    ada, path = {"authorization": f"Bearer {new['key']}"}, f"/v1/admin/keys/{new['id']}"
    store = await made(http, ada, "staff")
    for groups, reached in (([], {404}), (None, {200}), (["other"], {404})):
        assert (await http.post(path, json={"groups": groups}, headers=admin)).json()["groups"] == groups
        assert await statuses(http, ada, store) == reached
    records = (await http.get("/v1/admin/audit", headers=admin)).json()["data"]
    changes = [record["details"] for record in records if record["action"] == "key.change"]
    assert changes == [{"groups": ["other"]}, {"groups": None}, {"groups": []}]


async def test_a_groups_documents_are_computed_under_the_groups_salt(http: httpx.AsyncClient, world: World, keyring: Keyring) -> None:
    ada = key(keyring, "ada")
    store = await made(http, ada, "staff")
    (await http.post(CHATS, json={**CHAT, "retrieval": {"vector_store_ids": [store]}}, headers=ada)).raise_for_status()
    assert world.replicas.bodies[-1]["cache_salt"] == world.pipeline.namespaces.group("staff")


def test_the_reach_of_a_principal() -> None:
    namespaces = Namespaces(b"secret", "production", {"staff": ["ada", "bob"], "board": ["ada"]})

    def reach(tenant: str, shared: tuple[str, ...] = (), key_has: frozenset[str] | None = None) -> set[str]:
        found = namespaces.reach(Principal(tenant, groups=key_has, shared=TenantSettings(groups=shared)))
        if isinstance(found, Access):
            assert found.groups == {name: namespaces.group(name) for name in found.groups}
            assert found.namespace == namespaces.of(tenant)
            return set(found.groups)
        assert found == namespaces.of(tenant)
        return set()

    assert reach("ada") == {"staff", "board"}
    assert reach("ada", ("legal",)) == {"staff", "board", "legal"}
    assert reach("ada", ("legal",), frozenset({"legal", "board", "other"})) == {"legal", "board"}
    assert reach("ada", (), frozenset()) == set()
    assert reach("eve") == reach("eve", (), frozenset({"staff"})) == set()
    assert reach("ada") == {"staff", "board"}  # nothing was changed by asking
