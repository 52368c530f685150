"""A million blocks come and go, and what is remembered of them does not grow."""

from cache.prefix.events import BlockRemoved, BlockStored, KVEventBatch
from cache.prefix.index import PrefixIndex
from cache.prefix.keys import BlockKeys
from cache.prefix.mirror import Change, EngineMirror

BLOCKS = 1_000_000
HELD = 10_000
RUN = 50
SIZE = 4


def test_a_million_blocks_leave_what_the_engine_holds() -> None:
    index = PrefixIndex()
    mirror = EngineMirror(BlockKeys(b"seed", SIZE), lambda change: index.apply("replica", [change]))
    tokens = list(range(RUN * SIZE))
    for first in range(0, BLOCKS, RUN):
        tokens[0] = first
        names = list(range(first, first + RUN))
        stored = BlockStored([*names], None, tokens, SIZE, None, "GPU", None, None, 0, "full_attention")
        old = first - HELD
        removed = [BlockRemoved([*range(old, old + RUN)], "GPU", 0)] if old >= 0 else []
        mirror.apply(KVEventBatch(0.0, [stored, *removed]))
    assert (len(mirror), len(index), index.blocks_of("replica")) == (HELD, HELD, HELD)
    assert sum(map(len, index._masks)) == HELD
    assert not index._gone


def test_replicas_that_come_and_go_leave_nothing() -> None:
    index = PrefixIndex()
    keys = BlockKeys(b"seed", SIZE)
    for number in range(200):
        chain = keys.chain(number, list(range(1000 * SIZE)))
        index.apply(f"replica {number}", [Change(0, True, chain)])
        index.forget(f"replica {number}")
    for _ in range(10):
        index.apply("last", [Change(0, True, [1])])
    assert (len(index), sum(map(len, index._masks)), len(index._names) <= 3) == (1, 1, True)
