"""The benchmarks of the data path: their tools, and those parts of them that need no running application."""

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from benchmarks import streams, wrk
from benchmarks.hit_memory import LENGTHS, _held_apart
from benchmarks.hit_path import _relate
from benchmarks.hit_scaling import _stale_once
from benchmarks.hit_stages import stages
from benchmarks.report import merged
from benchmarks.semantic_path import _questions
from benchmarks.servers import uvicorn

OUTPUT = """Running 5s test @ http://127.0.0.1:1/
  1 threads and 16 connections
  Latency Distribution
     50%    2.18ms
     75%    3.10ms
     90%    4.55ms
     99%    1.02s
  32737 requests in 5.00s, 24.04MB read
  Socket errors: connect 1, read 2, write 0, timeout 3
  Non-2xx or 3xx responses: 7
Requests/sec:   6547.20
Transfer/sec:      4.81MB
"""


def test_what_wrk_says_is_read() -> None:
    read = wrk._read(OUTPUT)
    assert (read.requests, read.requests_per_s, read.errors) == (32737, 6547.2, 13)
    assert read.p50_s == pytest.approx(0.00218)
    assert read.p99_s == pytest.approx(1.02)


def test_any_body_can_stand_in_wrks_script() -> None:
    assert wrk._quoted(b'{"a": "\\n\xff\x00"}') == '"{\\034a\\034: \\034\\092n\\255\\000\\034}"'


def test_stages_of_a_hit_add_up() -> None:
    found = {row["stage"]: row["cpu_us"] for row in stages(quick=True)}
    assert 0 < found["look_up_and_render"] < found["recognise"] < found["whole_hit"]
    assert found["parse"] < found["parse_and_key"]


def test_rounds_are_merged_by_their_median_and_related_to_the_bare_server() -> None:
    rounds = [
        [{"system": name, "connections": 1, "requests_per_s": rate * factor, "requests": 5, "errors": 0} for name, rate in RATES]
        for factor in (1, 3, 2)
    ]
    rows = merged(rounds, added=("requests", "errors"))
    _relate(rows)
    assert [(row["requests_per_s"], row["requests"], row["of_bare_asgi"]) for row in rows] == [(200.0, 15, 1.0), (50.0, 15, 0.25)]


RATES = [("bare_asgi", 100.0), ("ours", 25.0)]


@pytest.mark.parametrize("stream", [False, True])
def test_held_answers_take_about_what_is_counted(stream: bool) -> None:
    row = _held_apart(LENGTHS[1], stream)
    assert 0.5 < row["counted_bytes_each"] / row["bytes_each"] < 2


def test_questions_are_asked_in_words_that_are_not_kept() -> None:
    kept, asked = _questions(3000, 300, seed=1)
    assert len(kept) == len(set(kept)) == 3000
    assert len(asked) > 20
    assert not set(kept) & set(asked)


@contextlib.asynccontextmanager
async def three_tokens() -> AsyncIterator[int]:
    """The port of a server of streams that end well if `/good` is asked for."""

    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError), contextlib.closing(writer):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(3):
                writer.write(b'data: {"x": 1}\n\n')
                await writer.drain()
                await asyncio.sleep(0.01)
            if b"/bad" not in head:
                writer.write(b"data: [DO")
                await asyncio.sleep(0.01)
                writer.write(b"NE]\n\n")

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.ensure_future(serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await asyncio.gather(*serving)


def chats() -> Iterator[bytes]:
    return (streams.chat("m", 3, random.Random(number)) for number in itertools.count())


async def test_streams_are_counted_and_broken_ones_are_errors() -> None:
    async with three_tokens() as port:
        good = await streams.run(port, list(itertools.islice(chats(), 2)), "/good")
        bad = await streams.run(port, list(itertools.islice(chats(), 2)), "/bad")
    assert (good.streams, good.errors, good.tokens, len(good.ttft_s), len(good.gaps_s)) == (2, 0, 6, 2, 4)
    assert (bad.errors, bad.tokens) == (2, 0)


async def test_where_a_stream_ends_the_next_one_begins() -> None:
    async with three_tokens() as port:
        kept_up = await streams.keep_up(port, chats(), 4, 0.5)
    assert kept_up.errors == 0
    assert kept_up.streams > 8
    assert 0.8 < kept_up.tokens_per_s / (kept_up.tokens / kept_up.wall_s) < 1.25


@pytest.mark.parametrize("seen_after_s", [0.0, 0.4])
async def test_an_old_answer_is_counted_as_long_as_it_is_given(seen_after_s: float) -> None:
    ended: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/cache/invalidate":
            ended.append(time.perf_counter())
            return httpx.Response(200)
        is_old = not ended or time.perf_counter() < ended[0] + seen_after_s
        return httpx.Response(200, headers={"x-mygo-entry": "old" if is_old else "new"})

    async with httpx.AsyncClient(base_url="http://m", transport=httpx.MockTransport(answer)) as client:
        assert seen_after_s - 0.1 < await _stale_once(client) <= seen_after_s


def test_the_bare_server_answers(tmp_path: Path) -> None:
    for app in ("asgi", "api"):
        with uvicorn(f"benchmarks.rivals.bare:{app}", tmp_path / "log", {"ANSWER_BYTES": "700"}) as server:
            answer = httpx.post(f"{server.url}/v1/chat/completions", json={"model": "m"})
            assert (answer.status_code, answer.json()["object"]) == (200, "chat.completion")
            assert 650 < len(answer.content) < 750
