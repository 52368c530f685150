"""KV events against vLLM's own structs and publisher, and over real sockets."""

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
import zmq
import zmq.asyncio

from cache.prefix.events import AllBlocksCleared, BlockRemoved, BlockStored, Event, KVEventBatch
from deployments.engines.base import KvEventSource
from deployments.engines.simulated.blocks import BlockCache, TokenSequence
from deployments.engines.simulated.publisher import END, KvEventPublisher, node_ip

LIMIT_S = 5.0
FULL = BlockStored([b"a" * 32, 7], b"p", [1, 2, 3, 4], 2, 3, "GPU", "lora", [("salt",), None], 1, "full_attention", 9, "LOCAL", "x", "s")
EVENTS: list[Event] = [
    BlockStored([b"b" * 32], None, [5, 6], 2, None, "GPU", None),
    FULL,
    BlockRemoved([b"b" * 32], "GPU"),
    BlockRemoved([b"b" * 32, b"c"], None, 0, "REMOTE", "y"),
    AllBlocksCleared(),
]


def stub(name: str, **members: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(members)
    return module


@pytest.fixture
def vllm_events(monkeypatch: pytest.MonkeyPatch) -> Any:
    """vLLM's kv_events module, from its file: importing the package around it takes half a minute."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("vLLM is not installed")
    names = ["get_ip", "get_tcp_uri", "is_valid_ipv6_address", "split_zmq_path"]
    for module in (
        stub("vllm"),
        stub("vllm.config"),
        stub("vllm.config.kv_events", KVEventsConfig=dict),
        stub("vllm.logger", init_logger=__import__("logging").getLogger),
        stub("vllm.utils"),
        stub("vllm.utils.network_utils", **dict.fromkeys(names)),
        stub("vllm.v1"),
        stub("vllm.v1.core"),
        stub("vllm.v1.core.kv_cache_utils", ExternalBlockHash=bytes | int),
    ):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    path = Path(spec.submodule_search_locations[0]) / "distributed" / "kv_events.py"
    file_spec = importlib.util.spec_from_file_location("vllm_kv_events", path)
    assert file_spec
    assert file_spec.loader
    module = importlib.util.module_from_spec(file_spec)
    monkeypatch.setitem(sys.modules, "vllm_kv_events", module)
    file_spec.loader.exec_module(module)
    return module


def real_events() -> list[Event]:
    """What a cache really emits, salted and not, evictions and reset included."""
    cache = BlockCache(3, 2)
    for salt in (None, "salt"):
        sequence = TokenSequence([1, 2, 3, 4, 5], 2, salt)
        cache.acquire(sequence, 5)
        cache.commit(sequence, 5)
        cache.release(sequence)
    cache.reset()
    return cache.take_events()


@pytest.mark.parametrize("events", [EVENTS, real_events()], ids=["every field", "from a cache"])
def test_vllm_reads_ours_and_we_read_vllms(vllm_events: Any, events: list[Event]) -> None:
    ours = msgspec.msgpack.encode(KVEventBatch(1.5, events, 0))
    theirs = msgspec.msgpack.decode(ours, type=vllm_events.KVEventBatch)
    assert [type(event).__name__ for event in theirs.events] == [type(event).__name__ for event in events]
    assert [msgspec.structs.asdict(event) for event in theirs.events] == [msgspec.structs.asdict(event) for event in events]
    assert (theirs.ts, theirs.data_parallel_rank) == (1.5, 0)
    assert msgspec.msgpack.encode(theirs) == ours
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(theirs), type=KVEventBatch).events == events


@pytest.mark.parametrize("name", ["BlockStored", "BlockRemoved", "AllBlocksCleared", "KVEventBatch"])
def test_structs_have_vllms_fields_and_settings(vllm_events: Any, name: str) -> None:
    import cache.prefix.events as our_events

    ours, theirs = getattr(our_events, name), getattr(vllm_events, name)
    assert ours.__struct_fields__ == theirs.__struct_fields__
    assert ours.__struct_defaults__ == theirs.__struct_defaults__
    for setting in ("tag", "tag_field", "array_like", "omit_defaults"):
        assert getattr(ours.__struct_config__, setting) == getattr(theirs.__struct_config__, setting)


@pytest.fixture
async def publisher() -> AsyncIterator[KvEventPublisher]:
    publisher = KvEventPublisher("127.0.0.1", buffer_steps=3)
    yield publisher
    publisher.close()


async def replay(endpoint: str, first: int) -> list[list[bytes]]:
    """All frames of a replay, its end included."""
    with zmq.asyncio.Context(zmq.Context.instance()).socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(endpoint)
        await dealer.send_multipart([b"", first.to_bytes(8, "big")])
        frames = [await asyncio.wait_for(dealer.recv_multipart(), LIMIT_S)]
        while frames[-1][2] != END:
            frames.append(await asyncio.wait_for(dealer.recv_multipart(), LIMIT_S))
        return frames


def numbers(frames: list[list[bytes]]) -> list[int]:
    return [int.from_bytes(frame[2], "big", signed=True) for frame in frames]


async def first_published(source: KvEventSource, publisher: KvEventPublisher) -> list[bytes]:
    """What a new subscriber receives first. It is connected at some time, so publish until it is."""
    with zmq.asyncio.Context(zmq.Context.instance()).socket(zmq.SUB) as sub:
        sub.subscribe(source.topic)
        sub.connect(source.endpoint)
        async with asyncio.timeout(LIMIT_S):
            while not await sub.poll(10):
                publisher.publish([AllBlocksCleared()])
            frames: list[bytes] = await sub.recv_multipart()
            return frames


async def test_subscribers_get_topic_sequence_and_batch(publisher: KvEventPublisher) -> None:
    topic, number, payload = await first_published(publisher.source, publisher)
    assert topic == publisher.source.topic.encode()
    assert len(number) == 8
    batch = msgspec.msgpack.decode(payload, type=KVEventBatch)
    assert (batch.events, batch.data_parallel_rank) == ([AllBlocksCleared()], 0)


async def test_replay_from_a_sequence_number_within_what_is_kept(publisher: KvEventPublisher) -> None:
    for number in range(5):
        publisher.publish([BlockRemoved([number], "GPU")])
    assert publisher.source.replay_endpoint
    everything = await replay(publisher.source.replay_endpoint, 0)
    assert numbers(everything) == [2, 3, 4, -1]
    assert msgspec.msgpack.decode(everything[0][3], type=KVEventBatch).events == [BlockRemoved([2], "GPU")]
    assert numbers(await replay(publisher.source.replay_endpoint, 4)) == [4, -1]
    assert numbers(await replay(publisher.source.replay_endpoint, 9)) == [-1]


async def test_a_request_without_sense_is_ignored(publisher: KvEventPublisher) -> None:
    assert publisher.source.replay_endpoint
    with zmq.asyncio.Context(zmq.Context.instance()).socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(publisher.source.replay_endpoint)
        for nonsense in ([b"x"], [b"", b"short"], [b"", b"", b"", b""]):
            await dealer.send_multipart(nonsense)
    assert numbers(await replay(publisher.source.replay_endpoint, 0)) == [-1]


async def test_replayed_frames_are_vllms(vllm_events: Any, publisher: KvEventPublisher) -> None:
    theirs = vllm_events.ZmqEventPublisher(0, "tcp://127.0.0.1:*", "tcp://127.0.0.1:*", topic=publisher.source.topic)
    try:
        for event in EVENTS[:2]:
            publisher.publish([event])
            theirs.publish(KVEventBatch(0.0, [event]))
        assert publisher.source.replay_endpoint
        endpoint = theirs._replay.getsockopt_string(zmq.LAST_ENDPOINT)
        frames = await replay(publisher.source.replay_endpoint, 0)
        async with asyncio.timeout(LIMIT_S):
            while len(expected := await replay(endpoint, 0)) < len(frames):
                await asyncio.sleep(0)
        assert [frame[:3] for frame in frames] == [frame[:3] for frame in expected]
        assert [without_time(frame[3]) for frame in frames] == [without_time(frame[3]) for frame in expected]
    finally:
        theirs.shutdown()


def without_time(payload: bytes) -> object:
    return msgspec.msgpack.decode(payload)[1:] if payload else payload


def test_the_nodes_address_can_be_bound() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    with context.socket(zmq.PUB) as socket:
        assert socket.bind_to_random_port(f"tcp://{node_ip()}") > 0
