"""Clients that are slow or gone, and hits that come before Ray Serve's own work."""

import asyncio
import json
from typing import Any

import httpx
import psutil

from tests.e2e.system import System, poll

SLOW_READERS = 20


def request_of(system: System, content: str, **fields: Any) -> bytes:
    body = json.dumps({"model": system.model, "messages": [{"role": "user", "content": content}], **fields}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def ingress(system: System) -> psutil.Process:
    (process,) = system.processes(":Ingress")
    return process


async def test_a_request_may_come_byte_by_byte(system: System) -> None:
    request = request_of(system, "One byte after the other.", max_tokens=4)
    reader, writer = await asyncio.open_connection("127.0.0.1", system.port)
    for place in range(len(request)):
        writer.write(request[place : place + 1])
        await writer.drain()
        await asyncio.sleep(0.001)
    assert (await asyncio.wait_for(reader.readline(), 30)).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_who_reads_slowly_takes_no_memory(system: System) -> None:
    """Each asks for more than all buffers on the way hold, and reads nothing."""
    before = ingress(system).memory_info().rss
    writers = []
    for number in range(SLOW_READERS):
        _, writer = await asyncio.open_connection("127.0.0.1", system.port, limit=1024)
        fields = {"max_tokens": 4000, "stream": True, "ignore_eos": True, "cache": {"mode": "off"}}
        writer.write(request_of(system, f"Tell me everything about number {number}.", **fields))
        writers.append(writer)
    await asyncio.sleep(8)
    grown = ingress(system).memory_info().rss - before
    for writer in writers:
        writer.transport.abort()
    assert grown < SLOW_READERS * 2 * 1024 * 1024
    await asyncio.to_thread(poll, "no running requests", 10, lambda: system.ongoing() == 0)


async def test_aborted_requests_leave_nothing_behind(system: System) -> None:
    number = 10_000 if system.is_simulated else 500
    process = ingress(system)
    sockets, threads = process.num_fds(), process.num_threads()

    async def abort(place: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", system.port)
        writer.write(request_of(system, f"Nobody waits for {place}.", stream=place % 2 == 0, max_tokens=500, cache={"mode": "off"}))
        await writer.drain()
        if place % 4 == 0:
            await asyncio.wait_for(reader.read(16), 30)
        writer.transport.abort()

    for start in range(0, number, 100):
        await asyncio.gather(*(abort(place) for place in range(start, start + 100)))
    await asyncio.to_thread(poll, "no running requests", 60, lambda: system.ongoing() == 0)
    await asyncio.to_thread(poll, "sockets are closed", 60, lambda: process.num_fds() <= sockets + 20)
    assert process.num_threads() <= threads + 8
    answered = await asyncio.to_thread(lambda: system.http.post("/v1/models", json={}))
    assert answered.status_code == 405


def test_a_hit_of_the_front_is_as_any_other(http: httpx.Client, chat: dict[str, Any], system: System) -> None:
    fresh = http.post("/v1/chat/completions", json=chat)
    hits = [http.post("/v1/chat/completions", json=chat, headers={"x-request-id": f"front-{place}"}) for place in range(4)]
    assert [hit.headers["x-mygo-cache"] for hit in hits] == ["exact"] * 4
    assert [hit.headers["x-request-id"] for hit in hits] == [hit.json()["id"].removeprefix("chatcmpl-") for hit in hits]
    assert {hit.json()["choices"][0]["message"]["content"] for hit in hits} == {fresh.json()["choices"][0]["message"]["content"]}
    poll("its line in the log", 10, lambda: '"front-3"' in system.session_logs())
