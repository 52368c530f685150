"""KV cache events for tests, and indexes that follow them."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from cache.prefix.events import MEDIUM_GPU, BlockRemoved, BlockStored, Event, KVEventBatch
from cache.prefix.index import PrefixIndex
from cache.prefix.keys import BlockKeys
from cache.prefix.mirror import Change, EngineMirror

SIZE = 4
KEYS = BlockKeys(b"secret", SIZE)


def keys_of(tokens: Iterable[int], salt: str | None = None, adapter: str | None = None) -> list[int]:
    """As a prompt has them."""
    return KEYS.chain(KEYS.root(salt, adapter), list(tokens))


def stored(names: Sequence[bytes | int], tokens: Iterable[int], parent: bytes | int | None = None, **changes: Any) -> BlockStored:
    """Blocks in the device's memory, without a salt."""
    values: dict[str, Any] = {"block_size": SIZE, "lora_id": None, "medium": MEDIUM_GPU, "lora_name": None}
    return BlockStored(block_hashes=list(names), parent_block_hash=parent, token_ids=list(tokens), **{**values, **changes})


def removed(*names: bytes | int, medium: str | None = MEDIUM_GPU, group_idx: int | None = None) -> BlockRemoved:
    return BlockRemoved(block_hashes=list(names), medium=medium, group_idx=group_idx)


def written(*events: Event, ts: float = 0.0) -> bytes:
    """A batch as engines publish it."""
    return msgspec.msgpack.encode(KVEventBatch(ts, list(events)))


class Followed:
    """A mirror, and the index of an ingress that hears of all its changes. The replica is `r`."""

    def __init__(self, keys: BlockKeys = KEYS) -> None:
        self.index = PrefixIndex()
        self.mirror = EngineMirror(keys, lambda change: self.index.apply("r", [change]))

    def see(self, *events: Event) -> None:
        """Over the wire and back, as in production."""
        self.mirror.apply(msgspec.msgpack.decode(written(*events), type=KVEventBatch))

    def cached(self, keys: Sequence[int]) -> tuple[int, int]:
        """Blocks on the device, and in any tier."""
        return lengths(self.index, keys)

    def from_snapshot(self) -> PrefixIndex:
        """The index of an ingress that came late."""
        index = PrefixIndex()
        index.apply("r", self.mirror.snapshot())
        return index


def lengths(index: PrefixIndex, keys: Sequence[int], replica: str = "r") -> tuple[int, int]:
    match = index.match(keys)
    return match.device.get(replica, 0), match.any_tier.get(replica, 0)


def come(*keys: int, tier: int = 0) -> Change:
    return Change(tier, True, list(keys))


def go(*keys: int, tier: int = 0) -> Change:
    return Change(tier, False, list(keys))
