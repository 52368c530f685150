"""A model that answers to several names."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from serve_app.config import load_config
from serve_app.errors import ConfigError, NotFoundError
from serve_app.tenants import Principal
from tests.serve_app.asking import ask, caller, chat
from tests.serve_app.clients import CHAT, ENCODER, client_of
from tests.serve_app.fakes import MODEL, FakeAnswer, World, make_world
from tests.serve_app.formats import message, response

ALIASES = ["gpt-4o-mini", "claude"]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = make_world(llm={"model": {"name": MODEL, "aliases": ALIASES}})
    yield world
    await world.keeper.stop()


@pytest.fixture
async def http(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(world) as http:
        yield http


async def test_all_names_are_one_model_to_the_engine_and_to_the_cache(world: World) -> None:
    assert (await ask(world, chat(model="gpt-4o-mini")))[0] == "miss"
    assert world.replicas.bodies[0]["model"] == MODEL
    for name in (MODEL, *ALIASES):
        cache, body = await ask(world, chat(model=name))
        assert (cache, msgspec.json.decode(body)["model"]) == ("exact", MODEL)
    assert [entry.model for entry in world.cache.entries] == [MODEL]


async def test_every_route_knows_them(http: httpx.AsyncClient, world: World) -> None:
    world.replicas.script += [FakeAnswer([response("Hi")]), FakeAnswer([message("Hi")]), FakeAnswer([b'{"input_tokens":1}'])]
    asked: dict[str, Any] = {"model": "claude", "messages": [{"role": "user", "content": "Hi"}]}
    for path, body in (
        ("/v1/responses", {"model": "claude", "input": "Hi"}),
        ("/v1/messages", {**asked, "max_tokens": 1}),
        ("/v1/messages/count_tokens", asked),
        ("/v1/completions", {"model": "claude", "prompt": "Hi"}),
    ):
        assert (await http.post(path, json=body)).status_code == 200
    assert {body["model"] for body in world.replicas.bodies} == {MODEL}
    assert (await http.post("/v1/chat/completions", json={**CHAT, "model": "gpt"})).status_code == 404


async def test_they_are_listed(http: httpx.AsyncClient) -> None:
    models = {model["id"]: model for model in (await http.get("/v1/models")).json()["data"]}
    assert list(models) == [MODEL, *ALIASES, ENCODER]
    assert models["claude"] == {**models[MODEL], "id": "claude", "mygo": {"alias_of": MODEL}}
    assert (await http.get("/v1/models/gpt-4o-mini")).json()["id"] == "gpt-4o-mini"


async def test_the_encoder_has_them_too() -> None:
    world = make_world(embedding={"source": "fake", "aliases": ["text-embedding-3-small"]})
    async with client_of(world) as http:
        models = {model["id"]: model for model in (await http.get("/v1/models")).json()["data"]}
        assert list(models) == [MODEL, ENCODER, "text-embedding-3-small"]
        assert models["text-embedding-3-small"]["mygo"] == {"alias_of": ENCODER}
        for name, status in ((ENCODER, 200), ("text-embedding-3-small", 200), (MODEL, 404)):
            answer = await http.post("/v1/embeddings", json={"model": name, "input": "x"})
            assert answer.status_code == status
            assert status != 200 or answer.json()["model"] == ENCODER
    await world.keeper.stop()


@pytest.mark.parametrize(("models", "may"), [(None, True), ({"claude"}, True), ({MODEL}, True), ({ENCODER}, False)])
async def test_a_key_for_one_of_the_names_is_for_the_model(world: World, models: set[str] | None, may: bool) -> None:
    principal = Principal(models=None if models is None else frozenset(models))
    for name in (MODEL, *ALIASES):
        if may:
            assert world.pipeline.require_model(name, principal) == MODEL
        else:
            with pytest.raises(NotFoundError):
                world.pipeline.require_model(name, principal)


async def test_answers_are_ended_by_any_of_them(world: World, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    async def call(method: str, *args: Any) -> int:
        calls.append((method, *args))
        return 1

    monkeypatch.setattr(world.cache, "call", call)
    for name in (MODEL, "claude"):
        assert (await http.post("/v1/cache/invalidate", json={"model": name})).status_code == 200
    assert calls[0] == calls[1]
    assert world.pipeline.namespaces.of(caller().tenant) in calls[0]


@pytest.mark.parametrize("aliases", [["a", "a"], [MODEL], [""]])
def test_each_name_is_given_once(aliases: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({"llm": {"model": {"name": MODEL, "aliases": aliases}}})
    assert "llm.model" in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        load_config({"embedding": {"name": MODEL, "aliases": aliases}})
    assert "embedding" in str(caught.value)
