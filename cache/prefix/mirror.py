"""An engine's prefix cache, seen through its events: which blocks, by the keys that prompts have, lie in which tier.

It lives beside the engine and follows it from its first event on. Ingresses get a snapshot and then changes, so one that comes late or
lags behind is exact at once, and never sees tokens, salts, or the engine's names of blocks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from cache.prefix.events import MEDIUM_CPU, MEDIUM_GPU, AllBlocksCleared, BlockRemoved, BlockStored, KVEventBatch
from cache.prefix.keys import BlockKeys

TIERS = (MEDIUM_GPU, MEDIUM_CPU)
"""The device's memory, and the host's. Blocks elsewhere are not counted as cached."""
_TIER: dict[str | None, int] = {None: 0, MEDIUM_GPU: 0, MEDIUM_CPU: 1}
_WHOLE_PREFIX = (None, "full_attention", "mla_attention")
"""Kinds of caches whose blocks cover everything before them; groups of other kinds hold a window, or a state."""

Name = bytes | int


class Change(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Blocks that came to a tier or left it, in the order of their chains. `tier` -1: everything was cleared."""

    tier: int
    stored: bool
    keys: list[int]


CLEARED = Change(-1, False, [])


@dataclass(slots=True)
class _Block:
    key: int
    copies: list[int]
    """In each tier. Engines announce a block again when two requests computed it at once, and remove each copy."""


class EngineMirror:
    """The sink of an `EventReader`. `tell` hears of every change of what is cached."""

    def __init__(self, keys: BlockKeys, tell: Callable[[Change], None]) -> None:
        self._keys = keys
        self._tell = tell
        self._blocks: dict[Name, _Block] = {}
        self._group: int | None = None
        self.reannounced = 0
        self.unknown_parents = 0
        self.unknown_removals = 0
        self.skipped = 0
        """Stored blocks that have no key: partial ones, other groups', other media's, or without what their hash covers."""

    def __len__(self) -> int:
        """Blocks that are known, in any tier."""
        return len(self._blocks)

    def snapshot(self) -> list[Change]:
        """What is cached, as changes to nothing."""
        return [Change(tier, True, [block.key for block in self._blocks.values() if block.copies[tier]]) for tier in range(len(TIERS))]

    def clear(self) -> None:
        self._blocks.clear()
        self._group = None
        self._tell(CLEARED)

    def apply(self, batch: KVEventBatch) -> None:
        for event in batch.events:
            if isinstance(event, BlockStored):
                self._stored(event)
            elif isinstance(event, BlockRemoved):
                self._removed(event)
            elif isinstance(event, AllBlocksCleared):
                self.clear()

    def _stored(self, event: BlockStored) -> None:
        tier = _TIER.get(event.medium)
        names = event.block_hashes
        if tier is None or not self._is_tracked(event) or event.block_size != self._keys.block_size:
            self.skipped += len(names)
            return
        keys = self._known_keys(names) or self._new_keys(event)
        if keys is None:
            return
        came = [key for name, key in zip(names, keys, strict=True) if self._add(name, key, tier)]
        if came:
            self._tell(Change(tier, True, came))

    def _is_tracked(self, event: BlockStored) -> bool:
        if event.kv_cache_spec_kind not in _WHOLE_PREFIX:
            return False
        if self._group is None:
            self._group = event.group_idx
        return event.group_idx == self._group

    def _known_keys(self, names: Sequence[Name]) -> list[int] | None:
        """Copies to the host are announced without the salt, so those of known blocks are recognised by their names."""
        blocks = [self._blocks.get(name) for name in names]
        return None if None in blocks else [block.key for block in blocks if block is not None]

    def _new_keys(self, event: BlockStored) -> list[int] | None:
        size, count = event.block_size, len(event.block_hashes)
        if not count or len(event.token_ids) != count * size or len(event.extra_keys or event.block_hashes) != count:
            self.skipped += count
            return None
        extra = event.extra_keys or [None] * count
        if event.parent_block_hash is None:
            if event.extra_keys is None and event.medium == MEDIUM_CPU:
                self.skipped += count
                return None
            parent, extra = self._root(event.lora_name, extra)
        elif (block := self._blocks.get(event.parent_block_hash)) is None:
            self.unknown_parents += count
            return None
        else:
            parent = block.key
        if event.lora_name is None and not any(extra):
            return self._keys.chain(parent, event.token_ids)
        return self._chain_with_extras(parent, event, extra)

    def _root(self, adapter: str | None, extra: list[tuple[Any, ...] | None]) -> tuple[int, list[tuple[Any, ...] | None]]:
        """The root's key, and what is left of the blocks' extra keys: the salt stands on the first block only."""
        first = _without(extra[0], adapter)
        salts = [each for each in first if isinstance(each, str)]
        salt = salts[0] if len(salts) == 1 else None
        left = tuple(each for each in first if each != salt)
        return self._keys.root(salt, adapter), [left or None, *extra[1:]]

    def _chain_with_extras(self, parent: int, event: BlockStored, extra: list[tuple[Any, ...] | None]) -> list[int]:
        """What an image, say, adds to a block's hash changes its key to one that no text prompt has."""
        keys = []
        for number, added in enumerate(extra):
            tokens = event.token_ids[number * event.block_size : (number + 1) * event.block_size]
            own = _without(added, event.lora_name)
            parent = self._keys.next(parent, self._keys.digest(own)) if own else parent
            parent = self._keys.chain(parent, tokens)[0]
            keys.append(parent)
        return keys

    def _add(self, name: Name, key: int, tier: int) -> bool:
        block = self._blocks.get(name)
        if block is None:
            block = self._blocks[name] = _Block(key, [0] * len(TIERS))
        block.copies[tier] += 1
        if block.copies[tier] > 1:
            self.reannounced += 1
        return block.copies[tier] == 1

    def _removed(self, event: BlockRemoved) -> None:
        tier = _TIER.get(event.medium)
        if tier is None or event.group_idx != self._group:
            return
        gone = [key for name in event.block_hashes if (key := self._remove(name, tier)) is not None]
        if gone:
            self._tell(Change(tier, False, gone))

    def _remove(self, name: Name, tier: int) -> int | None:
        """The key of a block whose last copy in the tier went."""
        block = self._blocks.get(name)
        if block is None or not block.copies[tier]:
            self.unknown_removals += 1
            return None
        block.copies[tier] -= 1
        if block.copies[tier]:
            return None
        if not any(block.copies):
            del self._blocks[name]
        return block.key


def _without(extra: tuple[Any, ...] | None, adapter: str | None) -> tuple[Any, ...]:
    """The adapter stands first."""
    return tuple(extra[1:] if extra and extra[0] == adapter else extra or ())
