"""Dynamo's `SelectionService` (PyPI `ai-dynamo-runtime`), which Ray's `KVAwareRouter` calls, for the fleet simulator.

It is called as Ray calls it, with its default weights. Events reach its indexer over ZMQ in real time, so before each decision a marker is
published behind them and waited for: it decides on the state of the simulated moment.
"""

from __future__ import annotations

import asyncio
import os
import time
from array import array
from typing import Any

import msgspec
import zmq

from cache.prefix.events import BlockRemoved, BlockStored, Event, KVEventBatch
from deployments.config import SimulatedEngineConfig

_MODEL = {"model_name": "model", "tenant_id": "default"}
_LIMIT_S = 30.0


class DynamoSelection:
    def __init__(self, config: SimulatedEngineConfig, replicas: int) -> None:
        os.environ.setdefault("DYN_LOG", "error")
        from dynamo.llm import SelectionService

        self._size = config.block_size
        self._loop = asyncio.new_event_loop()
        self._service: Any = SelectionService(indexer_threads=1)
        self._publishers = [_Publisher() for _ in range(replicas)]
        self._workers = list(range(replicas))
        self._marks = 0
        self._do(self._start(config))

    async def _start(self, config: SimulatedEngineConfig) -> None:
        for worker, publisher in enumerate(self._publishers):
            await self._service.upsert_worker(
                {
                    **_MODEL,
                    "worker_id": worker,
                    "endpoint": f"simulated://{worker}",
                    "block_size": config.block_size,
                    "max_num_batched_tokens": config.max_batched_tokens,
                    "data_parallel_start_rank": 0,
                    "data_parallel_size": 1,
                    "kv_events_endpoints": {0: publisher.endpoint},
                }
            )
        await asyncio.sleep(0.5)  # subscriptions reach a publisher without being acknowledged
        await self._settle(range(len(self._workers)))

    def choose(self, number: int, prompt: array[int], answer_tokens: int) -> int:
        return int(self._do(self._choose(number, prompt, answer_tokens)))

    async def _choose(self, number: int, prompt: array[int], answer_tokens: int) -> int:
        await self._settle([worker for worker in self._workers if self._publishers[worker].is_ahead])
        request = {
            **_MODEL,
            "selection_id": str(number),
            "token_ids": prompt.tolist(),
            "allowed_worker_ids": self._workers,
            "expected_output_tokens": answer_tokens,
        }
        chosen = await self._service.select_and_reserve(request)
        return chosen["worker_id"]  # type: ignore[no-any-return]

    def sent(self, number: int) -> None: ...

    def first_token(self, number: int) -> None:
        self._do(self._tell(self._service.prefill_complete, number))

    def ended(self, number: int) -> None:
        self._do(self._tell(self._service.free_reservation, number))

    def events(self, replica: int, events: list[Event]) -> None:
        self._publishers[replica].publish(events)

    def close(self) -> None:
        self._service.shutdown()
        for publisher in self._publishers:
            publisher.close()
        self._loop.close()

    async def _settle(self, workers: Any) -> None:
        self._marks += 1
        tokens = [(1 << 32) - self._marks] * self._size
        behind = set(workers)
        for worker in behind:
            self._publishers[worker].mark(self._marks, tokens)
        end = time.monotonic() + _LIMIT_S
        while behind:
            scores = await self._service.overlap_scores({**_MODEL, "token_ids": tokens})
            behind -= {each["worker_id"] for each in scores["workers"] if each["device_blocks"]}
            if time.monotonic() > end:
                raise TimeoutError("Dynamo's indexer did not receive the events")

    def _do(self, call: Any) -> Any:
        return self._loop.run_until_complete(call)

    async def _tell(self, method: Any, number: int) -> None:
        await method(str(number))


class _Publisher:
    """One worker's event socket."""

    def __init__(self) -> None:
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUB)
        self._socket.set_hwm(1_000_000)
        self._socket.bind("tcp://127.0.0.1:0")
        self.endpoint: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.is_ahead = False
        self._number = 0
        self._mark: int | None = None

    def publish(self, events: list[Event]) -> None:
        self._send([_renamed(event) for event in events])
        self.is_ahead = True

    def mark(self, mark: int, tokens: list[int]) -> None:
        removed = [BlockRemoved([self._mark], "GPU", 0)] if self._mark else []
        self._send([*removed, BlockStored([mark], None, tokens, len(tokens), None, "GPU", None, None, 0, "full_attention")])
        self._mark = mark
        self.is_ahead = False

    def _send(self, events: list[Event]) -> None:
        payload = msgspec.msgpack.encode(KVEventBatch(0.0, events, 0))
        self._socket.send_multipart((b"", self._number.to_bytes(8, "big"), payload))
        self._number += 1

    def close(self) -> None:
        self._socket.close(linger=0)


def _renamed(event: Event) -> Event:
    """With names as vLLM publishes them by default: 64 bits of the hash."""
    if isinstance(event, BlockStored):
        parent = None if event.parent_block_hash is None else _number(event.parent_block_hash)
        return msgspec.structs.replace(event, block_hashes=[_number(name) for name in event.block_hashes], parent_block_hash=parent)
    if isinstance(event, BlockRemoved):
        return msgspec.structs.replace(event, block_hashes=[_number(name) for name in event.block_hashes])
    return event


def _number(name: bytes | int) -> int:
    return name if isinstance(name, int) else int.from_bytes(name[:8], "big")
