"""The knowledge tree and the planner, on a prefix index that is filled directly."""

import random
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.prefix.index import PrefixIndex
from cache.prefix.keys import BlockKeys, Tokens
from cache.prefix.mirror import Change
from cache.prefix.profile import PrefillProfile
from cache.prefix.router import LeastCost, Router
from retrieval.order import Order, Ranks
from retrieval.planner import Pieces, Planner
from retrieval.tree import Walk

BLOCK = 4
KEYS = BlockKeys(b"seed", BLOCK)
ROOT = KEYS.root("tenant")
REPLICAS = ["a", "b", "c"]


def tokens(first: int, count: int) -> Tokens:
    return np.arange(first, first + count, dtype=np.uint32)


def pieces(lengths: list[int], head: int = 6, tail: int = 3) -> Pieces:
    documents = [tokens(1000 * (number + 1), length) for number, length in enumerate(lengths)]
    return Pieces(tokens(0, head), documents, tokens(900_000, tail), [str(number) for number in range(len(lengths))])


class Fleet:
    """A router whose replicas hold what the test says."""

    def __init__(self) -> None:
        self.now = 0.0
        profile = PrefillProfile()
        self.router = Router(LeastCost(profile), profile, PrefixIndex(), BLOCK, lambda: self.now)
        for replica in REPLICAS:
            self.router.ledger(replica)
        self.planner = Planner(self.router, lambda: self.now)

    def holds(self, replica: str, these: Pieces, order: Order, most: int | None = None) -> None:
        """The prompt with these documents alone, as far as `most` blocks."""
        self.router.apply(replica, [Change(0, True, KEYS.chain(ROOT, these.joined(order))[:most])])

    def walk(self, these: Pieces, ranks: Ranks) -> dict[str, tuple[Order, int]]:
        walk = Walk(self.router.index, self.router.pending.masks, KEYS, these.documents, ranks)
        return {replica: (path.order, path.blocks) for replica, path in walk.paths(ROOT, these.head).items()}


def free(count: int) -> Ranks:
    return Ranks([0.0] * count, count)


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


def test_nothing_is_held(fleet: Fleet) -> None:
    these = pieces([9, 9])
    assert fleet.walk(these, free(2)) == {}
    plan = fleet.planner.plan(KEYS, ROOT, these, free(2), REPLICAS)
    assert plan.order == (0, 1)
    assert plan.tokens.tolist() == these.joined((0, 1)).tolist()
    assert plan.routed.predicted == 0


def test_each_replica_has_its_own_order(fleet: Fleet) -> None:
    these = pieces([9, 9, 9])
    fleet.holds("a", these, (2, 0))
    fleet.holds("b", these, (1,))
    found = fleet.walk(these, free(3))
    assert found == {"a": ((2, 0), 6), "b": ((1,), 3)}
    plan = fleet.planner.plan(KEYS, ROOT, these, free(3), REPLICAS)
    assert plan.order == (2, 0, 1)
    assert plan.routed.replicas[0] == "a"
    assert plan.routed.predicted == 6 * BLOCK


def test_a_busy_replica_is_passed_over_with_its_order(fleet: Fleet) -> None:
    these = pieces([200, 200])
    fleet.holds("a", these, (1, 0))
    fleet.holds("b", these, (0,))
    for _ in range(40):
        fleet.planner.plan(KEYS, KEYS.root("other"), pieces([4000]), free(1), ["a"])
    plan = fleet.planner.plan(KEYS, ROOT, these, free(2), REPLICAS)
    assert plan.routed.replicas[0] == "b"
    assert plan.order == (0, 1)


def test_a_document_that_is_held_in_part_comes_next(fleet: Fleet) -> None:
    these = pieces([20, 20, 20])
    fleet.holds("a", these, (1, 2), most=8)
    assert fleet.walk(these, free(3)) == {"a": ((1, 2), 8)}


def test_the_walk_does_not_take_a_wrong_turn(fleet: Fleet) -> None:
    these = pieces([8, 40, 40])
    fleet.holds("a", these, (0,))
    fleet.holds("a", these, (1, 2))
    assert fleet.walk(these, free(3))["a"][0] == (1, 2)


def test_the_bounds_are_kept(fleet: Fleet) -> None:
    these = pieces([20, 20, 20])
    fleet.holds("a", these, (2, 1, 0))
    plan = fleet.planner.plan(KEYS, ROOT, these, Ranks([0.9, 0.5, 0.1], max_displacement=1), REPLICAS)
    assert plan.order == (0, 1, 2)


def test_another_salt_sees_nothing(fleet: Fleet) -> None:
    these = pieces([9, 9])
    fleet.holds("a", these, (0, 1))
    assert fleet.planner.plan(KEYS, KEYS.root("other"), these, free(2), REPLICAS).routed.predicted == 0


def test_what_nobody_holds_is_put_hottest_first(fleet: Fleet) -> None:
    one, both = pieces([9, 9]), pieces([9, 9, 9])
    fleet.planner.plan(KEYS, ROOT, Pieces(one.head, [one.documents[1]], one.tail, ["2"]), free(1), REPLICAS).routed.end()
    assert fleet.planner.plan(KEYS, ROOT, Pieces(both.head, both.documents, both.tail, ["0", "1", "2"]), free(3), REPLICAS).order[0] == 2


def test_provisional_plans_ask_for_nothing(fleet: Fleet) -> None:
    """A head start and the request it is for are one."""
    one, both = pieces([9]), pieces([9, 9])
    other = Pieces(one.head, both.documents[1:], one.tail, ["1"])
    for asked, is_counted in ((one, False), (one, True), (other, True), (other, True)):
        fleet.planner.plan(KEYS, ROOT, asked, free(1), REPLICAS, is_counted=is_counted).routed.end()
    assert fleet.planner.plan(KEYS, ROOT, both, free(2), REPLICAS).order == (1, 0)


def test_documents_that_are_asked_for_together_stay_by_rank(fleet: Fleet) -> None:
    """Else a head start and its request would have two orders."""
    chance, these = random.Random(0), pieces([9] * 5)

    def passing() -> float:
        fleet.now += chance.random() / 1000
        return fleet.now

    planner = Planner(fleet.router, passing)
    for _ in range(5):
        for is_counted in (False, True):
            plan = planner.plan(KEYS, ROOT, these, free(5), REPLICAS, is_counted=is_counted)
            assert plan.order == (0, 1, 2, 3, 4)
            plan.routed.end()


def test_what_was_planned_counts_as_held(fleet: Fleet) -> None:
    these = pieces([40, 40])
    first = fleet.planner.plan(KEYS, ROOT, these, free(2), REPLICAS)
    first.routed.prefilled()
    second = fleet.planner.plan(KEYS, ROOT, pieces([40, 40], tail=7), free(2), REPLICAS)
    assert second.routed.replicas[0] == first.routed.replicas[0]
    assert second.routed.predicted >= 84  # 86 tokens are the same


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=4),
    st.lists(st.tuples(st.sampled_from(REPLICAS), st.permutations(range(4)), st.integers(0, 40)), max_size=6),
    st.integers(0, 9),
    st.integers(0, 4),
)
def test_no_order_finds_more(lengths: list[int], held: list[tuple[str, list[int], int]], head: int, bound: int) -> None:
    fleet, these = Fleet(), pieces(lengths, head)
    for replica, places, most in held:
        fleet.holds(replica, these, tuple(hit for hit in places if hit < len(lengths)), most)
    scores = [float(-place) for place in range(len(lengths))]
    ranks = Ranks(scores, bound)
    found = fleet.walk(these, ranks)
    for replica in REPLICAS:
        best = max(held_blocks(fleet, these, order, replica) for order in permutations(range(len(lengths))) if is_allowed(ranks, order))
        order, blocks = found.get(replica, ((), 0))
        whole = ranks.completed(order, [0.0] * len(lengths))
        assert held_blocks(fleet, these, whole, replica) >= blocks
        # A document without a full block of its own cannot be told from another: so short ones may end a walk early.
        assert blocks <= best
        if min(lengths) >= BLOCK:
            assert held_blocks(fleet, these, whole, replica) == best


def held_blocks(fleet: Fleet, these: Pieces, order: Order, replica: str) -> int:
    chain = KEYS.chain(ROOT, np.concatenate([these.head, *(these.documents[hit] for hit in order)]))
    return fleet.router.index.match(chain).device.get(replica, 0)


def is_allowed(ranks: Ranks, order: Order) -> bool:
    return all(ranks.allows(order[:place], hit) for place, hit in enumerate(order))
