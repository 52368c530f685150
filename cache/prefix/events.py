"""KV cache events, in the wire form of vLLM 0.32 (vllm/distributed/kv_events.py).

A batch is an array `[ts, events, data_parallel_rank]`, an event a map with its class's name under `type`; fields at
their default are left out.
"""

from typing import Any

import msgspec

MEDIUM_GPU, MEDIUM_CPU = "GPU", "CPU"


class KVCacheEvent(msgspec.Struct, omit_defaults=True, gc=False, tag=True):
    """Base of the events."""


class BlockStored(KVCacheEvent):
    """Consecutive blocks of one chain can now be reused."""

    block_hashes: list[bytes | int]
    parent_block_hash: bytes | int | None
    token_ids: list[int]
    block_size: int
    lora_id: int | None
    medium: str | None
    lora_name: str | None
    extra_keys: list[tuple[Any, ...] | None] | None = None
    """For each block what its hash covers besides tokens: the cache salt, on the first block of a chain."""
    group_idx: int | None = None
    kv_cache_spec_kind: str | None = None
    kv_cache_spec_sliding_window: int | None = None
    locality: str | None = None
    ownership: str | None = None
    session_id: str | None = None


class BlockRemoved(KVCacheEvent):
    """Blocks were evicted."""

    block_hashes: list[bytes | int]
    medium: str | None
    group_idx: int | None = None
    locality: str | None = None
    ownership: str | None = None


class AllBlocksCleared(KVCacheEvent):
    """The cache was reset."""


Event = BlockStored | BlockRemoved | AllBlocksCleared


class KVEventBatch(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """What happened in one step. `ts` is seconds since the epoch."""

    ts: float
    events: list[Event]
    data_parallel_rank: int | None = None
