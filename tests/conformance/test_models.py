"""GET /v1/models, GET /v1/models/{model}."""

import httpx
import pytest

from tests.conformance.conftest import ENCODER
from tests.conformance.shapes import error_of, model
from tests.e2e.system import System


def test_list_is_a_list_of_models(http: httpx.Client) -> None:
    body = http.get("/v1/models").raise_for_status().json()
    assert set(body) == {"object", "data"}
    assert body["object"] == "list"
    assert body["data"]
    for each in body["data"]:
        model(each)


@pytest.mark.parametrize("which", ["chat model", "encoder"])
def test_retrieve_says_what_the_list_does(http: httpx.Client, system: System, which: str) -> None:
    name = system.model if which == "chat model" else ENCODER
    shown = http.get(f"/v1/models/{name}").raise_for_status().json()
    assert model(shown).id == name
    assert shown in http.get("/v1/models").json()["data"]


@pytest.mark.parametrize("name", ["gpt-none", "a/b", "%20", "..%2Fmodels"])
def test_retrieve_an_unknown_model(http: httpx.Client, name: str) -> None:
    error = error_of(http.get(f"/v1/models/{name}"), 404, "model", "model_not_found")
    assert error["type"] == "invalid_request_error"


def test_models_cannot_be_deleted(http: httpx.Client, system: System) -> None:
    error_of(http.delete(f"/v1/models/{system.model}"), 405)
