"""LoRA adapters that are asked for as models."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest

from deployments.config import LlmConfig
from serve_app.config import load_config
from serve_app.errors import ConfigError, NotFoundError
from serve_app.identity import model_identity
from serve_app.tenants import Principal
from tests.serve_app.asking import ask, chat
from tests.serve_app.clients import CHAT, ENCODER, client_of
from tests.serve_app.fakes import MODEL, FakeAnswer, World, make_world

ADAPTERS = {"loud": "/adapters/loud", "quiet": "/adapters/quiet"}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = make_world(llm={"model": {"name": MODEL, "aliases": ["alias"], "adapters": ADAPTERS}})
    yield world
    await world.keeper.stop()


@pytest.fixture
async def http(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(world) as http:
        yield http


async def test_each_is_a_model_to_the_engine_and_to_the_cache(world: World) -> None:
    names = [MODEL, "loud", "quiet"]
    assert [(await ask(world, chat(model=name)))[0] for name in names] == ["miss"] * 3
    assert [body["model"] for body in world.replicas.bodies] == names
    assert [(await ask(world, chat(model=name)))[0] for name in [*names, "alias"]] == ["exact"] * 4
    assert sorted(entry.model for entry in world.cache.entries) == sorted(names)


async def test_a_question_in_other_words_is_not_given_another_ones_answer(world: World) -> None:
    world.embedding.means = {"What is a cache?": "cache", "What's a cache, then?": "cache"}
    await ask(world, chat("What is a cache?", model="loud"))
    assert (await ask(world, chat("What's a cache, then?", model="quiet")))[0] == "miss"
    assert (await ask(world, chat("What's a cache, then?", model="loud")))[0] == "semantic"


async def test_keys_name_them(world: World) -> None:
    loud = Principal(models=frozenset({"loud"}))
    assert world.pipeline.require_model("loud", loud) == "loud"
    for name in (MODEL, "alias", "quiet", "low"):
        with pytest.raises(NotFoundError):
            world.pipeline.require_model(name, loud)
    base = Principal(models=frozenset({"alias"}))
    assert world.pipeline.require_model(MODEL, base) == MODEL
    with pytest.raises(NotFoundError):
        world.pipeline.require_model("loud", base)


async def test_they_are_listed_as_the_engine_lists_them(http: httpx.AsyncClient, world: World) -> None:
    served = [{"id": name, "object": "model", "parent": MODEL} for name in (MODEL, *ADAPTERS)]
    world.replicas.script.append(FakeAnswer([msgspec.json.encode({"object": "list", "data": served})]))
    assert [model["id"] for model in (await http.get("/v1/models")).json()["data"]] == [MODEL, *ADAPTERS, "alias", ENCODER]


async def test_answers_are_imported_for_them(http: httpx.AsyncClient, world: World) -> None:
    lines = [{"text": CHAT["messages"][0]["content"], "answer": name, "model": name} for name in ("loud", "alias", "low")]
    report = (await http.post("/v1/cache/import", content=b"\n".join(map(msgspec.json.encode, lines)))).json()
    assert (report["imported"], [error["line"] for error in report["errors"]]) == (2, [3])
    await world.keeper.drain()
    assert [entry.model for entry in world.cache.entries] == ["loud", MODEL]


def test_another_adapter_under_the_same_name_is_another_model(tmp_path: Path) -> None:
    def identity(**adapters: str) -> str:
        return model_identity(LlmConfig.model_validate({"model": {"adapters": adapters}}))

    (tmp_path / "adapter_model.safetensors").write_bytes(b"1")
    first = identity(loud=str(tmp_path))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"22")
    assert len({first, identity(loud=str(tmp_path)), identity(loud="x/y"), identity(quiet="x/y"), identity()}) == 5


def test_their_names_are_their_own() -> None:
    for adapters in ({MODEL: "x"}, {"alias": "x"}, {"": "x"}):
        with pytest.raises(ConfigError):
            load_config({"llm": {"model": {"name": MODEL, "aliases": ["alias"], "adapters": adapters}}})
