"""The simulated engine in real time, behind a real server."""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import uvicorn
import zmq
import zmq.asyncio

from cache.prefix.events import AllBlocksCleared, BlockStored, KVEventBatch
from deployments.config import ModelConfig, SimulatedEngineConfig
from deployments.engines.base import Engine
from deployments.engines.simulated import SimulatedEngine
from deployments.engines.simulated.generation import Task
from deployments.engines.simulated.text import Limits
from deployments.errors import EngineDeadError, EngineStartError

LIMIT_S = 5.0
STEP_S = 0.005
CONFIG = SimulatedEngineConfig(prefill_tokens_per_s=1e6, decode_step_s=STEP_S, decode_step_per_request_s=0, max_running=8)
LONG = {"messages": [{"role": "user", "content": "Tell me everything."}], "max_tokens": 4000, "ignore_eos": True}


def make(config: SimulatedEngineConfig = CONFIG, **options: Any) -> SimulatedEngine:
    return SimulatedEngine(config, ModelConfig(), host="127.0.0.1", **options)


@pytest.fixture
async def engine() -> AsyncIterator[SimulatedEngine]:
    engine = make()
    await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture
async def http(engine: SimulatedEngine) -> AsyncIterator[httpx.AsyncClient]:
    async with served(engine) as url, httpx.AsyncClient(base_url=url, timeout=LIMIT_S) as client:
        yield client


@asynccontextmanager
async def served(engine: SimulatedEngine) -> AsyncIterator[str]:
    server = uvicorn.Server(uvicorn.Config(engine.app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
    listening = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.create_task(server.serve([listening]))
    await until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        listening.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.001)


def is_engine(engine: Engine) -> Engine:
    return engine


def test_importing_it_does_not_import_vllm() -> None:
    program = "import deployments.engines.simulated, sys; sys.exit('vllm' in sys.modules or 'torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parent.parent.parent)


async def test_the_contract(engine: SimulatedEngine) -> None:
    assert is_engine(engine) is engine
    assert (engine.block_size, engine.max_model_len) == (CONFIG.block_size, CONFIG.max_model_len)
    (source,) = engine.kv_event_sources()
    assert source.endpoint.startswith("tcp://127.0.0.1:")
    assert source.replay_endpoint
    assert engine.load().ongoing == 0
    await engine.check_health()


async def test_start_and_stop_twice() -> None:
    engine = make()
    with pytest.raises(EngineDeadError):
        await engine.check_health()
    with pytest.raises(RuntimeError):
        engine.kv_event_sources()
    await engine.start()
    await engine.start()
    await engine.check_health()
    await engine.stop()
    await engine.stop()
    with pytest.raises(EngineDeadError, match="stopped"):
        await engine.check_health()
    with pytest.raises(EngineStartError):
        await engine.start()


async def test_stop_without_start() -> None:
    await make().stop()


async def test_a_cache_too_small_for_one_request_does_not_start() -> None:
    with pytest.raises(EngineStartError, match="kv_blocks"):
        await make(CONFIG.model_copy(update={"kv_blocks": 10})).start()


async def test_an_address_that_is_not_here_does_not_start() -> None:
    engine = SimulatedEngine(CONFIG, ModelConfig(), host="192.0.2.1")
    with pytest.raises(EngineStartError, match=r"192\.0\.2\.1"):
        await engine.start()


async def test_tokens_come_at_the_configured_rate(http: httpx.AsyncClient) -> None:
    began = time.monotonic()
    response = await http.post("/v1/chat/completions", json={**LONG, "max_tokens": 101})
    assert response.status_code == 200
    assert 100 * STEP_S <= time.monotonic() - began < LIMIT_S


async def test_late_steps_do_not_add_up_unless_they_are_very_late() -> None:
    engine = make(clock=lambda: 100.0)
    assert await engine._until(99.9) == 99.9
    assert await engine._until(90.0) == 100.0


async def test_streams_arrive_token_by_token(http: httpx.AsyncClient, engine: SimulatedEngine) -> None:
    async with http.stream("POST", "/v1/chat/completions", json={**LONG, "stream": True}) as response:
        lines = response.aiter_lines()
        chunks = [line async for line in limited(lines, 20) if line]
    assert len(chunks) == 10
    assert "usage" not in chunks[0]
    await until(lambda: engine.load().ongoing == 0)


async def limited(lines: AsyncIterator[str], count: int) -> AsyncIterator[str]:
    for _ in range(count):
        yield await anext(lines)


@pytest.mark.parametrize("stream", [True, False])
async def test_clients_that_leave_end_their_requests(http: httpx.AsyncClient, engine: SimulatedEngine, stream: bool) -> None:
    """Running and waiting ones: there are more than can run."""
    requests = [asyncio.create_task(http.post("/v1/chat/completions", json={**LONG, "stream": stream})) for _ in range(20)]
    await until(lambda: engine.load().running == 8 and engine.load().waiting == 12)
    for request in requests:
        request.cancel()
    await asyncio.gather(*requests, return_exceptions=True)
    left = time.monotonic()
    await until(lambda: engine.load().ongoing == 0)
    assert time.monotonic() - left < 1
    assert engine.load().kv_usage == 0


async def test_a_client_that_leaves_is_noticed_within_a_step_without_a_server() -> None:
    """While a step lasts: the abort does not wait for its end."""
    engine = make(CONFIG.model_copy(update={"decode_step_s": 60.0}))
    await engine.start()
    gone = asyncio.Event()
    messages = [{"type": "http.request", "body": msgspec.json.encode({**LONG, "stream": True}), "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": [], "query_string": b""}
    handling = asyncio.ensure_future(engine.app(scope, receive, send))
    await until(lambda: len(sent) == 2)
    assert engine.load().running == 1
    gone.set()
    await asyncio.wait_for(handling, LIMIT_S)
    assert engine.load().ongoing == 0
    await engine.stop()


async def in_flight(http: httpx.AsyncClient, engine: SimulatedEngine) -> list[asyncio.Task[httpx.Response]]:
    bodies = [{**LONG, "stream": stream} for stream in (True, False)]
    requests = [asyncio.create_task(http.post("/v1/chat/completions", json=body)) for body in bodies]
    await until(lambda: engine.load().running == 2 and engine.load().kv_usage > 0)
    await until(lambda: all(choice.generated > 1 for choice in engine._scheduler.running))
    return requests


async def test_stop_ends_requests_in_flight_with_an_error(http: httpx.AsyncClient, engine: SimulatedEngine) -> None:
    requests = await in_flight(http, engine)
    await engine.stop()
    stream, whole = await asyncio.gather(*requests)
    assert whole.status_code == 500
    assert whole.json()["error"]["type"] == "InternalServerError"
    *_, error, done, rest = stream.text.split("\n\n")
    assert msgspec.json.decode(error.removeprefix("data: "))["error"]["type"] == "InternalServerError"
    assert (done, rest) == ("data: [DONE]", "")
    assert engine.load().ongoing == 0
    assert (await http.get("/health")).status_code == 503
    assert (await http.post("/v1/chat/completions", json=LONG)).status_code == 500


async def test_stop_leaves_answers_that_are_complete() -> None:
    """Their load is gone, so a drain may end, before the handlers had a turn to relay the last tokens."""
    engine = make()
    await engine.start()
    generation = engine.submit(Task([([1, 2, 3], Limits(max_tokens=2, natural_max=2))]))
    finishing = asyncio.create_task(generation.finish())
    await until(lambda: generation.choices[0].generated == 1)
    while engine.load().ongoing:
        engine._deliver(engine._scheduler.step(time.monotonic() + LIMIT_S))
    await engine.stop()
    await finishing


async def test_kill_breaks_streams_and_everything_after(http: httpx.AsyncClient, engine: SimulatedEngine) -> None:
    requests = await in_flight(http, engine)
    engine.kill()
    stream, whole = await asyncio.gather(*requests, return_exceptions=True)
    assert isinstance(stream, httpx.RemoteProtocolError)
    assert isinstance(whole, httpx.Response)
    assert whole.status_code == 500
    assert (await http.get("/health")).status_code == 503
    assert (await http.post("/v1/completions", json={"prompt": "x"})).status_code == 500
    with pytest.raises(EngineDeadError, match="killed"):
        await engine.check_health()
    await engine.stop()
    with pytest.raises(EngineDeadError, match="killed"):
        await engine.check_health()


async def test_a_failure_inside_is_a_dead_engine(
    http: httpx.AsyncClient, engine: SimulatedEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: object, now: float) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("deployments.engines.simulated.scheduler.Scheduler.step", fail)
    response = await http.post("/v1/completions", json={"prompt": "x"})
    assert response.status_code == 500
    with pytest.raises(EngineDeadError, match="ZeroDivisionError"):
        await engine.check_health()
    assert "the simulated engine failed" in caplog.text


async def test_events_follow_requests(http: httpx.AsyncClient, engine: SimulatedEngine) -> None:
    (source,) = engine.kv_event_sources()
    response = await http.post("/v1/completions", json={"prompt": list(range(70)), "max_tokens": 1, "cache_salt": "pepper"})
    assert response.status_code == 200
    assert (await http.post("/reset_prefix_cache")).json() == {"success": True}
    with zmq.asyncio.Context(zmq.Context.instance()).socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        assert source.replay_endpoint
        dealer.connect(source.replay_endpoint)
        batches: list[KVEventBatch] = []
        async with asyncio.timeout(LIMIT_S):
            while len(batches) < 2:  # the reset is published by the loop, in its next turn
                batches = await replayed(dealer)
    (stored,), (cleared,) = (batch.events for batch in batches)
    assert isinstance(stored, BlockStored)
    assert stored.token_ids == list(range(64))
    assert stored.extra_keys == [("pepper",), None]
    assert cleared == AllBlocksCleared()


async def replayed(dealer: zmq.asyncio.Socket) -> list[KVEventBatch]:
    await dealer.send_multipart([b"", bytes(8)])
    batches: list[KVEventBatch] = []
    while payload := (await dealer.recv_multipart())[3]:
        batches.append(msgspec.msgpack.decode(payload, type=KVEventBatch))
    return batches


async def test_an_idle_engine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = 0

    def clock() -> float:
        nonlocal readings
        readings += 1
        return time.monotonic()

    engine = make(clock=clock)
    await engine.start()
    for _ in range(100):
        await asyncio.sleep(0)
    assert readings == 1
    await engine.stop()


async def test_a_clock_that_is_read_before_a_steps_nominal_end_does_not_stop_the_engine() -> None:
    """Event loops wake a little early, and a step ends at its nominal time."""
    engine = make(clock=lambda: 100.0)
    await engine.start()
    for _ in range(3):
        generation = engine.submit(Task([([1, 2, 3], Limits(max_tokens=2, natural_max=2))]))
        await asyncio.wait_for(generation.finish(), 5)
    await engine.check_health()
    await engine.stop()
