"""Round robin is fair, and always offers every replica."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from deployments.replicas import Replica
from deployments.routing import RoundRobin


def replicas(count: int) -> list[Replica]:
    return [Replica(str(i), f"http://{i}", 100, 16) for i in range(count)]


@given(st.integers(1, 8), st.integers(1, 5), st.integers(0, 20))
def test_each_is_first_equally_often(count: int, rounds: int, earlier: int) -> None:
    policy, candidates = RoundRobin(), replicas(count)
    for _ in range(earlier):
        policy.rank(candidates)
    firsts = Counter(policy.rank(candidates)[0].id for _ in range(rounds * count))
    assert set(firsts.values()) == {rounds}
    assert len(firsts) == count


@given(st.lists(st.integers(1, 6), min_size=1, max_size=10))
def test_all_are_ranked_each_once_while_replicas_come_and_go(counts: list[int]) -> None:
    policy = RoundRobin()
    for count in counts:
        candidates = replicas(count)
        assert sorted(policy.rank(candidates), key=candidates.index) == candidates


def test_a_request_spills_evenly_over_the_others() -> None:
    policy, candidates = RoundRobin(), replicas(3)
    ranked = [[replica.id for replica in policy.rank(candidates)] for _ in range(3)]
    assert ranked == [["0", "1", "2"], ["1", "2", "0"], ["2", "0", "1"]]


def test_without_replicas_there_is_nothing_to_rank() -> None:
    assert RoundRobin().rank([]) == []
