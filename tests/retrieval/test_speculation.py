from hypothesis import given
from hypothesis import strategies as st

from retrieval.speculation import MAX_WASTE, Gate


def gate(searches: int = 20, remaining_s: float = 0.05, lasting: float = 1.0) -> Gate:
    made = Gate()
    for _ in range(searches):
        made.seen(remaining_s, lasting)
    return made


def test_open_where_searches_are_slow_and_mostly_right_early() -> None:
    assert gate().opens(prefill_s=0.2, backlog_s=0.0)


def test_closed_until_some_searches_were_seen() -> None:
    assert not gate(searches=3).opens(0.2, 0.0)


def test_closed_while_others_wait_there() -> None:
    assert not gate().opens(0.2, backlog_s=0.01)


def test_closed_for_quick_searches_and_short_prefills() -> None:
    assert not gate(remaining_s=0.002).opens(0.2, 0.0)
    assert not gate().opens(prefill_s=0.002, backlog_s=0.0)


def test_closed_where_provisional_results_do_not_last() -> None:
    assert not gate(lasting=0.5).opens(0.05, 0.0)
    assert gate(lasting=0.5).opens(0.5, 0.0)  # the little that is computed by then is not much of it


def test_closed_after_too_much_waste_until_it_is_forgotten() -> None:
    made = gate()
    for _ in range(20):
        made.spent(1000, 300)
    assert not made.opens(0.2, 0.0)
    for _ in range(200):
        made.spent(1000, 0)
    assert made.opens(0.2, 0.0)


def test_what_changes_is_learnt() -> None:
    made = gate(remaining_s=0.0)
    for _ in range(100):
        made.seen(0.1, 1.0)
    assert made.opens(0.2, 0.0)


@given(st.lists(st.tuples(st.floats(1, 1e5), st.floats(0, 1)), min_size=1, max_size=300))
def test_waste_is_bounded(requests: list[tuple[float, float]]) -> None:
    """Whatever provisional results come to: head starts are only made while the waste is below its bound."""
    made, computed, wasted = gate(), 0.0, 0.0
    for tokens, share in requests:
        lost = tokens * share if made.opens(0.2, 0.0) else 0.0
        made.spent(tokens + lost, lost)
        computed, wasted = 0.99 * computed + tokens + lost, 0.99 * wasted + lost
        if lost:
            assert wasted - lost <= MAX_WASTE * (computed - tokens - lost) + 1e-6
