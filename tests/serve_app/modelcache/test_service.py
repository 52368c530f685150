"""The service over a cache in this process: every answer of the protocol, and everything that can go wrong."""

import asyncio
import logging
from typing import Any

import pytest

from serve_app.modelcache import service
from serve_app.modelcache.backend import BackendError
from tests.serve_app.modelcache.asking import (
    ANSWER,
    CANARY,
    QUESTION,
    Json,
    Server,
    delete,
    dialog,
    insert,
    query,
    query_body,
    request,
    truncate,
)
from tests.serve_app.modelcache.backends import faulty

INTERNAL = "The cache had an error. The request id names it in the logs."


# Answers


async def test_a_miss(server: Server) -> None:
    assert await server.ask(query()) == query_body(delta_time="0.03s")


async def test_an_insert_and_a_hit(server: Server) -> None:
    assert await server.ask(insert()) == {"errorCode": 0, "errorDesc": "", "writeStatus": "success", "ids": ["id-1"]}
    hit = {"cacheHit": True, "delta_time": "0.03s", "hit_query": "user: Who are you?", "answer": ANSWER}
    assert await server.ask(query()) == {**query_body(), **hit, "cache_id": "id-1", "similarity": 1.0}


async def test_a_hit_tells_the_kept_question(server: Server) -> None:
    server.backend.means = {"你是谁?": QUESTION}
    await server.ask(insert("你是谁?"))
    body = await server.ask(query())
    assert (body["hit_query"], body["answer"], body["similarity"]) == ("user: 你是谁?", ANSWER, 0.97)


async def test_all_rows_are_kept(server: Server) -> None:
    body = await server.ask(insert("a", "b", "c"))
    assert body["ids"] == ["id-1", "id-2", "id-3"]
    for question in ("a", "b", "c"):
        assert (await server.ask(query(question)))["cacheHit"] is True


async def test_ids_stand_where_their_rows_do(server: Server) -> None:
    body = await server.ask(insert("a", "\n    ", "c"))
    assert body == {"errorCode": 0, "errorDesc": "", "writeStatus": "success", "ids": ["id-1", None, "id-2"]}
    assert (await server.ask(query("c")))["cache_id"] == "id-2"


async def test_an_insert_of_no_rows() -> None:
    body = await faulty(ValueError()).ask(request("insert", chat_info=[]))
    assert body == {"errorCode": 0, "errorDesc": "", "writeStatus": "success", "ids": []}


async def test_delete_by_id(server: Server) -> None:
    ids = (await server.ask(insert("a", "b", "c")))["ids"]
    response = {"status": "success", "milvus": "delete_count: 2", "mysql": "delete_count: 2"}
    expected = {"errorCode": 0, "errorDesc": "", "response": response, "writeStatus": "success"}
    assert await server.ask(delete([*ids[:2], "unknown", 7])) == expected
    assert [(await server.ask(query(each)))["cacheHit"] for each in "abc"] == [False, False, True]


async def test_delete_of_nothing() -> None:
    body = await faulty(ValueError()).ask(delete([]))
    assert body["response"] == {"status": "success", "milvus": "delete_count: 0", "mysql": "delete_count: 0"}


async def test_truncate(server: Server) -> None:
    await server.ask(insert(*(f"question {number}" for number in range(12))))
    stores = {"VectorDB": "rebuild", "ScalarDB": "delete_count: 12", "milvus": "rebuild", "mysql": "delete_count: 12"}
    expected = {"errorCode": 0, "errorDesc": "", "response": {"status": "success", **stores}, "writeStatus": "success"}
    assert await server.ask(truncate()) == expected
    assert (await server.ask(query("question 3")))["cacheHit"] is False


async def test_truncate_of_an_unknown_model(server: Server) -> None:
    not_found = "model collection not found, please check!"
    stores = {"VectorDB": not_found, "ScalarDB": "unexecuted", "milvus": not_found, "mysql": "unexecuted"}
    expected = {"errorCode": 402, "errorDesc": "", "response": {"status": "failed", **stores}, "writeStatus": "exception"}
    assert await server.ask(truncate()) == expected
    assert await server.ask(truncate("")) == expected


async def test_register(server: Server) -> None:
    for response in ("create_success", "already_exists"):
        expected = {"errorCode": 0, "errorDesc": "", "response": response, "writeStatus": "success"}
        assert await server.ask(request("register")) == expected


# Partitions


async def test_models_and_tenants_are_apart(server: Server) -> None:
    places = [(tenant, model) for tenant in (None, "a", "b") for model in ("gpt-4.1", "gpt_4.1", "gpt_4_1")]
    for number, (tenant, model) in enumerate(places):
        await server.ask(insert(model=model, answer=f"answer {number}"), tenant)
    for number, (tenant, model) in enumerate(places):
        assert (await server.ask(query(model=model), tenant))["answer"] == f"answer {number}"
    await server.ask(truncate("gpt_4.1"), "a")
    hits = [(await server.ask(query(model=model), tenant))["cacheHit"] for tenant, model in places]
    assert hits == [place != ("a", "gpt_4.1") for place in places]


async def test_the_system_prompt_is_no_question(server: Server) -> None:
    """As in ModelCache's README, whose server would take the last message, and so give all users one answer."""
    system, user = dialog()
    await server.ask(request("insert", chat_info=[{"query": [user, system], "answer": ANSWER}]))
    hit = await server.ask(request("query", query=[user, system]))
    assert (hit["cacheHit"], hit["hit_query"]) == (True, "user: Who are you?")
    assert (await server.ask(request("query", query=[{**user, "content": "Where am I?"}, system])))["cacheHit"] is False
    assert (await server.ask(request("query", query=[user, {**system, "content": "Lie."}])))["cacheHit"] is False


# What holds nothing


@pytest.mark.parametrize(
    "payload",
    [
        request("query", query=dialog("\n    ", "\n    ")),
        request("query", query=[]),
        {"type": "query", "query": dialog()},
        query(model=""),
        query(model=" "),
    ],
)
async def test_a_blank_query_is_a_miss(payload: Json) -> None:
    assert await faulty(ValueError()).ask(payload) == query_body(delta_time="0.03s")


async def test_an_empty_tenant_is_a_miss() -> None:
    assert await faulty(ValueError()).ask(query(), "") == query_body(delta_time="0.03s")


async def test_the_first_query_of_a_model_is_a_miss(server: Server) -> None:
    await server.ask(request("register"))
    assert await server.ask(query()) == query_body(delta_time="0.03s")


async def test_nothing_is_kept_without_a_model(server: Server) -> None:
    words = "scope.model is empty."
    assert await server.ask(insert(model="")) == {"errorCode": 301, "errorDesc": words, "writeStatus": "exception"}
    expected = {"errorCode": 502, "errorDesc": "", "response": words, "writeStatus": "exception"}
    assert await server.ask(request("register", "")) == expected
    assert (await server.ask(delete(["id-1"], "")))["response"]["mysql"] == "delete_count: 0"
    assert server.backend.models == {}


# What goes wrong


def failures(words: str, described: str) -> list[tuple[Json, Json]]:
    """Requests and their answers. `described`: what a removal says, which has no text of its own to say it with."""
    removal = {"errorCode": 401, "errorDesc": described, "response": "The cache remove error", "removeStatus": "exception"}
    return [
        (query(), query_body(201, words, "0.03s")),
        (insert(), {"errorCode": 301, "errorDesc": words, "writeStatus": "exception"}),
        (delete(["id-1"]), removal),
        (truncate(), removal),
        (request("register"), {"errorCode": 502, "errorDesc": "", "response": words, "writeStatus": "exception"}),
    ]


@pytest.mark.parametrize(("payload", "expected"), failures("The store is read-only.", "The store is read-only."))
async def test_a_backends_own_words_are_shown(payload: Json, expected: Json) -> None:
    server = faulty(BackendError("The store is read-only."))
    assert await server.ask(payload) == expected
    await server.service.close()


@pytest.mark.parametrize("error", [ValueError(CANARY), KeyError(CANARY), OSError(CANARY), RuntimeError(), BackendError()])
@pytest.mark.parametrize(("payload", "expected"), failures(INTERNAL, ""))
async def test_other_errors_are_not_shown(error: Exception, payload: Json, expected: Json) -> None:
    server = faulty(error)
    assert await server.ask(payload) == expected
    await server.service.close()


async def test_other_errors_are_logged_with_the_requests_id(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "ray.serve"):
        await faulty(ValueError(CANARY)).ask(query())
    (record,) = caplog.records
    assert record.__dict__["id"] == "r-1"
    assert record.exc_info
    assert CANARY in str(record.exc_info[1])


@pytest.mark.parametrize(("payload", "expected"), failures("The cache did not answer in time.", ""))
async def test_a_backend_that_hangs(payload: Json, expected: Json, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "LIMIT_S", 0)
    monkeypatch.setattr(service, "INSERT_LIMIT_S", 0)
    server = faulty(hangs=True)
    assert await server.ask(payload) == expected
    await server.service.close()


async def test_a_defect_is_an_answer_too(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    def fails(*_: object) -> None:
        raise ValueError(CANARY)

    monkeypatch.setattr(service, "read_request", fails)
    words = "The server had an error. The request id names it in the logs."
    assert await server.service.handle(None, query()) == (500, query_body(500, words))
    await server.service.query_log.drain()
    assert [record.error_code for record in server.backend.records] == [500]


async def test_a_request_can_be_cancelled() -> None:
    server = faulty(hangs=True)
    task = asyncio.create_task(server.service.handle(None, query()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_backend_that_gives_too_few_ids(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    async def one_id(*_: Any) -> list[str]:
        return ["id-1"]

    monkeypatch.setattr(server.backend, "insert", one_id)
    assert (await server.ask(insert("a", "b")))["ids"] == ["id-1", None]
