"""An LLM replica without Ray around it: a plain object with an engine and a private server."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from deployments.channel.client import connect
from deployments.channel.frames import Request
from deployments.config import LlmConfig, SimulatedEngineConfig, VllmArgs, VllmEngineConfig
from deployments.llm import LlmReplica

SECRET = "between us"
CONFIG = LlmConfig(engine=SimulatedEngineConfig(decode_step_s=0.001), drain_timeout_s=5)
BODY = {"model": "mygo-demo", "messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 8, "stream": True}


class Replica(LlmReplica):
    """Serve awaits `__del__`, Python's own collector does not."""

    def __del__(self) -> None: ...  # type: ignore[override]


async def started() -> Replica:
    replica = object.__new__(Replica)
    await replica.__init__(CONFIG, "127.0.0.1", SECRET, "its model")  # type: ignore[misc]  # as Serve calls it
    return replica


@pytest.fixture
async def replica() -> AsyncIterator[LlmReplica]:
    replica = await started()
    yield replica
    await replica.drain_and_stop()


async def relayed(replica: LlmReplica, headers: dict[str, str] | None = None, **fields: object) -> tuple[int, bytes]:
    given = {"content-type": "application/json", "x-request-id": "r1", **(headers or {})}
    stream = replica.relay("POST", "/v1/chat/completions", given, msgspec.json.encode({**BODY, **fields}))
    status, _ = await anext(stream)
    return status, b"".join([chunk async for chunk in stream])


async def test_the_handle_gives_the_same_bytes_as_the_direct_connection(replica: LlmReplica) -> None:
    connection = await connect(replica.record_replica_metadata()["url"], SECRET.encode(), 5)
    headers = [(b"content-type", b"application/json"), (b"x-request-id", b"r1")]
    exchange = connection.request(Request("POST", "/v1/chat/completions", headers, msgspec.json.encode(BODY)))
    direct_status, direct = (await exchange.start()).status, b""
    while piece := await exchange.read():
        direct += piece
    connection.close()
    status, relayed_bytes = await relayed(replica)
    assert status == direct_status == 200
    # The first request filled the KV cache for the second; the answers themselves are equal.
    assert relayed_bytes.split(b'"usage"')[0] == direct.split(b'"usage"')[0]
    assert relayed_bytes.endswith(b"data: [DONE]\n\n")


async def test_metadata_says_where_and_how_large(replica: LlmReplica) -> None:
    metadata = replica.record_replica_metadata()
    assert metadata["url"].startswith("tcp://127.0.0.1:")
    assert (metadata["max_model_len"], metadata["block_size"]) == (8192, 32)
    assert (metadata["reuses_tokens"], metadata["model"], metadata["control_tokens"]) == (False, "its model", ())


async def test_load_is_reported_for_autoscaling(replica: LlmReplica) -> None:
    assert await replica.record_autoscaling_stats() == {"queued_prefill_seconds": 0.0, "prefill_share": 0.0, "kv_usage": 0.0}
    running = asyncio.create_task(relayed(replica, {"x-mygo-work": "0 100 500.0 0"}, max_tokens=2000, ignore_eos=True))
    async with asyncio.timeout(5):
        while not (stats := await replica.record_autoscaling_stats())["prefill_share"]:
            await asyncio.sleep(0.01)
    assert stats["prefill_share"] > 1
    async with asyncio.timeout(5):
        while not (await replica.record_autoscaling_stats())["kv_usage"]:
            await asyncio.sleep(0.01)
    running.cancel()


async def test_a_stop_finishes_what_runs_and_takes_nothing_new() -> None:
    replica = await started()
    running = asyncio.create_task(relayed(replica, max_tokens=300, ignore_eos=True))
    async with asyncio.timeout(5):
        while not replica._gate.open:
            await asyncio.sleep(0.01)
    stopping = asyncio.create_task(replica.drain_and_stop())
    await asyncio.sleep(0)
    refused, _ = await relayed(replica)
    status, body = await running
    await stopping
    assert refused == 503
    assert status == 200
    assert body.endswith(b"data: [DONE]\n\n")


SHARES = [(0, 2, None, 0), (2, 2, None, 1), (1, 2, None, 0.5), (8, 2, 4, 4), (8, 4, None, 1), (3, 2, 2, 2)]


@pytest.mark.parametrize(("in_cluster", "replicas", "parallel", "expected"), SHARES)
def test_gpus_are_reserved_where_there_are_some(in_cluster: float, replicas: int, parallel: int | None, expected: float) -> None:
    config = LlmConfig.model_validate(
        {"replicas": {"max": replicas}, "engine": VllmEngineConfig(args=VllmArgs(tensor_parallel_size=parallel)).model_dump()}
    )
    assert config.gpus_of_one_replica(in_cluster) == expected
    assert config.model_copy(update={"num_gpus": 0.25}).gpus_of_one_replica(in_cluster) == 0.25
    assert CONFIG.gpus_of_one_replica(in_cluster) == 0
