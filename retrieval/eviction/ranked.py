"""Eviction by priority, from the ends of chains."""

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Generic

from retrieval.eviction.base import EvictionPolicy, K, Use

REMEMBERED = 4
"""Evicted blocks, in multiples of the capacity. Each takes some 400 bytes."""
_SPARE = 64
"""Entries that the heap may have beyond twice the blocks, before it is built anew."""


@dataclass(slots=True, eq=False)
class Block(Generic[K]):
    """One that is held, or that is remembered after its eviction."""

    key: K
    parent: "Block[K] | None" = None
    children: int = 0
    """Held blocks right behind it."""
    frequency: float = 0.0
    """Requests that used it."""
    cost_sum: float = 0.0
    computed: int = 0
    """Requests that computed it, and the sum of what a token cost them."""
    priority: float = 0.0
    number: int = 0
    """Of its latest use, in the order of all uses."""
    queued: int = -1
    """The `number` with which it is in the heap; -1: it is not."""


class RankedPolicy(EvictionPolicy[K]):
    """What has the least priority goes first, of those that no held block is behind; of equal ones the longest unused.

    What is known of a block outlives it: of those that went, the last are remembered.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._blocks: dict[K, Block[K]] = {}
        self._ghosts: OrderedDict[K, Block[K]] = OrderedDict()
        self._heap: list[tuple[float, int, Block[K]]] = []
        """Blocks at the ends of chains; entries whose block has been used since, or has another behind it, are passed over."""
        self._moved: set[Block[K]] = set()
        """Those that may belong into the heap. Most of a request's will have another behind them by the time that it matters."""
        self._uses = 0

    @abstractmethod
    def _priority(self, block: Block[K]) -> float:
        """As of now. It holds until the block's next use."""

    def _evicted(self, block: Block[K]) -> None:
        """Called for each victim, in order."""

    def __contains__(self, key: K) -> bool:
        return key in self._blocks

    def __len__(self) -> int:
        return len(self._blocks)

    def __iter__(self) -> Iterator[K]:
        return iter(self._blocks)

    def insert(self, key: K, parent: K | None = None) -> None:
        block = self._ghosts.pop(key, None) or Block(key)
        block.frequency += 1
        self._blocks[key] = block
        self._link(block, None if parent is None else self._blocks.get(parent))
        self._rank(block)

    def remove(self, key: K) -> None:
        block = self._blocks.pop(key)
        self._link(block, None)
        self._pins.pop(key, None)

    def used(self, use: Use[K]) -> None:
        """Those before the first one are used with it: it would be of no use without them."""
        before: Block[K] | None = None
        for key in use.keys:
            block = self._blocks.get(key)
            if block is None:
                continue
            if before is None:
                self._use_all_before(block)
            else:
                self._link(block, before)
            self._use(block, use.cost if key in use.inserted else None)
            before = block

    def _use_all_before(self, block: Block[K]) -> None:
        parent = block.parent
        while parent is not None:
            self._use(parent, None)
            parent = parent.parent

    def _use(self, block: Block[K], cost: float | None) -> None:
        """`cost`: of a block that was inserted, and counted, for this use."""
        if cost is None:
            block.frequency += 1
        else:
            block.cost_sum += cost
            block.computed += 1
        self._rank(block)

    def evict(self, n: int, protected: Collection[K] = frozenset()) -> list[K] | None:
        victims, spared = list[Block[K]](), list[Block[K]]()
        self._sort_in()
        while len(victims) < n and (block := self._least()) is not None:
            if block.key in protected:
                spared.append(block)
            else:
                victims.append(block)
                self._take_out(block)
        self._moved.update(spared)
        if len(victims) < n:
            for block in reversed(victims):
                self._put_back(block)
            return None
        for block in victims:
            self._remember(block)
        return [block.key for block in victims]

    def unpin(self, key: K) -> None:
        super().unpin(key)
        if (block := self._blocks.get(key)) is not None:
            self._moved.add(block)

    def clear(self) -> None:
        self._blocks.clear()
        self._ghosts.clear()
        self._heap.clear()
        self._moved.clear()
        self._pins.clear()

    def _rank(self, block: Block[K]) -> None:
        self._uses += 1
        block.number = self._uses
        block.priority = self._priority(block)
        self._moved.add(block)
        if len(self._moved) > len(self._blocks) + _SPARE:
            self._sort_in()

    def _can_go(self, block: Block[K]) -> bool:
        return not block.children and block.key not in self._pins

    def _sort_in(self) -> None:
        for block in self._moved:
            self._queue(block)
        self._moved.clear()
        if len(self._heap) > 2 * len(self._blocks) + _SPARE:
            self._rebuild()

    def _queue(self, block: Block[K]) -> None:
        if block.queued != block.number and self._can_go(block) and self._blocks.get(block.key) is block:
            block.queued = block.number
            heappush(self._heap, (block.priority, block.number, block))

    def _rebuild(self) -> None:
        self._heap.clear()
        for block in self._blocks.values():
            block.queued = block.number if self._can_go(block) else -1
            if block.queued >= 0:
                self._heap.append((block.priority, block.number, block))
        heapify(self._heap)

    def _least(self) -> Block[K] | None:
        """Taken from the heap."""
        while self._heap:
            _, number, block = heappop(self._heap)
            if number != block.queued:
                continue
            block.queued = -1
            if number == block.number and self._can_go(block) and self._blocks.get(block.key) is block:
                return block
        return None

    def _link(self, block: Block[K], parent: Block[K] | None) -> None:
        old = block.parent
        if old is parent:
            return
        block.parent = parent
        if parent is not None:
            parent.children += 1
        if old is not None:
            self._one_less_behind(old)

    def _one_less_behind(self, block: Block[K]) -> None:
        block.children -= 1
        self._queue(block)

    def _take_out(self, block: Block[K]) -> None:
        del self._blocks[block.key]
        if block.parent is not None:
            self._one_less_behind(block.parent)

    def _put_back(self, block: Block[K]) -> None:
        self._blocks[block.key] = block
        if block.parent is not None:
            block.parent.children += 1
        self._queue(block)

    def _remember(self, block: Block[K]) -> None:
        self._evicted(block)
        block.parent = None
        self._ghosts[block.key] = block
        if len(self._ghosts) > REMEMBERED * self.capacity:
            self._ghosts.popitem(last=False)

    def _everything(self) -> Iterator[Block[K]]:
        yield from self._blocks.values()
        yield from self._ghosts.values()
