from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from retrieval.order import Order, Ranks, displacement

SCORES = st.lists(st.sampled_from([0.1, 0.3, 0.5, 0.7]), min_size=1, max_size=6).map(lambda scores: sorted(scores, reverse=True))


def is_in_bounds(order: tuple[int, ...], scores: list[float], bound: int) -> bool:
    """Each document is at most `bound` places from the places of those with its score."""
    return all(
        scores.index(scores[hit]) - bound <= place <= len(scores) - 1 - scores[::-1].index(scores[hit]) + bound
        for place, hit in enumerate(order)
    )


@given(SCORES, st.integers(0, 6))
def test_a_beginning_is_allowed_if_and_only_if_an_order_in_bounds_has_it(scores: list[float], bound: int) -> None:
    ranks = Ranks(scores, bound)
    everything = list(permutations(range(len(scores))))
    possible = {order[:length] for order in everything if is_in_bounds(order, scores, bound) for length in range(1, len(scores) + 1)}
    allowed: set[Order] = {()}
    for _ in scores:
        allowed |= {(*one, hit) for one in allowed for hit in range(len(scores)) if hit not in one and ranks.allows(one, hit)}
    assert allowed - {()} == possible


@given(SCORES, st.integers(0, 6), st.data())
def test_an_order_is_completed_by_preference_within_the_bounds(scores: list[float], bound: int, data: st.DataObject) -> None:
    ranks = Ranks(scores, bound)
    preference = data.draw(st.lists(st.integers(0, 3), min_size=len(scores), max_size=len(scores)))
    order = ranks.completed((), preference)
    assert sorted(order) == list(range(len(scores)))
    assert is_in_bounds(order, scores, bound)
    if bound >= len(scores):
        assert order == tuple(sorted(order, key=lambda hit: (-preference[hit], hit)))


def test_by_rank_if_nothing_is_preferred() -> None:
    assert Ranks([0.9, 0.8, 0.7], 2).completed((), [1, 1, 1]) == (0, 1, 2)
    assert Ranks([0.9, 0.8, 0.7], 2).completed((2,), [1, 1, 1]) == (2, 0, 1)


def test_equally_relevant_documents_may_always_change_places() -> None:
    ranks = Ranks([0.9, 0.89, 0.5], max_displacement=0, tie=0.02)
    assert ranks.allows((), 1)
    assert not ranks.allows((), 2)
    assert ranks.completed((1,), [0, 0, 9]) == (1, 0, 2)


def test_displacement() -> None:
    assert displacement((0, 1, 2)) == 0
    assert displacement((2, 0, 1)) == 2
    assert displacement(()) == 0
