"""The block cache: KV blocks with reference counts, prefix reuse and LRU eviction. No clock, no I/O.

As in vLLM, only full blocks are reused, a block's name covers everything before it (and the cache salt), blocks that
nobody uses stay cached until their room is needed, and of equally old ones the end of a prompt goes first. Other than
in vLLM, equal blocks are held once. So whatever is cached, its whole prefix is cached too.
"""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cache.prefix.events import MEDIUM_GPU, AllBlocksCleared, BlockRemoved, BlockStored, Event


@dataclass(slots=True, eq=False)
class Block:
    """Room for the keys and values of `block_size` tokens."""

    references: int = 1
    hash: bytes | None = None
    """Its name in the cache, once it is full."""


class TokenSequence:
    """The tokens of one request, their block hashes, and the blocks that hold them now.

    `blocks` and `committed` belong to the `BlockCache`.
    """

    __slots__ = ("_bytes", "_hashes", "_root", "adapter", "block_size", "blocks", "committed", "salt", "tokens")

    def __init__(self, tokens: Sequence[int], block_size: int, salt: str | None = None, adapter: str | None = None) -> None:
        self.tokens = tokens
        self.block_size = block_size
        self.salt = salt
        self.adapter = adapter
        self.blocks: list[Block] = []
        self.committed = 0
        self._bytes = array("I", tokens).tobytes()
        self._root = b"".join(hashlib.sha256(name.encode()).digest() if name else b"" for name in (adapter, salt))
        self._hashes: list[bytes] = []

    def hash(self, index: int) -> bytes:
        """Name of the full block with this index; covers all tokens up to its end, and the salt."""
        size = self.block_size * 4
        while len(self._hashes) <= index:
            start = len(self._hashes) * size
            parent = self._hashes[-1] if self._hashes else self._root
            self._hashes.append(hashlib.sha256(parent + self._bytes[start : start + size]).digest())
        return self._hashes[index]


class BlockCache:
    """`capacity` blocks of `block_size` tokens. Lengths are in tokens, from the start of a sequence."""

    def __init__(self, capacity: int, block_size: int) -> None:
        self.capacity = capacity
        self.block_size = block_size
        self._unused = capacity
        self._cached: dict[bytes, Block] = {}
        self._idle: OrderedDict[bytes, Block] = OrderedDict()  # cached and unreferenced, least recently used first
        self._events: list[Event] = []

    @property
    def free(self) -> int:
        """Blocks that a request can have, by eviction if need be."""
        return self._unused + len(self._idle)

    @property
    def usage(self) -> float:
        """Share of the blocks that requests hold, 0 to 1."""
        return 1 - self.free / self.capacity

    def __iter__(self) -> Iterator[bytes]:
        """Names of the cached blocks."""
        return iter(self._cached)

    def __contains__(self, name: bytes) -> bool:
        return name in self._cached

    def cached_tokens(self, sequence: TokenSequence, length: int) -> int:
        """Length of the cached prefix. At least the last token is never counted: computing it gives the next one."""
        return self._cached_blocks(sequence, length) * self.block_size

    def acquire(self, sequence: TokenSequence, length: int) -> int | None:
        """Holds `length` tokens, reusing the cached prefix, whose length is returned. None (and no change) if it does not fit."""
        reused = [self._cached[sequence.hash(index)] for index in range(self._cached_blocks(sequence, length))]
        new = self._blocks_for(length) - len(reused)
        if new > self.free - sum(block.references == 0 for block in reused):
            return None
        for block in reused:
            self._reference(block)
        sequence.blocks = reused + [self._new_block() for _ in range(new)]
        sequence.committed = len(reused)
        return len(reused) * self.block_size

    def grow(self, sequence: TokenSequence, length: int) -> bool:
        """Makes a sequence hold `length` tokens. False, and no change, if there are not enough free blocks."""
        new = self._blocks_for(length) - len(sequence.blocks)
        if new > self.free:
            return False
        sequence.blocks += [self._new_block() for _ in range(new)]
        return True

    def commit(self, sequence: TokenSequence, length: int) -> None:
        """The first `length` tokens, which the sequence holds, are computed: its full blocks can be reused from now on."""
        first, end = sequence.committed, length // self.block_size
        if end <= first:
            return
        stored = [index for index in range(first, end) if self._insert(sequence, index)]
        sequence.committed = end
        if stored:  # consecutive: behind a block that was not cached, none is
            self._events.append(_stored(sequence, stored[0], end))

    def release(self, sequence: TokenSequence) -> None:
        """Gives up a sequence's blocks. Full ones stay cached until they are evicted, the last one first."""
        for block in reversed(sequence.blocks):
            block.references -= 1
            if block.references:
                continue
            if block.hash is None:
                self._unused += 1
            else:
                self._idle[block.hash] = block
        sequence.blocks = []
        sequence.committed = 0

    def reset(self) -> bool:
        """Forgets everything cached. False, and no change, while a request holds blocks."""
        if self.free < self.capacity:
            return False
        self._cached.clear()
        self._idle.clear()
        self._unused = self.capacity
        self._events.append(AllBlocksCleared())
        return True

    def take_events(self) -> list[Event]:
        """What happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    def _blocks_for(self, length: int) -> int:
        return -(-length // self.block_size)

    def _cached_blocks(self, sequence: TokenSequence, length: int) -> int:
        most = max(0, length - 1) // self.block_size
        return next((index for index in range(most) if sequence.hash(index) not in self._cached), most)

    def _reference(self, block: Block) -> None:
        if block.references == 0 and block.hash is not None:
            del self._idle[block.hash]
        block.references += 1

    def _new_block(self) -> Block:
        if self._unused:
            self._unused -= 1
        else:
            name, _ = self._idle.popitem(last=False)
            del self._cached[name]
            self._events.append(BlockRemoved(block_hashes=[name], medium=MEDIUM_GPU, group_idx=0))
        return Block()

    def _insert(self, sequence: TokenSequence, index: int) -> bool:
        """Caches one block, or replaces it by the equal one that is cached already (False)."""
        name = sequence.hash(index)
        known = self._cached.get(name)
        if known is not None:
            self._reference(known)
            sequence.blocks[index] = known
            self._unused += 1
            return False
        block = sequence.blocks[index]
        block.hash = name
        self._cached[name] = block
        return True


def _stored(sequence: TokenSequence, first: int, end: int) -> BlockStored:
    size = sequence.block_size
    each = (sequence.adapter,) if sequence.adapter else ()
    salt = (sequence.salt,) if first == 0 and sequence.salt else ()
    return BlockStored(
        block_hashes=[sequence.hash(index) for index in range(first, end)],
        parent_block_hash=sequence.hash(first - 1) if first else None,
        token_ids=list(sequence.tokens[first * size : end * size]),
        block_size=size,
        lora_id=None,
        medium=MEDIUM_GPU,
        lora_name=sequence.adapter,
        extra_keys=[each + salt or None, *[each or None] * (end - first - 1)],
        group_idx=0,
        kv_cache_spec_kind="full_attention",
    )
