"""One search finds the cached prefix on every replica, as if each had been asked."""

import random
from itertools import count
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cache.prefix.index import Match, PrefixIndex
from cache.prefix.mirror import CLEARED
from tests.cache.kv import come, go, lengths

CHAIN = [*range(100, 200)]


def test_every_replica_is_found_with_its_own_length() -> None:
    index = PrefixIndex()
    for replica, length in (("a", 100), ("b", 1), ("c", 37), ("d", 38), ("e", 37)):
        index.apply(replica, [come(*CHAIN[:length])])
    found = {"a": 100, "b": 1, "c": 37, "d": 38, "e": 37}
    assert index.match(CHAIN) == Match(found, found)
    assert index.match([*CHAIN, 7]).device == found
    assert index.match(CHAIN[:37]).device == {**found, "a": 37, "d": 37}
    assert index.match([7, *CHAIN]).device == {}
    assert index.match([]).device == {}


def test_the_host_lengthens_what_the_device_holds() -> None:
    index = PrefixIndex()
    index.apply("a", [come(*CHAIN[:10]), come(*CHAIN[:30], tier=1)])
    index.apply("b", [come(*CHAIN[:20], tier=1)])
    index.apply("c", [come(*CHAIN[:20])])
    assert index.match(CHAIN) == Match({"a": 10, "c": 20}, {"a": 30, "b": 20, "c": 20})


def test_blocks_are_counted_once_for_each_replica_and_tier() -> None:
    index = PrefixIndex()
    index.apply("a", [come(1, 2, 3), come(2, 3, 4), come(1, tier=1)])
    index.apply("b", [come(1), go(9)])
    assert (len(index), index.blocks_of("a"), index.blocks_of("b"), index.blocks_of("c")) == (6, 5, 1, 0)
    index.apply("a", [go(4, 9), go(4)])
    assert (len(index), index.blocks_of("a")) == (5, 4)


def test_what_is_on_its_way_counts_as_cached() -> None:
    index = PrefixIndex()
    index.apply("a", [come(1, 2), come(1, 2, 3, tier=1)])
    pending = {3: index.slot_mask("a"), 1: index.slot_mask("b"), 2: index.slot_mask("b")}
    assert index.match([1, 2, 3, 4], pending) == Match({"a": 3, "b": 2}, {"a": 3, "b": 2})
    assert index.match([1, 2, 3, 4]) == Match({"a": 2}, {"a": 3})


def test_a_replica_that_cleared_its_cache_starts_from_nothing() -> None:
    index = PrefixIndex()
    index.apply("a", [come(1, 2, 3)])
    index.apply("b", [come(1)])
    index.apply("a", [CLEARED, come(1, 9)])
    assert index.match([1, 2, 3]).device == {"a": 1, "b": 1}
    assert index.match([1, 9]).device == {"a": 2, "b": 1}
    assert len(index) == 3
    index.apply("never heard of", [CLEARED])
    index.forget("never heard of")
    assert len(index) == 3


def test_a_place_that_is_used_again_brings_nothing_back() -> None:
    index = PrefixIndex()
    index.apply("old", [come(*range(10_000))])
    for generation in range(50):
        index.forget("old" if generation == 0 else str(generation - 1))
        index.apply(str(generation), [come(7)])
        assert index.match([0, 1, 2]).device == {}
        assert index.match([7, 8]).device == {str(generation): 1}
    assert len(index) == index.blocks_of("49") == 1
    assert index.slot_mask("49") < 1 << 10


def test_a_replica_that_comes_back_holds_what_it_says_now() -> None:
    index = PrefixIndex()
    index.apply("a", [come(*range(5000)), come(1, tier=1)])
    index.forget("a")
    index.apply("a", [come(0)])
    assert index.match([0, 1, 2]) == Match({"a": 1}, {"a": 1})
    index.apply("a", [go(1, 2), come(1)])
    assert index.match([0, 1, 2]).device == {"a": 2}


PATHS = [(*head, *tail) for head in ((), (1,), (1, 2), (3,)) for tail in ((), (4,), (4, 5, 6), (7, 8, 9, 10, 11))]
CHAINS = [[hash(path[: end + 1]) for end in range(len(path))] for path in PATHS if path]
BEFORE = {key: before for chain in CHAINS for before, key in zip([0, *chain], chain, strict=False)}
REPLICAS = ["a", "b", "c", "d", "e"]
chains, replicas, tiers = st.sampled_from(CHAINS), st.sampled_from(REPLICAS), st.integers(0, 1)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("store"), replicas, tiers, chains),
        st.tuples(st.just("store"), replicas, tiers, chains),
        st.tuples(st.just("remove"), replicas, tiers, chains, st.integers(1, 6)),
        st.tuples(st.just("forget"), replicas),
        st.tuples(st.just("clear"), replicas),
    ),
    max_size=30,
)
Holdings = dict[str, tuple[set[int], set[int]]]


def is_prefix_closed(keys: set[int]) -> bool:
    return all(BEFORE[key] in keys or not BEFORE[key] for key in keys)


def step_both(index: PrefixIndex, model: Holdings, action: str, replica: str, *details: Any) -> None:
    if action == "forget":
        model.pop(replica, None)
        index.forget(replica)
    elif action == "clear":
        model.pop(replica, None)
        index.apply(replica, [CLEARED])
    elif action == "store":
        tier, chain = details
        model.setdefault(replica, (set(), set()))[tier].update(chain)
        index.apply(replica, [come(*chain, tier=tier)])
    elif replica in model:
        tier, chain, number = details
        for key in chain[: -number - 1 : -1]:
            without = model[replica][tier] - {key}
            union = without | model[replica][1 - tier]
            if is_prefix_closed(union) and (tier or is_prefix_closed(without)):
                model[replica][tier].discard(key)
                index.apply(replica, [go(key, tier=tier)])


def longest(chain: list[int], keys: set[int]) -> int:
    return next((place for place, key in enumerate(chain) if key not in keys), len(chain))


def all_lengths(chain: list[int], holdings: dict[str, set[int]]) -> dict[str, int]:
    return {replica: length for replica, keys in holdings.items() if (length := longest(chain, keys))}


@given(steps, st.lists(st.tuples(replicas, chains), max_size=4))
def test_it_agrees_with_a_plain_model(walk: list[tuple[Any, ...]], expected: list[tuple[str, list[int]]]) -> None:
    index, model = PrefixIndex(), Holdings()
    for action, replica, *details in walk:
        step_both(index, model, action, replica, *details)
        device = {name: keys[0] for name, keys in model.items()}
        either = {name: keys[0] | keys[1] for name, keys in model.items()}
        for chain in CHAINS:
            assert index.match(chain) == Match(all_lengths(chain, device), all_lengths(chain, either))
        for name in REPLICAS:
            assert index.blocks_of(name) == sum(map(len, model.get(name, ())))
        index.apply("any", [])  # what has gone is swept up with the next change
        assert len(index) == sum(index.blocks_of(name) for name in REPLICAS)
    pending: dict[int, int] = {}
    holdings = {name: keys[0] | keys[1] for name, keys in model.items()}
    for replica, chain in expected:
        holdings.setdefault(replica, set()).update(chain)
        pending.update({key: pending.get(key, 0) | index.slot_mask(replica) for key in chain})
    for chain in CHAINS:
        assert index.match(chain, pending).any_tier == all_lengths(chain, holdings)


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3000)), max_size=8), st.integers(0, 3000))
def test_long_chains_are_cut_exactly_where_they_end(holders: list[tuple[int, int]], asked: int) -> None:
    index = PrefixIndex()
    found = {str(replica): length for replica, length in holders}
    for replica, length in found.items():
        index.apply(replica, [come(*range(length))])
    assert index.match(range(asked)).device == {name: min(length, asked) for name, length in found.items() if min(length, asked)}


def test_it_stays_within_its_bound_and_keeps_what_is_asked_for() -> None:
    limit = 2000
    index = PrefixIndex(limit)
    hot = [*range(-40, 0)]
    index.apply("a", [come(*hot)])
    keys, chance = count(), random.Random(1)
    for turn in range(3000):
        replica = chance.choice("abc")
        index.apply(replica, [come(*(next(keys) for _ in range(10)), tier=turn % 2)])
        assert len(index) <= limit
        assert index.match(hot).device == {"a": 40}
    assert len(index) == sum(map(index.blocks_of, "abc")) > limit // 2
    assert index.evicted == 3000 * 10 + 40 - len(index)


def test_within_a_chain_that_was_asked_for_the_end_goes_first() -> None:
    index = PrefixIndex(100)
    index.apply("a", [come(*CHAIN)])
    index.match(CHAIN)
    index.apply("b", [come(*range(1))])
    left = lengths(index, CHAIN, "a")[0]
    assert 80 < left < 100
    assert index.blocks_of("a") == left


def test_replicas_that_come_and_go_leave_no_room_occupied() -> None:
    index = PrefixIndex(1000)
    keys = count()
    for turn in range(200):
        index.apply(f"r{turn}", [come(*(next(keys) for _ in range(300)), 1_000_000)])
        assert len(index) <= 1000
        if turn % 3:
            index.forget(f"r{turn}")
    for turn in range(0, 200, 3):
        index.forget(f"r{turn}")
    for turn in range(100):
        index.apply("last", [come(turn)])
    assert len(index) == index.blocks_of("last") == 100


def test_removals_of_what_was_evicted_are_harmless() -> None:
    index = PrefixIndex(50)
    index.apply("a", [come(*range(200))])
    index.apply("a", [go(*range(200))])
    assert len(index) == index.blocks_of("a") == 0
    index.apply("a", [come(*range(3))])
    assert lengths(index, [*range(3)], "a") == (3, 3)
