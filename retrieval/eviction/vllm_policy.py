"""PGDSF in vLLM's native KV offload, versions 0.31 to 0.33: an out-of-tree `CachePolicy`.

    --kv-transfer-config '{"kv_connector": "OffloadingConnector", "kv_role": "kv_both", "kv_connector_extra_config": {
        "cpu_bytes_to_use": ..., "eviction_policy": "PgdsfCachePolicy", "cache_policy_module_path": "retrieval.eviction.vllm_policy"}}'

vLLM names a chunk of some blocks by the hash of everything up to its end, and tells where in the prompt it ends. So the chunks of a request
are a chain, for each group of layers one of its own. The times of prefills are those of the profile that comes with a request's context
(`hints.py`), else a first guess.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from vllm.v1.kv_offload.base import OffloadKey, ReqContext, get_offload_group_idx
from vllm.v1.kv_offload.cpu.policies.base import CachePolicy, ChunkStatus

from retrieval.eviction.base import Use
from retrieval.eviction.costs import LinearCost, per_token
from retrieval.eviction.hints import profile
from retrieval.eviction.pgdsf import Pgdsf

_FIRST_GUESS = LinearCost()


@dataclass(slots=True)
class _Request:
    """Kept in the request's context."""

    cost: LinearCost
    keys: dict[tuple[int, int], OffloadKey] = field(default_factory=dict)
    """By group, and the tokens up to the chunk's end."""
    noted: int = 0
    """Of the context's chunks, that are in `keys`."""


class PgdsfCachePolicy(CachePolicy):  # type: ignore[misc]  # vLLM is not typed here
    """See vLLM's `CachePolicy`. The manager calls it from one thread."""

    def __init__(self, cache_capacity: int) -> None:
        super().__init__(cache_capacity)
        self._policy: Pgdsf[OffloadKey] = Pgdsf(cache_capacity)
        self._chunks: dict[OffloadKey, ChunkStatus] = {}
        self._pinned: set[OffloadKey] = set()
        self._parents: dict[OffloadKey, OffloadKey | None] = {}
        """Of the chunks that are about to be inserted."""
        self._chunk_tokens: dict[int, int] = {}
        """For each group."""

    def get(self, key: OffloadKey) -> ChunkStatus | None:
        return self._chunks.get(key)

    def insert(self, key: OffloadKey, chunk: ChunkStatus, req_context: ReqContext | None = None) -> None:
        """The context comes from 0.33 on; the parent is known from the call before."""
        self._policy.insert(key, self._parents.pop(key, None))
        self._chunks[key] = chunk
        if chunk.ref_cnt != 0:
            self.mark_non_evictable(key)

    def remove(self, key: OffloadKey) -> None:
        del self._chunks[key]
        self._policy.remove(key)
        self._pinned.discard(key)

    def touch(self, keys: Iterable[OffloadKey], req_context: ReqContext) -> None:
        """Nothing: a request's uses count once, when it has finished."""

    def on_store_miss(self, keys: Iterable[OffloadKey], req_context: ReqContext) -> None:
        self._parents.clear()
        self._observe(list(keys), req_context)

    def on_request_access(self, keys: Iterable[OffloadKey], req_context: ReqContext) -> None:
        """From 0.33 on."""

    def on_request_finished(
        self,
        key_groups: Sequence[Sequence[OffloadKey]],
        insertion_only_keys: set[OffloadKey],
        reused_keys: set[OffloadKey],
        req_context: ReqContext,
    ) -> None:
        cost = self._request(req_context).cost
        for keys in key_groups:
            placed = [(end, key) for key in keys if (end := req_context.get_offload_key_position(key)) is not None]
            if len(placed) == len(keys):
                self._used(sorted(placed), insertion_only_keys, cost)
            else:  # without their order they are no chain
                for key in keys:
                    self._policy.used(Use([key], insertion_only_keys & {key}, per_token(cost, 0, 1)))

    def evict(self, n: int, protected: set[OffloadKey]) -> list[tuple[OffloadKey, ChunkStatus]] | None:
        victims = self._policy.evict(n, protected.union(self._parents.values()))
        return None if victims is None else [(key, self._chunks.pop(key)) for key in victims]

    def clear(self) -> None:
        self._policy.clear()
        for state in (self._chunks, self._pinned, self._parents):
            state.clear()

    def mark_evictable(self, key: OffloadKey) -> None:
        if key in self._pinned:
            self._pinned.remove(key)
            self._policy.unpin(key)

    def mark_non_evictable(self, key: OffloadKey) -> None:
        if key not in self._pinned:
            self._pinned.add(key)
            self._policy.pin(key)

    def _used(self, placed: list[tuple[int, OffloadKey]], inserted: set[OffloadKey], model: LinearCost) -> None:
        if not placed:
            return
        keys = [key for _, key in placed]
        computed = [end for end, key in placed if key in inserted]
        cost = 0.0
        if computed:
            size = self._chunk_tokens.get(get_offload_group_idx(keys[0]), computed[0])
            cost = per_token(model, max(0, computed[0] - size), size * len(computed))
        self._policy.used(Use(keys, inserted, cost))

    def _observe(self, keys: list[OffloadKey], context: ReqContext) -> None:
        """Notes which chunks these follow in their request."""
        request = self._request(context)
        for key, end in _placed(keys, context, request.noted):
            group = get_offload_group_idx(key)
            request.keys[group, end] = key
            request.noted += 1
            self._chunk_tokens[group] = min(end, self._chunk_tokens.get(group, end))
        for key in keys:
            end = context.get_offload_key_position(key)
            if end is not None and key not in self._chunks:
                group = get_offload_group_idx(key)
                self._parents[key] = request.keys.get((group, end - self._chunk_tokens[group]))

    def _request(self, context: ReqContext) -> _Request:
        state: Any = context.get_state(_Request)
        if state is None:
            state = _Request(profile(context.kv_transfer_params) or _FIRST_GUESS)
            context.set_state(state)
        request: _Request = state
        return request


def _placed(keys: list[OffloadKey], context: ReqContext, noted: int) -> Iterable[tuple[OffloadKey, int]]:
    """All chunks of the request and their ends, but for the first `noted`, as the context has them for itself. If it hides them, `keys`."""
    every: dict[OffloadKey, int] | None = getattr(context, "_offload_key_positions", None)
    if every is not None:
        return islice(every.items(), noted, None)
    return [(key, end) for key in keys if (end := context.get_offload_key_position(key)) is not None]
