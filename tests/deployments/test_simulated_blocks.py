from collections.abc import Iterable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from cache.prefix.events import AllBlocksCleared, BlockRemoved, BlockStored, Event
from deployments.engines.simulated.blocks import BlockCache, TokenSequence

SIZE = 4


def sequence(tokens: Iterable[int], salt: str | None = None) -> TokenSequence:
    return TokenSequence(list(tokens), SIZE, salt)


def run(cache: BlockCache, tokens: Iterable[int], salt: str | None = None) -> int:
    """Computes a prompt and gives its blocks up; returns how much of it was cached."""
    held = sequence(tokens, salt)
    cached = cache.acquire(held, len(held.tokens))
    assert cached is not None
    cache.commit(held, len(held.tokens))
    cache.release(held)
    return cached


def test_full_blocks_are_reused_but_never_the_last_token() -> None:
    cache = BlockCache(8, SIZE)
    assert run(cache, range(10)) == 0
    assert run(cache, range(10)) == 8
    assert run(cache, range(8)) == 4
    assert run(cache, range(9)) == 8
    assert run(cache, [*range(6), 99, 99, 99]) == 4


def test_the_salt_separates() -> None:
    cache = BlockCache(16, SIZE)
    run(cache, range(9), "a")
    assert run(cache, range(9)) == 0
    assert run(cache, range(9), "b") == 0
    assert run(cache, range(9), "a") == 8


def test_least_recently_used_goes_first_and_of_a_prompt_its_end() -> None:
    cache = BlockCache(4, SIZE)
    run(cache, range(8))
    run(cache, range(100, 108))
    run(cache, range(9))  # uses the first again; needs one block for its last token
    assert run(cache, range(100, 108)) == 4
    cache = BlockCache(4, SIZE)
    run(cache, range(16))
    run(cache, [7])
    assert len(list(cache)) == 3
    assert run(cache, range(17 - SIZE)) == 12


def test_what_is_held_cannot_be_evicted() -> None:
    cache = BlockCache(4, SIZE)
    held = sequence(range(12))
    assert cache.acquire(held, 12) == 0
    assert cache.acquire(sequence(range(50, 58)), 8) is None
    other = sequence(range(50, 54))
    assert cache.acquire(other, 4) == 0
    assert not cache.grow(other, 5)
    assert cache.usage == 1
    cache.release(held)
    assert cache.grow(other, 5)
    assert cache.usage == 0.5


def test_equal_prompts_at_once_end_in_one_copy() -> None:
    cache = BlockCache(8, SIZE)
    one, other = sequence(range(8)), sequence(range(8))
    cache.acquire(one, 8)
    cache.acquire(other, 8)
    cache.commit(one, 8)
    cache.commit(other, 8)
    assert cache.free == 6
    assert len([event for event in cache.take_events() if isinstance(event, BlockStored)]) == 1


def test_reset_only_while_nothing_is_held() -> None:
    cache = BlockCache(8, SIZE)
    held = sequence(range(8))
    cache.acquire(held, 8)
    assert not cache.reset()
    cache.release(held)
    run(cache, range(8))
    cache.take_events()
    assert cache.reset()
    assert cache.take_events() == [AllBlocksCleared()]
    assert run(cache, range(9)) == 0


def test_stored_events_say_what_a_router_needs() -> None:
    cache = BlockCache(8, SIZE)
    held = sequence(range(14), "salt")
    cache.acquire(held, 14)
    cache.commit(held, 9)
    cache.commit(held, 11)
    cache.commit(held, 14)
    first, second = cache.take_events()
    assert isinstance(first, BlockStored)
    assert isinstance(second, BlockStored)
    assert (first.parent_block_hash, first.token_ids, first.extra_keys) == (None, list(range(8)), [("salt",), None])
    assert (second.parent_block_hash, second.token_ids, second.extra_keys) == (first.block_hashes[-1], [8, 9, 10, 11], [None])
    assert first.block_size == SIZE


def apply(content: dict[bytes | int, bytes | int | None], event: Event) -> None:
    """What a subscriber does: names to parents."""
    match event:
        case BlockStored(block_hashes=names, parent_block_hash=parent):
            assert len(event.token_ids) == SIZE * len(names)
            for name in names:
                assert name not in content, "stored twice"
                content[name] = parent
                parent = name
        case BlockRemoved(block_hashes=names):
            for name in names:
                del content[name]
        case AllBlocksCleared():
            content.clear()


class Caching(RuleBasedStateMachine):
    """Random requests against a small cache, and a subscriber that follows its events."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.cache = BlockCache(6, SIZE)
        self.holders: list[TokenSequence] = []
        self.content: dict[bytes | int, bytes | int | None] = {}
        self.prompts: dict[bytes, tuple[str | None, tuple[int, ...]]] = {}

    @rule(target=held, tokens=st.lists(st.integers(0, 1), min_size=1, max_size=30), salt=st.sampled_from([None, "a", "b"]), data=st.data())
    def acquire(self, tokens: list[int], salt: str | None, data: st.DataObject) -> TokenSequence:
        wanted = sequence(tokens, salt)
        length = data.draw(st.integers(1, len(tokens)))
        longest = self.longest_stored_prefix(wanted, length)
        assert self.cache.cached_tokens(wanted, length) == longest
        free = self.cache.free
        cached = self.cache.acquire(wanted, length)
        if cached is None:
            assert self.cache.free == free
        else:
            assert cached == longest < length
            self.cache.commit(wanted, length)
            self.holders.append(wanted)
        return wanted

    @rule(request=held, data=st.data())
    def grow(self, request: TokenSequence, data: st.DataObject) -> None:
        if request not in self.holders:
            return
        length = data.draw(st.integers(len(request.blocks) * SIZE, len(request.blocks) * SIZE + SIZE))
        length = min(length, len(request.tokens))
        if self.cache.grow(request, length):
            self.cache.commit(request, length)

    @rule(request=consumes(held))
    def release(self, request: TokenSequence) -> None:
        if request in self.holders:
            self.holders.remove(request)
            self.cache.release(request)

    @rule()
    def reset(self) -> None:
        assert self.cache.reset() == (not self.holders)

    @invariant()
    def counts_are_right(self) -> None:
        blocks = {id(block): block for holder in self.holders for block in holder.blocks}
        for block in blocks.values():
            assert block.references == sum(block in holder.blocks for holder in self.holders)
        assert len(blocks) == self.cache.capacity - self.cache.free
        assert 0 <= self.cache.free <= self.cache.capacity
        assert len(set(self.cache) | {id(block) for block in blocks.values() if block.hash is None}) <= self.cache.capacity

    @invariant()
    def events_tell_the_content(self) -> None:
        for event in self.cache.take_events():
            apply(self.content, event)
            if isinstance(event, BlockStored):
                self.learn(event)
        assert set(self.content) == set(self.cache)
        assert all(parent is None or parent in self.content for parent in self.content.values()), "a block without its prefix"

    def learn(self, event: BlockStored) -> None:
        """The whole prefix that each block stands for, from the events alone."""
        salt: str | None = None
        tokens: tuple[int, ...] = ()
        if isinstance(event.parent_block_hash, bytes):
            salt, tokens = self.prompts[event.parent_block_hash]
        elif event.extra_keys and event.extra_keys[0]:
            (salt,) = event.extra_keys[0]
        for index, name in enumerate(event.block_hashes):
            assert isinstance(name, bytes)
            tokens += tuple(event.token_ids[index * SIZE : (index + 1) * SIZE])
            assert self.prompts.setdefault(name, (salt, tokens)) == (salt, tokens)

    def longest_stored_prefix(self, wanted: TokenSequence, length: int) -> int:
        stored = {self.prompts[name] for name in self.content if isinstance(name, bytes)}
        lengths = range(0, length, SIZE)
        return max(n for n in lengths if n == 0 or (wanted.salt, tuple(wanted.tokens[:n])) in stored)


TestCaching = Caching.TestCase
TestCaching.settings = settings(deadline=None, max_examples=60, stateful_step_count=30)
