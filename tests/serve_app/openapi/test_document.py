"""The OpenAPI document says of every route what it takes and gives."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.applications import Starlette
from starlette.routing import Route

from deployments.kept_prefixes import KeptPrefixes
from serve_app.contexts.service import Contexts
from serve_app.contexts.store import open_contexts
from serve_app.ingress import OPEN, create_app
from serve_app.keyring.store import open_keyring
from serve_app.keyring.watch import Keyring
from serve_app.modelcache.fake import MemoryBackend
from serve_app.modelcache.service import ModelCacheService
from serve_app.openapi.document import described, document
from serve_app.openapi.operations import OPERATIONS
from serve_app.parts import Parts
from tests.serve_app.clients import METRICS, client_of
from tests.serve_app.fakes import World


@pytest.fixture
async def keyring(tmp_path: Path) -> AsyncIterator[Keyring]:
    keyring = Keyring(open_keyring(f"sqlite:///{tmp_path}/keyring.db"), 60.0)
    yield keyring
    await keyring.close()


@pytest.fixture
def app(world: World, keyring: Keyring) -> Starlette:
    """With all that it can have."""

    async def scrape() -> bytes:
        return METRICS

    kept = KeptPrefixes(world.replicas, world.directory, world.pipeline.routing, world.clock)
    contexts = Contexts(partial(open_contexts, "sqlite:////nowhere"), kept, None)
    pipeline = replace(world.pipeline, contexts=contexts)
    return create_app(pipeline, Parts({}), scrape, ModelCacheService(MemoryBackend(), world.metrics), keyring=keyring)


@pytest.fixture
def made(app: Starlette) -> Any:
    return json.loads(json.dumps(document(app.routes, OPEN, keys=True)))


def parts_of(value: Any) -> Iterator[tuple[str | int, Any]]:
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield key, each
        yield from parts_of(each)


def test_every_route_is_described_and_nothing_else(app: Starlette) -> None:
    assert set(described(app.routes)) == OPERATIONS.keys()


def test_a_route_that_nobody_has_described_is_an_error(app: Starlette) -> None:
    async def endpoint(scope: Any, receive: Any, send: Any) -> None: ...

    routes = [*app.routes, Route("/v1/new", endpoint, methods=["POST"])]
    with pytest.raises(KeyError, match="/v1/new"):
        document(routes, OPEN, keys=True)


def test_it_is_valid(made: Any) -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(made).iter_errors()] == []


def test_names_of_operations_are_distinct(made: Any) -> None:
    names = [operation["operationId"] for path in made["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names)) == len(OPERATIONS)


def test_expressions_are_those_of_json_schema(made: Any) -> None:
    patterns = [each for key, each in parts_of(made) if key == "pattern" and isinstance(each, str)]
    assert patterns
    for pattern in patterns:
        assert not re.search(r"\\[AZz]|\(\?[^:=!]", pattern), pattern


def test_limits_come_from_the_types_that_check(made: Any) -> None:
    schemas = made["components"]["schemas"]
    assert schemas["ChatRequest"]["properties"]["n"]["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": 128}
    assert schemas["CacheOptions"]["additionalProperties"] is False
    assert schemas["KeySettings"]["required"] == ["tenant"]
    change = schemas["KeySettingsChange"]
    assert change["required"] == []
    assert "default" not in change["properties"]["role"]
    limits = {each["name"]: each["schema"] for each in made["paths"]["/v1/cache/entries"]["get"]["parameters"]}
    assert limits["limit"] == {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}
    assert limits["tag"] == {"type": "string", "maxLength": 64}


def test_keys_are_needed_but_for_the_open_routes(made: Any) -> None:
    for path, operations in made["paths"].items():
        for operation in operations.values():
            assert bool(operation["security"]) == (path not in OPEN)
            assert ("401" in operation["responses"]) == (path not in OPEN)


async def test_it_is_served_to_everybody(world: World) -> None:
    async with client_of(world) as client:
        response = await client.get("/openapi.json")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    served = response.json()
    assert "securitySchemes" not in served["components"]  # here are no keys
    assert "/v1/admin/keys" not in served["paths"]
    assert "/modelcache" not in served["paths"]
    assert {"$ref": "#/components/parameters/Tenant"} in served["paths"]["/v1/chat/completions"]["post"]["parameters"]


async def test_nobody_without_a_key_is_told_anything_else(app: Starlette) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/openapi.json")).status_code == 200
        assert (await client.get("/v1/models")).status_code == 401
