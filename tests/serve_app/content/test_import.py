"""Answers that no engine gave: they pass the tenant's rules, too."""

import json

from tests.serve_app.asking import ask, chat, text_of
from tests.serve_app.clients import client_of
from tests.serve_app.fakes import CANARY, MODEL, make_world
from tests.serve_app.formats import message, response

RULES = {"rules": [{"name": "banned", "words": [CANARY]}, {"name": "names", "action": "mask", "words": ["Bob"]}]}


async def test_imported_answers_pass_the_rules() -> None:
    world = make_world(content={"all": RULES})
    lines = [
        {"text": f"Question {number}?", "answer": answer, "model": MODEL} for number, answer in enumerate(["I am Bob", CANARY, "Well"])
    ]
    async with client_of(world) as client:
        response = await client.post("/v1/cache/import", content="\n".join(map(json.dumps, lines)))
    report = response.json()
    assert (report["imported"], [error["line"] for error in report["errors"]]) == (2, [2])
    assert report["errors"][0]["message"] == "answer: it is against a content rule."
    answers = [await ask(world, chat(f"Question {number}?")) for number in (0, 2)]
    assert [(cache, text_of(body)) for cache, body in answers] == [("exact", "I am ***"), ("exact", "Well")]


async def test_imported_responses_and_messages_pass_them_too() -> None:
    world = make_world(content={"all": RULES})
    place = {"model": MODEL, "key": "0" * 64}
    lines = [{**place, "answer": json.loads(make(text))} for make in (response, message) for text in ("I am Bob", CANARY)]
    async with client_of(world) as client:
        report = (await client.post("/v1/cache/import", content="\n".join(map(json.dumps, lines)))).json()
    assert (report["imported"], [error["line"] for error in report["errors"]]) == (2, [2, 4])
    await world.keeper.drain()
    assert [b"I am ***" in entry.answer for entry in world.cache.entries] == [True, True]
