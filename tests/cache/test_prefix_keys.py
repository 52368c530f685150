"""Both ends compute the same keys, and different content has different ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.prefix.keys import MASK, BlockKeys, KeyCounts

KEYS = BlockKeys(b"secret", 4)
token = st.integers(0, 2**32 - 1)
parents = st.integers(0, MASK)


def plain(keys: BlockKeys, parent: int, tokens: list[int]) -> list[int]:
    """Block for block, which never takes the path through arrays."""
    chain = []
    for start in range(0, len(tokens) - keys.block_size + 1, keys.block_size):
        chain += keys.chain(parent, tokens[start : start + keys.block_size])
        parent = chain[-1]
    return chain


@given(st.integers(1, 9), parents, st.lists(token, max_size=80))
def test_arrays_and_plain_integers_give_the_same_keys(size: int, parent: int, tokens: list[int]) -> None:
    keys = BlockKeys(b"secret", size)
    chain = plain(keys, parent, tokens)
    assert keys.chain(parent, tokens) == chain
    assert keys.chain(parent, np.array(tokens, np.uint32)) == chain
    assert len(chain) == len(tokens) // size
    assert all(0 <= key <= MASK for key in chain)


def test_a_long_prompt_after_a_short_one_and_a_longer_one_after_that() -> None:
    keys = BlockKeys(b"secret", 2)
    for blocks in (3, 1023, 1024, 1025, 5000):
        tokens = list(range(2 * blocks))
        assert keys.chain(7, tokens) == plain(BlockKeys(b"secret", 2), 7, tokens)


@given(parents, st.lists(token, max_size=40), st.integers(0, 10))
def test_a_chain_goes_on_from_its_last_block(parent: int, tokens: list[int], blocks: int) -> None:
    head, tail = tokens[: 4 * blocks], tokens[4 * blocks :]
    whole = KEYS.chain(parent, tokens)
    first = KEYS.chain(parent, head)
    assert whole == first + KEYS.chain(first[-1] if first else parent, tail)


@given(st.lists(token, min_size=4, max_size=40), st.data())
def test_another_token_changes_the_keys_from_its_block_on(tokens: list[int], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(tokens) // 4 * 4 - 1))
    other = tokens.copy()
    other[place] = data.draw(token.filter(lambda value: value != tokens[place]))
    before, after = KEYS.chain(1, tokens), KEYS.chain(1, other)
    assert before[: place // 4] == after[: place // 4]
    assert not set(before[place // 4 :]) & set(after)


def test_the_order_of_tokens_and_of_blocks_counts() -> None:
    chains = [KEYS.chain(1, tokens) for tokens in ([1, 2, 3, 4, 5, 6, 7, 8], [4, 3, 2, 1, 5, 6, 7, 8], [5, 6, 7, 8, 1, 2, 3, 4])]
    assert len({chain[-1] for chain in chains}) == 3


def test_equal_blocks_at_different_places_have_different_keys() -> None:
    assert len(set(KEYS.chain(1, [0] * 4000))) == 1000


def test_what_a_block_depends_on_besides_tokens() -> None:
    roots = [KEYS.root(salt, adapter) for salt in (None, "a", "b") for adapter in (None, "a", "b")]
    other = BlockKeys(b"another secret", 4)
    last = {KEYS.chain(root, range(8))[-1] for root in roots} | {other.chain(other.root(), range(8))[-1]}
    assert len(last) == len(roots) + 1
    assert BlockKeys(b"secret", 4).chain(BlockKeys(b"secret", 4).root("a"), range(8)) == KEYS.chain(KEYS.root("a"), range(8))


def test_long_seeds_are_told_apart() -> None:
    one, other = (BlockKeys(b"s" * 80 + end, 4) for end in (b"1", b"2"))
    assert one.chain(1, range(4)) != other.chain(1, range(4))


def test_what_is_shorter_than_a_block_has_no_key() -> None:
    assert KEYS.chain(1, []) == KEYS.chain(1, [1, 2, 3]) == KEYS.chain(1, np.empty(0, np.uint32)) == []
    assert KEYS.chain(1, range(7)) == KEYS.chain(1, range(4))
    assert KEYS.chain(1, range(19)) == KEYS.chain(1, range(16))


def test_keys_are_plain_integers() -> None:
    assert {type(key) for key in [*KEYS.chain(1, np.arange(4, dtype=np.uint32)), *KEYS.chain(1, np.arange(400, dtype=np.uint32))]} == {int}


def test_a_block_has_at_least_one_token() -> None:
    with pytest.raises(ValueError, match="positive"):
        BlockKeys(b"secret", 0)


@given(st.lists(st.lists(st.integers(0, 2), max_size=12), max_size=8), st.data())
def test_what_chains_have_in_common_counts_once(beginnings: list[list[int]], data: st.DataObject) -> None:
    keys = BlockKeys(b"secret", 1)
    chains = [keys.chain(keys.root(), tokens) for tokens in beginnings]
    counts = KeyCounts()
    for chain in chains:
        counts.add(chain)
    gone = data.draw(st.sets(st.sampled_from(range(len(chains))))) if chains else set()
    for at in gone:
        counts.remove(chains[at])
    left = {key for at, chain in enumerate(chains) if at not in gone for key in chain}
    assert len(counts) == len(left)
    for chain in chains:
        assert counts.new(chain) == len(set(chain) - left)
