"""The whole application where keys are needed, over HTTP."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from serve_app.door import KeyDoor
from serve_app.exchanges import Exchanges
from serve_app.front import Front, HitPath
from serve_app.ingress import PARSERS, create_app
from serve_app.keyring.settings import KeySettings, Role
from serve_app.keyring.store import open_keyring
from serve_app.keyring.watch import Keyring
from serve_app.modelcache.fake import MemoryBackend
from serve_app.modelcache.service import ModelCacheService
from serve_app.parts import Parts
from tests.serve_app.clients import CANARY, CHAT, ENCODER, METRICS, error_of
from tests.serve_app.fakes import MODEL, World

CHATS = "/v1/chat/completions"


@pytest.fixture
async def keyring(tmp_path: Path) -> AsyncIterator[Keyring]:
    keyring = Keyring(open_keyring(f"sqlite:///{tmp_path}/keyring.db"), 60.0)
    yield keyring
    await keyring.close()


@pytest.fixture
def app(world: World, keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> Front:
    async def scrape() -> bytes:
        return METRICS

    modelcache = ModelCacheService(MemoryBackend(), world.metrics)
    exchanges = Exchanges(world.metrics)
    monkeypatch.setattr(Front, "hit_path", HitPath(world.pipeline, exchanges, PARSERS, KeyDoor(keyring)))
    return Front(create_app(world.pipeline, Parts({}), scrape, modelcache, exchanges, keyring))


@pytest.fixture
async def http(app: Front) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        yield http


def key(keyring: Keyring, tenant: str = "ada", role: Role = "user", **settings: Any) -> dict[str, str]:
    """The headers of a client with a new key."""
    _, text = keyring.store.create(KeySettings(tenant=tenant, role=role, **settings), "test", 1.0)
    return {"authorization": f"Bearer {text}"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("GET", f"/v1/models/{MODEL}"),
        ("POST", CHATS),
        ("POST", "/v1/completions"),
        ("POST", "/v1/embeddings"),
        ("GET", "/v1/cache/entries"),
        ("GET", "/v1/cache/export"),
        ("POST", "/v1/cache/import"),
        ("GET", "/v1/vector_stores"),
        ("POST", "/v1/files"),
        ("GET", "/v1/files/file-1/content"),
        ("GET", "/v1/admin/keys"),
        ("GET", "/v1/admin/audit"),
        ("GET", "/metrics"),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"authorization": f"Bearer {CANARY}"}, {"x-mygo-tenant": "ada"}])
async def test_nothing_is_for_those_without_a_key(http: httpx.AsyncClient, method: str, path: str, headers: dict[str, str]) -> None:
    response = await http.request(method, path, headers=headers, content=b"not read")
    error = error_of(response)
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    assert error["code"] in ("missing_api_key", "invalid_api_key")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/welcome"])
async def test_probes_need_no_key(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path)).status_code == 200


async def test_strangers_learn_whether_it_is_ready_and_no_more(http: httpx.AsyncClient, keyring: Keyring, world: World) -> None:
    for headers in ({}, key(keyring), {"authorization": f"Bearer {CANARY}"}, {"x-api-key": "a", "authorization": "b"}):
        assert (await http.get("/readyz", headers=headers)).json() == {"status": "ready"}
    assert [each["id"] for each in (await http.get("/readyz", headers=key(keyring, role="admin"))).json()["replicas"]] == ["r1"]
    world.directory.replace([])
    refused = await http.get("/readyz")
    assert (refused.status_code, refused.json()) == (503, {"status": "starting"})


async def test_until_it_is_ready_anybody_learns_what_is_missing(http: httpx.AsyncClient, world: World) -> None:
    """Nobody has work here yet, and whoever starts it wants to know."""
    world.directory.replace([])
    assert (await http.get("/readyz")).json() == {"status": "starting", "replicas_wanted": 1, "replicas_ready": 0, "parts": {}}


async def test_every_route_but_those_of_probes_is_guarded(app: Front, http: httpx.AsyncClient) -> None:
    """Whatever route is added: without a key it is not there for anybody."""
    routes: list[Any] = app._app.routes  # type: ignore[attr-defined]
    paths = {route.path: sorted(route.methods) for route in routes if hasattr(route, "methods")}
    for path, methods in paths.items():
        for method in methods:
            status = (await http.request(method, path)).status_code
            assert (status == 200) if path in ("/healthz", "/readyz", "/welcome", "/openapi.json") else (status == 401), (method, path)


async def test_messages_are_for_keys_as_anthropics_clients_send_them(http: httpx.AsyncClient, keyring: Keyring) -> None:
    text = key(keyring)["authorization"].removeprefix("Bearer ")
    unasked = key(keyring, models=(ENCODER,))
    asked = {**CHAT, "max_tokens": 5}
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        for headers in ({}, {"x-api-key": CANARY}):
            refused = await http.post(path, json=asked, headers=headers)
            assert (refused.status_code, refused.json()["error"]["type"]) == (401, "authentication_error")
        assert (await http.post(path, json=asked, headers=unasked)).json()["error"]["type"] == "not_found_error"
    assert (await http.post("/v1/messages", json=asked, headers={"x-api-key": text})).status_code == 200


async def test_tenants_are_known_by_their_keys(http: httpx.AsyncClient, keyring: Keyring, world: World) -> None:
    ada, other, bob = key(keyring), key(keyring), key(keyring, "bob")
    answers = [await http.post(CHATS, json=CHAT, headers=who) for who in (ada, ada, other, bob)]
    await world.keeper.drain()
    assert [answer.headers["x-mygo-cache"] for answer in answers] == ["miss", "exact", "exact", "miss"]
    assert (await http.post(CHATS, json=CHAT, headers={**ada, "x-mygo-tenant": "bob"})).status_code == 403


async def test_a_hit_is_not_for_a_key_that_was_revoked(http: httpx.AsyncClient, keyring: Keyring, world: World) -> None:
    ada, admin = key(keyring), key(keyring, "ops", "admin")
    for outcome in ("miss", "exact", "exact"):
        assert (await http.post(CHATS, json=CHAT, headers=ada)).headers["x-mygo-cache"] == outcome
    key_id = ada["authorization"].split("_")[1]
    assert (await http.delete(f"/v1/admin/keys/{key_id}", headers=admin)).json()["state"] == "revoked"
    assert (await http.post(CHATS, json=CHAT, headers=ada)).status_code == 401


async def test_models_that_a_key_may_not_ask_for_do_not_exist(http: httpx.AsyncClient, keyring: Keyring) -> None:
    chats, embeds = key(keyring, models=(MODEL,)), key(keyring, models=(ENCODER,))
    embedding = {"model": ENCODER, "input": "x"}
    assert [each["id"] for each in (await http.get("/v1/models", headers=chats)).json()["data"]] == [MODEL]
    assert (await http.post(CHATS, json=CHAT, headers=chats)).status_code == 200
    assert (await http.post("/v1/embeddings", json=embedding, headers=embeds)).status_code == 200
    for refused in (
        await http.post("/v1/embeddings", json=embedding, headers=chats),
        await http.post(CHATS, json=CHAT, headers=embeds),
        await http.get(f"/v1/models/{MODEL}", headers=embeds),
    ):
        assert (refused.status_code, error_of(refused)["code"]) == (404, "model_not_found")


async def test_an_exact_hit_of_another_key_does_not_open_a_model(http: httpx.AsyncClient, keyring: Keyring) -> None:
    ada, narrow = key(keyring), key(keyring, models=(ENCODER,))
    for _ in range(2):
        assert (await http.post(CHATS, json=CHAT, headers=ada)).status_code == 200
    assert (await http.post(CHATS, json=CHAT, headers=narrow)).status_code == 404


async def test_a_key_without_the_cache(http: httpx.AsyncClient, keyring: Keyring, world: World) -> None:
    ada, off = key(keyring), key(keyring, cache="off")
    for _ in range(2):
        assert (await http.post(CHATS, json=CHAT, headers=off)).headers["x-mygo-cache"] == "bypass"
        await world.keeper.drain()
    assert (await http.post(CHATS, json=CHAT, headers=ada)).headers["x-mygo-cache"] == "miss"
    refused = await http.post("/modelcache", json={"type": "query", "scope": {"model": "m"}, "query": []}, headers=off)
    assert (refused.status_code, refused.json()["errorCode"]) == (403, 400)


@pytest.mark.parametrize("narrow", [{"cache": "off"}, {"cache": "exact"}, {"groups": ()}])
async def test_a_narrow_key_does_not_see_or_change_what_is_kept_for_its_tenant(
    http: httpx.AsyncClient, app: Front, keyring: Keyring, narrow: dict[str, Any]
) -> None:
    """Others' answers may be of documents that it may not reach, and what it imported would be answers of others."""
    routes: list[Any] = app._app.routes  # type: ignore[attr-defined]
    paths = {route.path: sorted(route.methods) for route in routes if route.path.startswith("/v1/cache/")}
    assert len(paths) >= 5
    for path, methods in paths.items():
        for method in methods:
            body = b'{"entry": "x", "query": "x", "namespace": true}' if method == "POST" else None
            refused = await http.request(method, path.replace("{entry_id}", "x"), headers=key(keyring, **narrow), content=body)
            assert refused.status_code == 403, (method, path, refused.text)


async def test_modelcache_says_in_its_own_shape_that_a_key_is_needed(http: httpx.AsyncClient) -> None:
    refused = await http.post("/modelcache", json={"type": "query"})
    assert (refused.status_code, refused.json()["errorCode"], refused.headers["www-authenticate"]) == (401, 400, "Bearer")


def test_a_websocket_ends_with_its_key(app: Front, keyring: Keyring) -> None:
    ask = {"requestId": "1", "payload": {"type": "register", "scope": {"model": "m"}}}
    with TestClient(app) as client:
        with pytest.raises(WebSocketDisconnect):
            client.websocket_connect("/modelcache").__enter__()
        headers = key(keyring)
        with client.websocket_connect("/modelcache", headers=headers) as socket:
            socket.send_json(ask)
            assert socket.receive_json()["requestId"] == "1"
            keyring.store.revoke(headers["authorization"].split("_")[1], "test", 2.0)
            keyring.forget()
            socket.send_json(ask)
            with pytest.raises(WebSocketDisconnect) as ended:
                socket.receive_json()
    assert ended.value.code == 1008


async def test_metrics_are_of_all_tenants_and_so_for_administrators(http: httpx.AsyncClient, keyring: Keyring) -> None:
    assert (await http.get("/metrics", headers=key(keyring))).status_code == 403
    assert (await http.get("/metrics", headers=key(keyring, role="admin"))).content == METRICS


async def test_while_keys_cannot_be_checked_nobody_is_let_in(
    http: httpx.AsyncClient, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serve_app.errors import KeyringError

    def down(*_: object) -> None:
        raise KeyringError(CANARY)

    headers = key(keyring)
    monkeypatch.setattr(keyring.store, "revision", down)
    refused = await http.post(CHATS, json=CHAT, headers=headers)
    assert (refused.status_code, refused.headers["retry-after"], error_of(refused)["code"]) == (503, "1", "keyring_unavailable")
