"""The contract of eviction policies, for all of them, and what each gives up first."""

import random
from collections.abc import Iterable, Sequence, Sized

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from retrieval.eviction.arc import Arc
from retrieval.eviction.base import EvictionPolicy, Use
from retrieval.eviction.factory import POLICIES, PolicyName
from retrieval.eviction.lfu import HALVED_AFTER, Lfu
from retrieval.eviction.lru import Lru
from retrieval.eviction.pgdsf import Pgdsf
from retrieval.eviction.ranked import REMEMBERED, RankedPolicy

Key = tuple[int, ...]
"""A path: its block's parent is the path without its last part."""


def path(*parts: int) -> list[Key]:
    """The chain that ends there."""
    return [parts[: end + 1] for end in range(len(parts))]


def serve(policy: EvictionPolicy[Key], chain: Sequence[Key], cost: float = 1.0) -> list[Key]:
    """As an engine does with one request; returns what had to go."""
    missing = [key for key in chain if key not in policy]
    policy.missed(missing)
    gone = policy.evict(max(0, len(policy) + len(missing) - policy.capacity), set(chain))
    assert gone is not None
    for key in missing:
        policy.insert(key, key[:-1] or None)
    policy.used(Use(chain, set(missing), cost))
    return gone


names = pytest.mark.parametrize("name", sorted(POLICIES))


@names
def test_of_one_chain_the_end_goes_first(name: PolicyName) -> None:
    policy: EvictionPolicy[Key] = POLICIES[name](4)
    serve(policy, path(1, 2, 3, 4))
    assert policy.evict(3) == [(1, 2, 3, 4), (1, 2, 3), (1, 2)]


@names
def test_what_cannot_be_done_changes_nothing(name: PolicyName) -> None:
    policy: EvictionPolicy[Key] = POLICIES[name](4)
    serve(policy, path(1, 2, 3, 4))
    policy.pin((1, 2, 3, 4))
    for protected in (set(path(1, 2)), set(path(1, 2, 3))):
        assert policy.evict(4, protected) is None
        assert set(policy) == set(path(1, 2, 3, 4))
    policy.unpin((1, 2, 3, 4))
    assert policy.evict(1, set(path(1, 2, 3))) == [(1, 2, 3, 4)]
    assert policy.evict(4) is None
    assert policy.evict(3) == [(1, 2, 3), (1, 2), (1,)]
    assert policy.evict(0) == []


@names
def test_pins_are_counted(name: PolicyName) -> None:
    policy: EvictionPolicy[Key] = POLICIES[name](2)
    serve(policy, path(1))
    policy.pin((1,))
    policy.pin((1,))
    policy.unpin((1,))
    assert policy.evict(1) is None
    policy.unpin((1,))
    assert policy.evict(1) == [(1,)]


@names
def test_removed_and_cleared(name: PolicyName) -> None:
    policy: EvictionPolicy[Key] = POLICIES[name](4)
    serve(policy, path(1, 2))
    policy.pin((1,))
    policy.remove((1,))
    assert list(policy) == [(1, 2)]
    with pytest.raises(KeyError):
        policy.remove((1,))
    serve(policy, path(1, 2))
    assert set(policy.evict(2) or ()) == {(1, 2), (1,)}
    serve(policy, path(1, 2))
    policy.clear()
    assert not len(policy)
    assert serve(policy, path(1, 2)) == []


def test_lru_gives_up_what_was_used_longest_ago() -> None:
    policy: Lru[Key] = Lru(4)
    for chain in (path(1, 1), path(2, 1), path(1, 1)):
        serve(policy, chain)
    assert serve(policy, path(3)) == [(2, 1)]
    assert serve(policy, path(4, 1)) == [(2,), (1, 1)]


def test_lfu_gives_up_what_was_used_least() -> None:
    policy: Lfu[Key] = Lfu(3)
    for chain in (path(1), path(1), path(2), path(3), path(3)):
        serve(policy, chain)
    assert serve(policy, path(4)) == [(2,)]


def test_lfu_forgets_what_was_hot_long_ago() -> None:
    policy: Lfu[Key] = Lfu(2)
    for _ in range(8):
        serve(policy, path(1))
    for number in range(2 * HALVED_AFTER):
        serve(policy, path(number, 0))
    assert (1,) not in policy


def test_arc_keeps_what_was_found_from_a_scan() -> None:
    policy: Arc[Key] = Arc(4)
    for chain in (path(1), path(1), path(2), path(2)):
        serve(policy, chain)
    for number in range(10, 30):
        serve(policy, path(number))
    assert (1,) in policy
    assert (2,) in policy


def test_arc_gives_the_recent_ones_room_if_they_are_missed() -> None:
    policy: Arc[Key] = Arc(4)
    for number in (1, 1, 2, 2, 3, 3, 4, 4):
        serve(policy, path(number))
    for _ in range(4):
        for number in (10, 11):
            serve(policy, path(number))
    assert {(10,), (11,)} <= set(policy)


def test_pgdsf_weighs_uses_by_cost() -> None:
    policy: Pgdsf[Key] = Pgdsf(3)
    for number, cost in ((1, 1.0), (2, 5.0), (3, 3.0)):
        serve(policy, path(number), cost=cost)
    for number in (1, 1, 2, 3):
        serve(policy, path(number))
    assert policy.evict(3) == [(1,), (3,), (2,)]


def test_pgdsf_takes_the_average_of_what_those_paid_who_computed_it() -> None:
    policy: Pgdsf[Key] = Pgdsf(2)
    serve(policy, path(1), cost=1.0)
    assert policy.evict(1) == [(1,)]
    serve(policy, path(1), cost=3.0)  # used again, at 2 on the average
    serve(policy, path(2), cost=1.9)
    serve(policy, path(2))
    assert policy.evict(1) == [(2,)]
    assert policy.clock == pytest.approx(1.9)
    assert policy.evict(1) == [(1,)]
    assert policy.clock == pytest.approx(2.0)


def test_pgdsf_is_not_moved_by_what_is_used_once() -> None:
    policy: Pgdsf[Key] = Pgdsf(2)
    serve(policy, path(0))
    serve(policy, path(0))
    for number in range(1, 30):
        serve(policy, path(number))
    assert (0,) in policy
    assert policy.clock == 0


def test_pgdsf_overtakes_what_is_not_used_any_more() -> None:
    policy: Pgdsf[Key] = Pgdsf(2)
    for _ in range(10):
        serve(policy, path(0))
    for number in range(1, 30):
        serve(policy, path(number))
        serve(policy, path(number))
    assert (0,) not in policy


def test_what_is_used_behind_a_block_uses_it_too() -> None:
    """An engine that loads the rest of a prefix need not say what it had of it."""
    policy: Lfu[Key] = Lfu(6)
    serve(policy, path(1, 2))
    for _ in range(5):
        policy.used(Use([(1, 2)]))
    for _ in range(4):
        serve(policy, path(3))
    assert policy.evict(2) == [(3,), (1, 2)]


def test_parents_that_were_not_known_are_learnt() -> None:
    policy: Pgdsf[Key] = Pgdsf(3)
    for key in path(1, 2, 3):
        policy.insert(key)
    policy.used(Use(path(1, 2, 3)))
    assert policy.evict(3) == [(1, 2, 3), (1, 2), (1,)]


class Following(RuleBasedStateMachine):
    """Random requests on a small tree, with pins; the tier's content is what the calls say."""

    policy: EvictionPolicy[Key]

    @initialize(name=st.sampled_from(sorted(POLICIES)), capacity=st.integers(4, 12))
    def start(self, name: PolicyName, capacity: int) -> None:
        self.policy = POLICIES[name](capacity)
        self.held: set[Key] = set()
        self.pinned: list[Key] = []

    @rule(parts=st.lists(st.integers(0, 2), min_size=1, max_size=4), cost=st.floats(0, 10))
    def request(self, parts: list[int], cost: float) -> None:
        chain = path(*parts)
        missing = [key for key in chain if key not in self.held]
        excess = len(self.held) + len(missing) - self.policy.capacity
        if excess > 0 and not self.evict(excess, set(chain)):
            return
        for key in missing:
            self.policy.insert(key, key[:-1] or None)
            self.held.add(key)
        self.policy.used(Use(chain, set(missing), cost))

    @rule(n=st.integers(0, 5), protected=st.sets(st.lists(st.integers(0, 2), min_size=1, max_size=4).map(tuple), max_size=4))
    def evict_some(self, n: int, protected: set[Key]) -> None:
        self.evict(n, protected)

    def evict(self, n: int, protected: set[Key]) -> bool:
        free = self.held - set(self.pinned) - protected
        gone = self.policy.evict(n, protected)
        if gone is None:
            assert len(self.able(free)) < n
            return False
        assert len(set(gone)) == len(gone) == n
        assert set(gone) <= free
        if isinstance(self.policy, RankedPolicy):
            assert len(self.able(free)) >= n
            for place, key in enumerate(gone):
                assert not self.behind(key, self.held - set(gone[:place])), "something behind it is left"
        self.held -= set(gone)
        return True

    def able(self, free: set[Key]) -> set[Key]:
        """What the policy may give up in the end."""
        if not isinstance(self.policy, RankedPolicy):
            return free
        return {key for key in free if self.behind(key, self.held) <= free}

    def behind(self, key: Key, held: set[Key]) -> set[Key]:
        """Whatever is linked to it by blocks that are held."""
        chains = [other for other in held if len(other) > len(key) and other[: len(key)] == key]
        return {other for other in chains if all(other[:end] in held for end in range(len(key), len(other)))}

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.held)))
        self.policy.pin(key)
        self.pinned.append(key)

    @precondition(lambda self: self.pinned)
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.pinned)))
        self.policy.unpin(key)
        self.pinned.remove(key)

    @precondition(lambda self: self.held - {key[:-1] for key in self.held})
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """A copy that failed: nothing is behind it yet."""
        key = data.draw(st.sampled_from(sorted(self.held - {key[:-1] for key in self.held})))
        self.policy.remove(key)
        self.held.remove(key)
        self.pinned = [other for other in self.pinned if other != key]

    @rule()
    def clear(self) -> None:
        self.policy.clear()
        self.held.clear()
        self.pinned.clear()

    @invariant()
    def content(self) -> None:
        if hasattr(self, "held"):
            assert set(self.policy) == self.held
            assert len(self.policy) == len(self.held)
            assert all(key in self.policy for key in self.held)


TestFollowing = Following.TestCase
TestFollowing.settings = settings(deadline=None, max_examples=150, stateful_step_count=40)


@names
def test_memory_is_bounded(name: PolicyName) -> None:
    """Whatever comes, what a policy keeps is a multiple of its capacity."""
    policy: EvictionPolicy[Key] = POLICIES[name](50)
    chance = random.Random(0)
    for _ in range(3000):
        serve(policy, path(chance.randrange(300), chance.randrange(3), 0))
    kept = [len(value) for value in vars(policy).values() if isinstance(value, Sized)]
    assert max(kept) <= REMEMBERED * 50


def reference(uses: Iterable[tuple[list[Key], float]], capacity: int) -> list[Key]:
    """PGDSF by its equations, slowly: the victims of all requests in order."""
    state: dict[Key, list[float]] = {}  # uses, sum of costs, times computed
    priority: dict[Key, tuple[float, int]] = {}
    clock, number, victims = 0.0, 0, list[Key]()
    for chain, cost in uses:
        missing = [key for key in chain if key not in priority]
        while len(priority) + len(missing) > capacity:
            leaves = [key for key in priority if key not in chain and not any(other[:-1] == key for other in priority)]
            key = min(leaves, key=lambda each: priority[each])
            clock = max(clock, priority.pop(key)[0])
            victims.append(key)
            gone = list(dict.fromkeys(key for key in reversed(victims) if key not in priority))
            for forgotten in gone[REMEMBERED * capacity :]:
                state.pop(forgotten, None)
        for key in chain:
            known = state.setdefault(key, [0.0, 0.0, 0.0])
            known[0] += 1
            if key in missing:
                known[1] += cost
                known[2] += 1
            number += 1
            priority[key] = (clock + (known[0] - 1) * known[1] / known[2], number)
    return victims


def test_pgdsf_follows_its_equations() -> None:
    chance = random.Random(1)
    uses = [(path(*(chance.randrange(1 + 3 * depth % 5) for depth in range(3, 7))), chance.uniform(0.5, 2)) for _ in range(400)]
    policy: Pgdsf[Key] = Pgdsf(40)
    assert [key for chain, cost in uses for key in serve(policy, chain, cost)] == reference(uses, 40)
