"""Clients that leave, engines that are killed, a stop in the middle of a stream. Last: it leaves other processes behind it."""

import asyncio
import signal
import time
from collections import Counter
from typing import Any

import aiohttp
import psutil
import pytest

from serve_app.ports import is_free
from tests.e2e.system import System, poll, title

CLIENTS = 50
STOP_S = 40
LONG_PROMPTS = 64
"""Of six thousand tokens: at 20,000 a second they wait for seconds on two replicas."""
LONG = {"max_tokens": 4000, "stream": True, "ignore_eos": True, "cache": {"mode": "off"}}


def body(system: System, content: str, **fields: Any) -> dict[str, Any]:
    return {"model": system.model, "messages": [{"role": "user", "content": content}], **fields}


async def open_streams(session: aiohttp.ClientSession, system: System, count: int) -> list[aiohttp.ClientResponse]:
    async def open_one(number: int) -> aiohttp.ClientResponse:
        response = await session.post("/v1/chat/completions", json=body(system, f"Tell me {number}", **LONG))
        assert response.status == 200
        await response.content.readany()
        return response

    return list(await asyncio.gather(*(open_one(number) for number in range(count))))


def new_session(system: System) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(system.url, connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=60))


async def test_engines_stop_working_for_clients_that_left(system: System) -> None:
    async with new_session(system) as session:
        streams = await open_streams(session, system, CLIENTS)
        assert await asyncio.to_thread(system.ongoing) == CLIENTS
        for stream in streams:
            stream.close()
        left = time.monotonic()
        await asyncio.to_thread(poll, "no running requests", 2, lambda: system.ongoing() == 0)
        assert time.monotonic() - left < 2


async def test_a_client_that_leaves_while_waiting_stops_its_request(system: System) -> None:
    async with new_session(system) as session:
        request = body(system, "A long answer, please.", **{**LONG, "stream": False})
        with pytest.raises(TimeoutError):
            await session.post("/v1/chat/completions", json=request, timeout=aiohttp.ClientTimeout(total=1))
        await asyncio.to_thread(poll, "no running requests", 2, lambda: system.ongoing() == 0)


async def test_replicas_follow_the_work_that_waits(system: System) -> None:
    replicas = system.args["llm"]["replicas"]
    if replicas["min"] == replicas["max"]:
        pytest.skip("this configuration has a fixed number of replicas")
    async with new_session(system) as session:
        prompts = [" ".join(f"word{number * 4000 + place}" for place in range(3000)) for number in range(LONG_PROMPTS)]
        asking = [asyncio.create_task(_keep_asking(session, system, prompt)) for prompt in prompts]
        await asyncio.to_thread(poll, "another replica", 120, lambda: len(system.replicas()) > replicas["min"])
        for task in asking:
            task.cancel()


async def _keep_asking(session: aiohttp.ClientSession, system: System, prompt: str) -> None:
    number = 0
    while True:
        number += 1
        async with session.post(
            "/v1/chat/completions", json=body(system, f"{number} {prompt}", max_tokens=4, cache={"mode": "off"})
        ) as answer:
            await answer.read()


class Load:
    """Clients that ask again and again until they are stopped, and count what they got."""

    def __init__(self, system: System, clients: int = 6) -> None:
        self._system = system
        self._clients = clients
        self._stopping = False
        self.results: Counter[str] = Counter()
        self.longest_s = 0.0

    async def __aenter__(self) -> "Load":
        self._session = new_session(self._system)
        self._tasks = [asyncio.create_task(self._ask(client)) for client in range(self._clients)]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)
        await self._session.close()

    async def _ask(self, client: int) -> None:
        number = 0
        while not self._stopping:
            number += 1
            started = time.monotonic()
            self.results[await self._ask_once(f"Question {number} of client {client}", stream=number % 2 == 0)] += 1
            self.longest_s = max(self.longest_s, time.monotonic() - started)
            await asyncio.sleep(0.1)

    async def _ask_once(self, content: str, *, stream: bool) -> str:
        request = body(self._system, content, max_tokens=12, stream=stream, cache={"mode": "off"})
        async with self._session.post("/v1/chat/completions", json=request) as response:
            text = await response.text()
        if response.status != 200:
            return f"status {response.status}"
        return "broken stream" if stream and '"error":' in text else "answered"


def engine_processes(system: System) -> list[psutil.Process]:
    """The processes whose end is the end of an engine. The simulated engine lives in its replica's process."""
    return system.processes("LlmReplica" if system.is_simulated else "VLLM::EngineCore")


async def test_a_killed_engine_is_replaced_and_the_other_carries_on(system: System) -> None:
    before = {replica["id"] for replica in system.replicas()}
    engine = (await asyncio.to_thread(poll, "an engine's process", 60, lambda: engine_processes(system)))[0]
    async with Load(system) as load:
        await asyncio.to_thread(poll, "some answers", 30, lambda: load.results["answered"] > 20)
        engine.kill()
        at_kill = load.results["answered"]
        await asyncio.to_thread(poll, "answers of the other replica", 10, lambda: load.results["answered"] > at_kill + 20)
        await asyncio.to_thread(poll, "a replacement", 300, lambda: replaced(system, before))
    # Streams that the dead engine had begun break off with an error; nothing else fails, and nobody waits for it.
    assert load.results["broken stream"] <= 6, load.results
    assert set(load.results) <= {"answered", "broken stream"}, load.results
    assert load.longest_s < 30


def replaced(system: System, before: set[str]) -> bool:
    alive = {replica["id"] for replica in system.replicas() if "running" in replica}
    return len(alive) >= system.args["llm"]["replicas"]["min"] and alive != before


def test_a_killed_replica_leaves_no_process_behind(system: System) -> None:
    if system.is_simulated:
        pytest.skip("the simulated engine has no processes of its own")
    engine = poll("an engine's process", 60, lambda: engine_processes(system))[0]
    # Its own replica: that of the engine which was killed before may still be stopping.
    replica = next(each for each in engine.parents() if "LlmReplica" in title(each))
    family = replica.children(recursive=True)
    assert engine in family
    replica.kill()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    answer = system.http.post("/v1/chat/completions", json=body(system, "Still there?", max_tokens=4, cache={"mode": "off"}))
    assert answer.status_code == 200


async def test_a_stop_of_the_process_group_finishes_running_streams_and_leaves_nothing(system: System) -> None:
    """Stops the application: nothing can come after this test. `System.stop` signals the process alone."""
    async with new_session(system) as session:
        request = body(system, "The last one.", **{**LONG, "max_tokens": 200})
        response = await session.post("/v1/chat/completions", json=request)
        await response.content.readany()
        everyone = system.descendants()
        system.send_signal(signal.SIGTERM, group=True)
        rest = await response.content.read()
    assert rest.endswith(b"data: [DONE]\n\n")
    assert b'"error"' not in rest
    assert await asyncio.to_thread(system.wait, STOP_S) == 0, system.tail()
    assert not [each for each in everyone if each.is_running()]
    assert is_free("127.0.0.1", system.port)
