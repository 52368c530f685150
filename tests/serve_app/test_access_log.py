"""Lines of the access log, written some at a time."""

import asyncio
import json
import logging
import logging.handlers
import time
from pathlib import Path

import pytest

from serve_app import access_log
from serve_app.access_log import BatchedAccessLog, beside_serve_log
from serve_app.exchanges import Exchange

AT = 1_700_000_000.25
ROUTE = "POST /x"


@pytest.fixture
def written() -> list[str]:
    return []


@pytest.fixture
def log(written: list[str]) -> BatchedAccessLog:
    return BatchedAccessLog(written.append, "r1", lambda: AT)


async def test_a_line_says_what_was_asked_and_what_became_of_it(log: BatchedAccessLog, written: list[str]) -> None:
    log(ROUTE, Exchange("a-1", 0.0, 200, cache="exact"), 0.0123)
    log.flush()
    assert json.loads(written[0]) == {
        "asctime": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(AT)) + ",250",
        "levelname": "INFO",
        "message": "request",
        "id": "a-1",
        "path": ROUTE,
        "status": 200,
        "cache": "exact",
        "duration_ms": 12.3,
        "replica": "r1",
    }


async def test_lines_are_written_together_soon_after_the_first(log: BatchedAccessLog, written: list[str]) -> None:
    for number in range(3):
        log(ROUTE, Exchange(str(number)), 0.0)
    assert written == []
    async with asyncio.timeout(5):
        while not written:
            await asyncio.sleep(0.01)
    assert [json.loads(line)["id"] for line in written[0].splitlines()] == ["0", "1", "2"]
    log.flush()
    assert len(written) == 1


async def test_no_more_lines_wait_than_are_written_in_a_moment(
    log: BatchedAccessLog, written: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "MAX_WAITING", 2)
    for number in range(5):
        log(ROUTE, Exchange(str(number)), 0.0)
    assert [len(batch.splitlines()) for batch in written] == [2, 2]
    log.flush()


async def test_the_file_lies_beside_the_replicas_own_and_is_rotated_like_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = logging.handlers.RotatingFileHandler(tmp_path / "replica_mygo_Ingress_r1.log", maxBytes=300, backupCount=2)
    monkeypatch.setattr(logging.getLogger("ray.serve"), "handlers", [logging.handlers.MemoryHandler(1, target=own)])
    log = beside_serve_log("r1")
    assert log is not None
    for number in range(9):
        log(ROUTE, Exchange(str(number)), 0.0)
        log.flush()
    paths = sorted(tmp_path.glob("access_replica_mygo_Ingress_r1.log*"))  # noqa: ASYNC240
    assert len(paths) == 3
    assert all(json.loads(line)["replica"] == "r1" for path in paths for line in path.read_text().splitlines())
    own.close()
    for handler in logging.getLogger("mygo.access").handlers:
        handler.close()


async def test_where_serve_has_no_file_there_is_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("ray.serve"), "handlers", [logging.NullHandler()])
    assert beside_serve_log("r1") is None
