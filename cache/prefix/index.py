"""Which replica holds which KV block, for all replicas at once.

Each block's key maps to a bit mask of replicas, so that one search along a prompt's keys finds the longest cached prefix on every replica.
A set of keys per replica makes a replica's end cheap. Not thread-safe: it belongs to the event loop that routes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from cache.prefix.mirror import TIERS, Change

_NAMED = 10_000
"""Masks whose replicas' names are remembered."""
_SWEEP = 2048
"""Blocks of replicas that have gone, at least, forgotten with each change; an eighth of them, if that is more."""


@dataclass(frozen=True, slots=True)
class Match:
    """The cached prefix, in blocks: on the device, and on the device or behind it. Replicas that hold none are left out."""

    device: dict[str, int]
    any_tier: dict[str, int]


class PrefixIndex:
    """At most `max_blocks` blocks (of one replica each). Beyond them the chains go that were not asked for longest. Of those that were
    asked for, the ends go first; of those that never were, the oldest blocks, and their ends are not matched from then on."""

    def __init__(self, max_blocks: int = 8_000_000) -> None:
        self._max = max_blocks
        self._masks: tuple[dict[int, int], ...] = tuple({} for _ in TIERS)
        self._slots: dict[str, int] = {}
        self._names: list[str | None] = []
        self._bits: list[int] = []
        self._held: list[tuple[set[int], ...]] = []
        self._named: dict[int, tuple[str, ...]] = {}
        self._gone: list[tuple[int, int, set[int]]] = []
        self._live = 0
        self._size = 0
        self.evicted = 0

    def __len__(self) -> int:
        """Blocks, each counted once for every replica and tier that holds it."""
        return self._size

    def blocks_of(self, replica: str) -> int:
        return sum(map(len, self._held[self._slots[replica]])) if replica in self._slots else 0

    def forget(self, replica: str) -> None:
        """A replica has gone, or has cleared its cache. What it held is not matched from now on."""
        slot = self._slots.pop(replica, None)
        if slot is None:
            return
        self._names[slot] = None
        self._named.clear()
        self._live &= ~(1 << slot)
        self._gone += [(tier, slot, keys) for tier, keys in enumerate(self._held[slot]) if keys]

    def apply(self, replica: str, changes: Iterable[Change]) -> None:
        for change in changes:
            if change.tier < 0:
                self.forget(replica)
            elif change.stored:
                self._store(self._slot(replica), change.tier, change.keys)
            else:
                self._remove(self._slot(replica), change.tier, change.keys)
        if self._gone:
            self._sweep(max(_SWEEP, sum(len(keys) for _, _, keys in self._gone) // 8))
        if self._size > self._max:
            self._evict()

    def match(self, keys: Sequence[int], pending: dict[int, int] | None = None) -> Match:
        """`pending`: masks of blocks that are on their way to the device, see `slot_mask`."""
        if self._size > self._max // 2:
            self._touch(keys)
        first, second = (masks.get for masks in self._masks)
        if pending:
            coming = pending.get
            device = self._lengths(keys, lambda key: first(key, 0) | coming(key, 0))
        else:
            device = self._lengths(keys, lambda key: first(key, 0))
        if not self._masks[1]:
            return Match(device, device)
        coming = (pending or {}).get
        return Match(device, self._lengths(keys, lambda key: first(key, 0) | second(key, 0) | coming(key, 0)))

    @property
    def all_replicas(self) -> int:
        """Bits of all replicas, see `slot_mask`."""
        return self._live

    def holders(self, key: int, pending: dict[int, int]) -> int:
        """Bits of the replicas that hold this block, in any tier, or will."""
        return self._live & (self._masks[0].get(key, 0) | self._masks[1].get(key, 0) | pending.get(key, 0))

    def names(self, mask: int) -> tuple[str, ...]:
        """The replicas whose bits these are."""
        return self._names_of(mask & self._live)

    def slot_mask(self, replica: str) -> int:
        """The bit that stands for a replica; the same until `forget`."""
        return self._bits[self._slot(replica)]

    def _lengths(self, keys: Sequence[int], mask_of: Callable[[int], int]) -> dict[str, int]:
        """Engines evict a chain from its end, so the replicas of a block hold all blocks before it, too, and masks only lose bits along a
        chain. Where the mask changes is found by doubling steps and bisection: thousands of blocks take dozens of look-ups."""
        lengths: dict[str, int] = {}
        count, at, alive = len(keys), 0, self._live
        while at < count:
            mask = alive & mask_of(keys[at])
            if mask != alive:
                if at:
                    lengths.update(dict.fromkeys(self._names_of(alive ^ mask), at))
                alive = mask
            if not alive:
                return lengths
            at = _end_of_run(keys, at, count, alive, mask_of)
        if count:
            lengths.update(dict.fromkeys(self._names_of(alive), count))
        return lengths

    def _names_of(self, mask: int) -> tuple[str, ...]:
        names = self._named.get(mask)
        if names is None:
            if len(self._named) >= _NAMED:
                self._named.clear()
            found = [self._names[slot] for slot in _bits(mask)]
            names = self._named[mask] = tuple(name for name in found if name is not None)
        return names

    def _slot(self, replica: str) -> int:
        slot = self._slots.get(replica)
        if slot is None:
            slot = self._free_slot()
            self._slots[replica] = slot
            self._names[slot] = replica
            self._named.clear()
            self._held[slot] = tuple(set() for _ in TIERS)
            self._live |= 1 << slot
        return slot

    def _free_slot(self) -> int:
        busy = {slot for _, slot, _ in self._gone}
        for slot, name in enumerate(self._names):
            if name is None and slot not in busy:
                return slot
        self._names.append(None)
        self._held.append(())
        self._bits.append(1 << (len(self._names) - 1))
        return len(self._names) - 1

    def _store(self, slot: int, tier: int, keys: Sequence[int]) -> None:
        masks, held, bit = self._masks[tier], self._held[slot][tier], self._bits[slot]
        before = len(held)
        held.update(keys)
        self._size += len(held) - before
        get = masks.get
        for key in keys:
            mask = get(key)
            masks[key] = bit if mask is None else mask | bit

    def _remove(self, slot: int, tier: int, keys: Sequence[int]) -> None:
        held = self._held[slot][tier]
        known = [key for key in keys if key in held]
        held.difference_update(known)
        self._clear(tier, self._bits[slot], known)

    def _clear(self, tier: int, bit: int, keys: Sequence[int]) -> None:
        masks = self._masks[tier]
        self._size -= len(keys)
        for key in keys:
            left = masks[key] & ~bit
            if left:
                masks[key] = left
            else:
                del masks[key]

    def _sweep(self, limit: int) -> None:
        while self._gone and limit > 0:
            tier, slot, keys = self._gone[-1]
            some = [keys.pop() for _ in range(min(limit, len(keys)))]
            self._clear(tier, self._bits[slot], some)
            limit -= len(some)
            if not keys:
                self._gone.pop()

    def _touch(self, keys: Sequence[int]) -> None:
        """Makes a chain the youngest, its beginning younger than its end."""
        for masks in self._masks:
            for key in reversed(keys):
                if (mask := masks.pop(key, None)) is not None:
                    masks[key] = mask

    def _evict(self) -> None:
        """Makes room for a while, because a dictionary that shrinks at its beginning is slow to find the beginning again."""
        self._sweep(self._size - self._max)
        excess = self._size - self._max + self._max // 20
        for tier in reversed(range(len(TIERS))):
            for key in list(islice(self._masks[tier], excess)):
                mask = self._masks[tier].pop(key)
                for slot in _bits(mask):
                    self._held[slot][tier].discard(key)
                removed = mask.bit_count()
                self._size -= removed
                self.evicted += removed
                excess -= removed
                if excess <= 0:
                    return


def _end_of_run(keys: Sequence[int], start: int, count: int, mask: int, mask_of: Callable[[int], int]) -> int:
    """The first place behind `start` whose mask lacks a bit of `mask`; `count` if there is none."""
    inside, step = start, 1
    while inside + step < count and mask_of(keys[inside + step]) & mask == mask:
        inside += step
        step *= 2
    outside = min(inside + step, count)
    while outside - inside > 1:
        middle = (inside + outside) // 2
        if mask_of(keys[middle]) & mask == mask:
            inside = middle
        else:
            outside = middle
    return outside


def _bits(mask: int) -> list[int]:
    bits = []
    while mask:
        low = mask & -mask
        mask ^= low
        bits.append(low.bit_length() - 1)
    return bits
