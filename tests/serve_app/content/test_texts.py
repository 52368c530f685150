"""Content rules for documents that are put into prompts, and for texts that are embedded."""

from typing import Any

import pytest

from serve_app.content import texts
from tests.serve_app.asking import ask, caller, chat
from tests.serve_app.clients import ENCODER, client_of, error_of
from tests.serve_app.content.worlds import BLOCK, MASK, ruled
from tests.serve_app.fakes import CANARY, World, make_world

RETRIEVAL = {"vector_store_ids": ["vs_1"]}


def prompt(world: World) -> str:
    return str(world.replicas.bodies[-1]["messages"])


@pytest.mark.parametrize("long_bytes", [16 * 1024, 1])
async def test_documents_are_masked_and_blocked_ones_left_out(monkeypatch: pytest.MonkeyPatch, long_bytes: int) -> None:
    monkeypatch.setattr(texts, "LONG_BYTES", long_bytes)
    world = ruled(BLOCK, MASK)
    world.retrieval.texts = ["Bob has a key.", f"The word is {CANARY}.", "Nothing is here."]
    reply = await world.pipeline.generate(chat("Who?", retrieval=RETRIEVAL), caller())
    assert reply.headers["x-mygo-documents"] == "doc_0#0,doc_2#0"
    sent = prompt(world)
    assert [words in sent for words in ("*** has a key.", "Nothing is here.", "Bob", CANARY)] == [True, True, False, False]
    assert world.metrics.content_matches == [("names", "mask"), ("banned", "block")]


async def test_rules_for_answers_and_of_others_are_not_for_documents() -> None:
    world = make_world(content={"tenants": {"ada": {"rules": [MASK]}, "bob": {"rules": [{**MASK, "where": "answer"}]}}})
    world.retrieval.texts = ["Bob has a key."]
    for tenant, is_masked in (("ada", True), ("bob", False), ("eve", False)):
        await ask(world, chat("Who?", retrieval=RETRIEVAL), caller(tenant))
        assert ("*** has a key." in prompt(world)) == is_masked


async def test_what_is_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    world = ruled(BLOCK, MASK)
    embed, embedded = world.embedding.embed, list[str]()

    async def seen(given: list[str]) -> Any:
        embedded.extend(given)
        return await embed(given)

    monkeypatch.setattr(world.embedding, "embed", seen)
    async with client_of(world) as http:
        assert (await http.post("/v1/embeddings", json={"model": ENCODER, "input": ["I am Bob", "so"]})).status_code == 200
        refused = await http.post("/v1/embeddings", json={"model": ENCODER, "input": ["so", f"a {CANARY}"]})
    assert (refused.status_code, error_of(refused)["code"], error_of(refused)["param"]) == (400, "content_filter", "input")
    assert embedded == ["I am ***", "so"]
