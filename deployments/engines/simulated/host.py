"""The host's memory as a second tier of KV blocks, as vLLM's native offload works. No clock, no I/O.

The full blocks of prompts are copied when they are computed, so the device evicts without copying. Where a request's prefix ends on the
device and goes on here, copies are loaded. All loads share one link, and wait for each other. What the tier gives up says its policy.
"""

from dataclasses import dataclass, field

from cache.prefix.events import MEDIUM_CPU, BlockRemoved, BlockStored, Event
from deployments.config import SimulatedEngineConfig
from deployments.engines.simulated.blocks import TokenSequence
from retrieval.eviction.base import EvictionPolicy, Use
from retrieval.eviction.costs import LinearCost, per_token
from retrieval.eviction.factory import POLICIES


@dataclass(slots=True)
class HostUse:
    """One request's."""

    seen: int = 0
    """Blocks from the head of its chain that were offered to the tier, or that are behind what it loaded."""
    inserted: set[bytes] = field(default_factory=set)
    loading: list[bytes] = field(default_factory=list)


class HostTier:
    """Blocks are counted from the start of a sequence."""

    def __init__(self, config: SimulatedEngineConfig) -> None:
        self.policy: EvictionPolicy[bytes] = POLICIES[config.host_policy](config.host_blocks)
        self.block_size = config.block_size
        self._capacity = config.host_blocks
        self._tokens_per_s = config.host_tokens_per_s
        self._cost = LinearCost(0.0, 1 / config.prefill_tokens_per_s, config.prefill_pair_s)
        self._free_at = float("-inf")
        """When the link has done what it was asked for."""
        self._loading: set[bytes] = set()
        self._events: list[Event] = []

    def __len__(self) -> int:
        return len(self.policy)

    def found(self, sequence: TokenSequence, first: int, end: int) -> int | None:
        """Copies of the blocks from `first` on, without a gap, before `end`. None: some of them are being loaded; ask again later."""
        for index in range(first, end):
            name = sequence.hash(index)
            if name not in self.policy:
                return index - first
            if name in self._loading:
                return None
        return max(0, end - first)

    def load(self, use: HostUse, sequence: TokenSequence, first: int, end: int, now: float) -> float:
        """Begins to load these blocks, and returns when they will be there."""
        use.loading = [sequence.hash(index) for index in range(first, end)]
        use.seen = max(use.seen, end)
        self._loading.update(use.loading)
        for name in use.loading:
            self.policy.pin(name)
        self._free_at = max(self._free_at, now) + len(use.loading) * self.block_size / self._tokens_per_s
        return self._free_at

    def loaded(self, use: HostUse) -> None:
        """The load has ended, or its request has."""
        self._loading.difference_update(use.loading)
        for name in use.loading:
            self.policy.unpin(name)
        use.loading = []

    def store(self, use: HostUse, sequence: TokenSequence, end: int) -> None:
        """Copies what is missing of the blocks before `end`, all of which are on the device. Without room the next call tries again."""
        if end <= use.seen:
            return
        missing = [index for index in range(use.seen, end) if sequence.hash(index) not in self.policy]
        if missing and not self._make_room(missing, sequence, end):
            return
        for index in missing:
            self.policy.insert(sequence.hash(index), sequence.hash(index - 1) if index else None)
            use.inserted.add(sequence.hash(index))
        self._events += [_stored(sequence, first, last) for first, last in _runs(missing)]
        use.seen = end

    def end(self, use: HostUse, sequence: TokenSequence, cached: int, computed: int) -> None:
        """The request is through: of its prompt so many tokens were cached and computed when it started."""
        self.loaded(use)
        keys = [sequence.hash(index) for index in range(use.seen)]
        self.policy.used(Use(keys, use.inserted, per_token(self._cost, cached, computed)))

    def clear(self) -> None:
        self.policy.clear()

    def take_events(self) -> list[Event]:
        """What happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    def _make_room(self, missing: list[int], sequence: TokenSequence, end: int) -> bool:
        self.policy.missed([sequence.hash(index) for index in missing])
        excess = len(self.policy) + len(missing) - self._capacity
        if excess <= 0:
            return True
        victims = self.policy.evict(excess, {sequence.hash(index) for index in range(end)})
        if victims is None:
            return False
        self._events.append(BlockRemoved(block_hashes=list(victims), medium=MEDIUM_CPU, group_idx=0))
        return True


def _runs(indices: list[int]) -> list[tuple[int, int]]:
    """Of consecutive numbers: the first, and the one behind the last."""
    runs: list[tuple[int, int]] = []
    for index in indices:
        if runs and runs[-1][1] == index:
            runs[-1] = (runs[-1][0], index + 1)
        else:
            runs.append((index, index + 1))
    return runs


def _stored(sequence: TokenSequence, first: int, end: int) -> BlockStored:
    """With tokens, but without the salt: vLLM's form with `self_describing_kv_events`."""
    size = sequence.block_size
    return BlockStored(
        block_hashes=[sequence.hash(index) for index in range(first, end)],
        parent_block_hash=sequence.hash(first - 1) if first else None,
        token_ids=list(sequence.tokens[first * size : end * size]),
        block_size=size,
        lora_id=None,
        medium=MEDIUM_CPU,
        lora_name=sequence.adapter,
        group_idx=0,
        kv_cache_spec_kind="full_attention",
    )
