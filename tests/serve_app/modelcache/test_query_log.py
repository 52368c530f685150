"""The query log, and that nobody waits for it."""

import asyncio
from collections.abc import Sequence

import pytest

from serve_app import queue_writer
from serve_app.modelcache.backend import Hit, QueryRecord
from serve_app.modelcache.service import MAX_LOGGED_CHARS, ModelCacheService
from serve_app.queue_writer import QueueWriter
from tests.serve_app.fakes import Fault, eventually
from tests.serve_app.modelcache.asking import ANSWER, CANARY, MODEL, Server, SetClock, delete, insert, query, query_body, request, truncate
from tests.serve_app.modelcache.backends import FaultyBackend, faulty
from tests.serve_app.recorded import RecordedMetrics


async def test_queries_are_logged() -> None:
    server = Server(blocked=("blocked",))
    await server.ask(insert())
    await server.ask(query(), "a")
    await server.ask(query())
    await server.ask(query(model="blocked"))
    await server.ask(request("query", query=CANARY))
    await server.service.close()
    hit = Hit("id-1", "user: Who are you?", ANSWER, 1.0)
    logged = [(each.tenant, each.model, each.error_code, each.error_desc, each.hit, each.query) for each in server.backend.records]
    assert logged == [
        ("a", MODEL, 0, "", None, "user: Who are you?"),
        (None, MODEL, 0, "", hit, "user: Who are you?"),
        (None, "blocked", 105, "model: blocked in blacklist", None, ""),
        (None, MODEL, 103, "query must be a list.", None, ""),
    ]
    assert [round(each.seconds, 2) for each in server.backend.records] == [0.06, 0.06, 0.03, 0.03]


async def test_a_failed_query_is_logged() -> None:
    server = faulty(ValueError(CANARY))
    await server.ask(query())
    await server.service.close()
    assert [(each.error_code, each.error_desc, each.hit) for each in server.backend.records] == [
        (201, "The cache had an error. The request id names it in the logs.", None)
    ]


async def test_a_long_question_is_cut_in_the_log(server: Server) -> None:
    await server.ask(query("x" * 2 * MAX_LOGGED_CHARS))
    await server.service.query_log.drain()
    assert len(server.backend.records[0].query) == MAX_LOGGED_CHARS


async def test_other_requests_are_not_logged(server: Server) -> None:
    for payload in (insert(), delete(["id-1"]), truncate(), request("register"), request("detox"), 7, b"{"):
        await server.service.handle(None, payload)
    await server.service.query_log.drain()
    assert server.backend.records == []


async def test_a_log_that_hangs_delays_nothing() -> None:
    metrics, backend = RecordedMetrics(), FaultyBackend(log_fault=Fault(hangs=True))
    slow = ModelCacheService(backend, metrics, clock=SetClock())
    slow.query_log = QueueWriter("query_log", backend.log, metrics, max_batch=2, max_waiting=2)
    for _ in range(2):
        assert (await slow.handle(None, query()))[0] == 200
    await asyncio.sleep(0)  # the writer takes them, and hangs
    for _ in range(4):
        assert (await slow.handle(None, query()))[1] == query_body(delta_time="0.03s")
    assert metrics.skipped == ["query_log_queue_full", "query_log_queue_full"]
    await slow.query_log.drain(0)
    await slow.query_log.stop()


async def test_a_log_that_fails_spoils_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, backend = RecordedMetrics(), FaultyBackend(log_fault=Fault(ValueError(CANARY)))
    server = Server(backend, metrics)
    assert await server.ask(query()) == query_body(delta_time="0.03s")
    await eventually(lambda: metrics.skipped == ["query_log_error"])
    monkeypatch.setattr(queue_writer, "WRITE_TIMEOUT_S", 0)
    backend.log_fault = Fault(hangs=True)
    await server.ask(query())
    await eventually(lambda: metrics.skipped == ["query_log_error"] * 2)
    backend.log_fault = Fault()
    monkeypatch.setattr(queue_writer, "WRITE_TIMEOUT_S", 10)
    await server.ask(query())
    await server.service.close()
    assert len(backend.records) == 1


async def test_lines_that_wait_are_written_together() -> None:
    batches: list[int] = []

    class Counting(FaultyBackend):
        async def log(self, records: Sequence[QueryRecord]) -> None:
            batches.append(len(records))
            await super().log(records)

    metrics, backend = RecordedMetrics(), Counting()
    written = QueueWriter("query_log", backend.log, metrics, max_batch=3)
    for number in range(7):
        written.add(QueryRecord(None, MODEL, 0, "", None, 0.0, str(number)))
    await written.drain()
    await written.stop()
    assert (batches, [each.query for each in backend.records]) == ([3, 3, 1], [str(number) for number in range(7)])


async def test_a_log_that_was_never_used_can_be_closed() -> None:
    await Server().service.close()
