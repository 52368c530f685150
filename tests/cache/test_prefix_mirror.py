"""What an engine says of its cache is what prompts find in the index."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.prefix.events import MEDIUM_CPU, MEDIUM_GPU, AllBlocksCleared, BlockRemoved, BlockStored, Event
from cache.prefix.index import PrefixIndex
from cache.prefix.keys import BlockKeys
from cache.prefix.mirror import CLEARED, Change, EngineMirror
from deployments.engines.simulated.blocks import BlockCache, TokenSequence
from tests.cache.kv import KEYS, SIZE, Followed, keys_of, lengths, removed, stored

TOKENS = range(12)
NAMES = [b"a", b"b", b"c"]


@pytest.fixture
def followed() -> Followed:
    return Followed()


def test_a_chain_is_found_by_its_tokens(followed: Followed) -> None:
    followed.see(stored(NAMES[:2], TOKENS[:8]))
    followed.see(stored(NAMES[2:], TOKENS[8:], parent=b"b"))
    assert followed.cached(keys_of([*TOKENS, 12, 13, 14, 15])) == (3, 3)
    assert followed.cached(keys_of([*TOKENS[:4], *TOKENS[:4]])) == (1, 1)
    assert followed.cached(keys_of(TOKENS[4:])) == (0, 0)
    assert len(followed.mirror) == 3


def test_engines_may_name_blocks_by_numbers(followed: Followed) -> None:
    followed.see(stored([2**63], TOKENS[:4]), stored([5], TOKENS[4:8], parent=2**63), removed(5))
    assert followed.cached(keys_of(TOKENS)) == (1, 1)


def test_a_branch_leaves_its_trunk_where_it_is(followed: Followed) -> None:
    followed.see(stored(NAMES, TOKENS), stored([b"d"], [9, 9, 9, 9], parent=b"a"))
    assert followed.cached(keys_of([*TOKENS[:4], 9, 9, 9, 9])) == (2, 2)
    followed.see(removed(b"d"))
    assert followed.cached(keys_of(TOKENS)) == (3, 3)


def test_removed_blocks_are_not_found_any_more(followed: Followed) -> None:
    followed.see(stored(NAMES, TOKENS))
    followed.see(removed(b"c"), removed(b"b", medium=None))
    assert followed.cached(keys_of(TOKENS)) == (1, 1)
    followed.see(removed(b"b"), removed(b"never heard of"))
    assert followed.cached(keys_of(TOKENS)) == (1, 1)
    assert followed.mirror.unknown_removals == 2


def test_the_salt_stands_on_the_first_block_only(followed: Followed) -> None:
    followed.see(stored(NAMES[:2], TOKENS[:8], extra_keys=[("tenant",), None]))
    followed.see(stored(NAMES[2:], TOKENS[8:], parent=b"b", extra_keys=[None]))
    assert followed.cached(keys_of(TOKENS, "tenant")) == (3, 3)
    assert followed.cached(keys_of(TOKENS)) == followed.cached(keys_of(TOKENS, "other")) == (0, 0)


@pytest.mark.parametrize("salt", [None, "tenant", "adapter"])
def test_an_adapter_is_part_of_every_block_and_may_be_called_like_the_salt(followed: Followed, salt: str | None) -> None:
    extra = [("adapter", salt) if salt else ("adapter",), ("adapter",)]
    followed.see(stored(NAMES[:2], TOKENS[:8], lora_name="adapter", lora_id=1, extra_keys=extra))
    followed.see(stored(NAMES[2:], TOKENS[8:], parent=b"b", lora_name="adapter", lora_id=1, extra_keys=[("adapter",)]))
    assert followed.cached(keys_of(TOKENS, salt, "adapter")) == (3, 3)
    for others in ((salt, None), (None, None), ("other", "adapter"), (salt, "another")):
        assert followed.cached(keys_of(TOKENS, *others)) == (0, 0)


@pytest.mark.parametrize("salt", [None, "tenant"])
def test_an_image_changes_the_keys_from_its_block_on(followed: Followed, salt: str | None) -> None:
    image: list[tuple[object, ...] | None] = [(salt,) if salt else None, (("image", 2),), None]
    followed.see(stored(NAMES, TOKENS, extra_keys=image))
    followed.see(stored([b"d"], range(4), parent=b"c", extra_keys=[None]))
    assert followed.cached(keys_of([*TOKENS, *range(4)], salt)) == (1, 1)
    assert len(followed.index) == 4
    other: list[tuple[object, ...] | None] = [image[0], (("image", 3),), None]
    followed.see(stored([b"a", b"x", b"y"], TOKENS, extra_keys=other))
    assert len(followed.index) == 6


def test_an_image_in_the_first_block_is_no_salt(followed: Followed) -> None:
    followed.see(stored(NAMES, TOKENS, extra_keys=[(("image", 0), "tenant"), (("image", -4),), None]))
    followed.see(stored([b"x"], TOKENS[:4], extra_keys=[(("image", 0),)]))
    assert followed.cached(keys_of(TOKENS, "tenant")) == followed.cached(keys_of(TOKENS)) == (0, 0)
    assert len(followed.index) == 4


def test_digests_of_embeddings_are_not_taken_for_the_salt(followed: Followed) -> None:
    followed.see(stored(NAMES, TOKENS, extra_keys=[("tenant", "digest"), ("digest 2",), None]))
    for salt in (None, "tenant", "digest"):
        assert followed.cached(keys_of(TOKENS, salt)) == (0, 0)
    assert len(followed.index) == 3


def test_only_the_first_group_that_covers_whole_prefixes_counts(followed: Followed) -> None:
    followed.see(stored([b"w"], TOKENS[:4], group_idx=0, kv_cache_spec_kind="sliding_window", kv_cache_spec_sliding_window=4))
    followed.see(stored(NAMES, TOKENS, group_idx=1, kv_cache_spec_kind="full_attention"))
    followed.see(stored(NAMES, TOKENS, group_idx=2, kv_cache_spec_kind="full_attention"))
    followed.see(removed(b"c", group_idx=0), removed(b"b", group_idx=2))
    assert followed.cached(keys_of(TOKENS)) == (3, 3)
    followed.see(removed(b"c", group_idx=1))
    assert followed.cached(keys_of(TOKENS)) == (2, 2)
    assert (followed.mirror.skipped, followed.mirror.reannounced) == (4, 0)


@pytest.mark.parametrize(
    "event",
    [
        stored(NAMES[:1], range(8), block_size=8),
        stored(NAMES[:1], range(3)),
        stored(NAMES[:1], range(2), block_size=2),
        stored(NAMES[:1], []),
        stored(NAMES[:1], range(4), medium="STORAGE"),
        stored(NAMES[:1], range(4), kv_cache_spec_kind="mamba"),
        stored(NAMES[:1], range(4), medium=MEDIUM_CPU),
        stored(NAMES[:1], [], medium=MEDIUM_CPU, block_size=0),
    ],
)
def test_what_has_no_key_is_skipped(followed: Followed, event: BlockStored) -> None:
    followed.see(event, stored([b"z"], TOKENS[:4]))
    assert followed.mirror.skipped == 1
    assert len(followed.index) == len(followed.mirror) == 1


def test_an_event_about_no_blocks_says_nothing(followed: Followed) -> None:
    followed.see(stored([], []), stored([], [], parent=b"a"), stored([], [], extra_keys=[]), removed())
    assert len(followed.mirror) == len(followed.index) == 0


def test_blocks_behind_an_unknown_one_are_counted_and_not_stored(followed: Followed) -> None:
    followed.see(stored([b"b", b"c"], TOKENS[4:], parent=b"a"))
    assert (followed.mirror.unknown_parents, len(followed.mirror), len(followed.index)) == (2, 0, 0)


def test_a_block_that_was_announced_twice_goes_with_its_second_removal(followed: Followed) -> None:
    followed.see(stored(NAMES, TOKENS), stored(NAMES[1:], TOKENS[4:], parent=b"a"))
    assert followed.mirror.reannounced == 2
    followed.see(removed(b"c"))
    assert followed.cached(keys_of(TOKENS)) == (3, 3)
    followed.see(removed(b"c"))
    assert followed.cached(keys_of(TOKENS)) == (2, 2)


def test_copies_on_the_host_are_known_by_name_and_outlive_the_device(followed: Followed) -> None:
    followed.see(stored(NAMES, TOKENS, extra_keys=[("tenant",), None, None], group_idx=0))
    for number, name in enumerate(NAMES):
        copy = TOKENS[number * SIZE : (number + 1) * SIZE]
        followed.see(stored([name], copy, parent=NAMES[number - 1] if number else None, medium=MEDIUM_CPU, group_idx=0))
    followed.see(removed(b"c", b"b", b"a", group_idx=0))
    assert followed.cached(keys_of(TOKENS, "tenant")) == (0, 3)
    followed.see(stored([b"a"], TOKENS[:4], extra_keys=[("tenant",)], group_idx=0))
    assert followed.cached(keys_of(TOKENS, "tenant")) == (1, 3)
    followed.see(removed(b"c", medium=MEDIUM_CPU, group_idx=0), removed(b"a", group_idx=0))
    assert followed.cached(keys_of(TOKENS, "tenant")) == (0, 2)
    assert followed.cached(keys_of(TOKENS)) == (0, 0)
    assert (followed.mirror.skipped, followed.mirror.unknown_removals) == (0, 0)


def test_copies_on_the_host_that_carry_no_payload_are_known_by_name(followed: Followed) -> None:
    followed.see(stored(NAMES, TOKENS))
    followed.see(*(stored([name], [], medium=MEDIUM_CPU) for name in NAMES), removed(*reversed(NAMES)))
    assert followed.cached(keys_of(TOKENS)) == (0, 3)


def test_a_chain_on_the_host_whose_salt_is_not_told_is_not_taken_for_unsalted(followed: Followed) -> None:
    followed.see(stored([b"a"], TOKENS[:4], medium=MEDIUM_CPU))
    followed.see(stored([b"b"], TOKENS[4:8], parent=b"a", medium=MEDIUM_CPU))
    assert followed.cached(keys_of(TOKENS)) == (0, 0)
    assert (followed.mirror.skipped, followed.mirror.unknown_parents) == (1, 1)


def test_a_chain_on_the_host_whose_salt_is_told_is_taken(followed: Followed) -> None:
    followed.see(stored(NAMES, TOKENS, medium=MEDIUM_CPU, extra_keys=[("tenant",), None, None]))
    assert followed.cached(keys_of(TOKENS, "tenant")) == (0, 3)


def test_a_reset_empties_everything(followed: Followed) -> None:
    followed.see(stored(NAMES, TOKENS, group_idx=0), stored(NAMES, TOKENS, medium=MEDIUM_CPU, group_idx=0))
    followed.see(AllBlocksCleared(), stored(NAMES[:1], TOKENS[:4], group_idx=1))
    assert followed.cached(keys_of(TOKENS)) == (1, 1)
    assert len(followed.mirror) == 1


def test_only_changes_are_told_of() -> None:
    told: list[Change] = []
    mirror = EngineMirror(KEYS, told.append)
    followed = Followed()
    followed.mirror = mirror
    a, b, c = keys_of(TOKENS)
    followed.see(stored(NAMES[:2], TOKENS[:8]), stored(NAMES, TOKENS), removed(b"c", b"b"), removed(b"b"), AllBlocksCleared())
    assert told == [Change(0, True, [a, b]), Change(0, True, [c]), Change(0, False, [c]), Change(0, False, [b]), CLEARED]


WIDE = 2
WIDE_KEYS = BlockKeys(b"secret", WIDE)
PROMPTS = [[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 8, 9], [1, 2, 9, 9, 9, 9, 9, 9, 9], [7, 7, 7]]
CASES = [(tokens, salt) for tokens in PROMPTS for salt in (None, "a", "b")]
walks = st.lists(
    st.tuples(st.sampled_from(["start", "start", "compute", "grow", "release", "release", "reset"]), st.integers(0, 11), st.integers(1, 9)),
    max_size=60,
)


class Engine:
    """The simulated engine's block cache, with requests that come, grow and go."""

    def __init__(self, capacity: int) -> None:
        self.cache = BlockCache(capacity, WIDE)
        self.running: list[tuple[TokenSequence, int]] = []

    def step(self, action: str, number: int, amount: int) -> None:
        if action == "start":
            tokens, salt = CASES[number]
            sequence = TokenSequence(tokens, WIDE, salt)
            length = min(amount, len(tokens))
            if self.cache.acquire(sequence, length) is not None:
                self.running.append((sequence, length))
        elif action == "reset":
            self.cache.reset()
        elif self.running:
            place = number % len(self.running)
            sequence, length = self.running[place]
            if action == "compute":
                self.cache.commit(sequence, min(amount, length))
            elif action == "grow":
                longer = min(length + amount, len(sequence.tokens))
                if self.cache.grow(sequence, longer):
                    self.running[place] = sequence, longer
            else:
                self.cache.release(sequence)
                del self.running[place]

    def cached_tokens(self, tokens: Sequence[int], salt: str | None) -> int:
        """Without the engine's rule that the last token is computed again."""
        return self.cache.cached_tokens(TokenSequence([*tokens, 0], WIDE, salt), len(tokens) + 1)


@given(st.integers(2, 10), walks)
def test_the_index_finds_what_the_simulated_engine_would(capacity: int, walk: list[tuple[str, int, int]]) -> None:
    engine, followed = Engine(capacity), Followed(WIDE_KEYS)
    for action, number, amount in walk:
        engine.step(action, number, amount)
        followed.see(*engine.cache.take_events())
        for tokens, salt in CASES:
            keys = WIDE_KEYS.chain(WIDE_KEYS.root(salt), tokens)
            found = engine.cached_tokens(tokens, salt)
            assert followed.cached(keys) == (found // WIDE, found // WIDE)
            reused = engine.cache.cached_tokens(TokenSequence(tokens, WIDE, salt), len(tokens))
            assert reused == min(found, (len(tokens) - 1) // WIDE * WIDE)
        assert len(followed.index) == len(followed.mirror) == len(list(engine.cache))
    assert followed.mirror.unknown_parents == followed.mirror.unknown_removals == followed.mirror.skipped == 0


CHAIN = [bytes([number]) for number in range(6)]
stores = st.builds(
    lambda first, count, medium: stored(
        CHAIN[first : first + count],
        range(first * SIZE, min(first + count, len(CHAIN)) * SIZE),
        parent=CHAIN[first - 1] if first else None,
        medium=medium,
    ),
    st.integers(0, 5),
    st.integers(1, 6),
    st.sampled_from([MEDIUM_GPU, MEDIUM_CPU]),
)
removals = st.builds(
    lambda names, medium: removed(*names, medium=medium),
    st.lists(st.sampled_from(CHAIN), min_size=1, max_size=4),
    st.sampled_from([MEDIUM_GPU, MEDIUM_CPU]),
)
KEY_OF = dict(zip(CHAIN, keys_of(range(len(CHAIN) * SIZE)), strict=True))


def held(index: PrefixIndex) -> list[tuple[int, int]]:
    """Whether each block is on the device, and anywhere."""
    return [lengths(index, [KEY_OF[name]]) for name in CHAIN]


@given(st.lists(st.one_of(stores, stores, removals, removals, st.just(AllBlocksCleared())), max_size=30))
def test_a_snapshot_says_the_same_as_all_changes(events: list[Event]) -> None:
    followed = Followed()
    copies: Counter[tuple[bytes | int, str | None]] = Counter()
    for event in events:
        before = len(followed.mirror), followed.mirror.skipped, followed.mirror.unknown_parents
        followed.see(event)
        if isinstance(event, AllBlocksCleared):
            copies.clear()
        elif isinstance(event, BlockRemoved):
            copies -= Counter((name, event.medium) for name in event.block_hashes)
        elif isinstance(event, BlockStored) and before[1:] == (followed.mirror.skipped, followed.mirror.unknown_parents):
            copies += Counter((name, event.medium) for name in event.block_hashes)
        on_device = [copies[name, MEDIUM_GPU] > 0 for name in CHAIN]
        anywhere = [here or copies[name, MEDIUM_CPU] > 0 for name, here in zip(CHAIN, on_device, strict=True)]
        assert held(followed.index) == held(followed.from_snapshot()) == [*zip(on_device, anywhere, strict=True)]
        assert len(followed.from_snapshot()) == len(followed.index)
        assert len(followed.mirror) == sum(anywhere)
