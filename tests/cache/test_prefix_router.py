"""Prompts go where they are answered first, and what is reserved is given back."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.prefix.index import PrefixIndex
from cache.prefix.ledger import Ledger, Work
from cache.prefix.mirror import CLEARED, Change
from cache.prefix.pending import GRACE_S, MAX_LIFE_S
from cache.prefix.profile import PrefillProfile, Sample
from cache.prefix.router import LeastCost, Policy, PowerOfTwo, Prompt, RoundRobin, Routed, Router
from tests.cache.entries import Clock
from tests.cache.kv import SIZE, come, keys_of

REPLICAS = ["a", "b", "c", "d"]
LONG = 8000


def router(policy: Policy | None = None, repeat: float = 0.0, tokens_per_s: float = 10_000.0) -> Router:
    """Of engines that are known to compute so many tokens a second."""
    profile = PrefillProfile(tokens_per_s)
    return Router(policy or LeastCost(profile, repeat, random.Random(5)), profile, PrefixIndex(), SIZE, Clock())


def clock_of(router: Router) -> Clock:
    assert isinstance(router.clock, Clock)
    return router.clock


def prompt(tokens: int = LONG, first: int = 0, is_whole: bool = False) -> Prompt:
    return Prompt(keys_of(range(first, first + tokens)), tokens, is_whole)


def holds(router: Router, replica: str, prompt: Prompt, tokens: int, tier: int = 0) -> None:
    router.apply(replica, [come(*prompt.keys[: tokens // SIZE], tier=tier)])


def is_idle(router: Router) -> bool:
    """Nothing is under way, as far as it knows, once the last events must have come."""
    clock_of(router).now += GRACE_S
    router.pending.expire()
    ledgers = [router.ledger(replica) for replica in REPLICAS]
    return not router.pending.masks and not any(each.ongoing or each.backlog_s(clock_of(router).now) for each in ledgers)


def test_a_prompt_goes_to_the_one_that_holds_its_beginning() -> None:
    ours, asked = router(), prompt()
    holds(ours, "c", asked, 4000)
    holds(ours, "b", asked, 6000)
    routed = ours.route(asked, REPLICAS)
    assert (routed.replicas[:2], routed.cached) == (["b", "c"], [6000, 4000, 0, 0])
    assert (routed.asked, routed.predicted) == ("b", 6000)
    work = routed.work
    assert work is not None
    assert (work.cached, work.new) == (6000, 2000)
    assert work.seconds == pytest.approx(0.205)


def test_what_lies_on_the_host_counts_too() -> None:
    ours, asked = router(), prompt()
    holds(ours, "d", asked, 4000, tier=1)
    assert (routed := ours.route(asked, REPLICAS)).replicas[0] == "d"
    assert routed.predicted == 4000


def test_a_queue_that_costs_more_than_computing_sends_it_elsewhere() -> None:
    ours, asked = router(), prompt()
    holds(ours, "b", asked, 6000)
    ours.ledger("b").others_backlog_s = 0.59
    (held := ours.route(asked, REPLICAS)).end()
    assert held.asked == "b"
    ours.ledger("b").others_backlog_s = 0.61
    assert ours.route(asked, REPLICAS).asked != "b"


def test_what_decodes_beside_costs_as_much_as_was_learnt() -> None:
    ours, asked = router(), prompt()
    for number in range(300):
        running = number % 3 * 10
        sample = Sample(seconds=0.005 + 1000 * (1e-4 + (1e-4 + 1e-6 * running if running else 0)))
        sample.add(0, 1000, running)
        ours.profile.learn(sample)
    for replica in ("a", "b", "d"):
        ours.ledger(replica).others_decoding = 5
    assert ours.route(asked, REPLICAS).asked == "c"


def test_a_burst_of_one_new_prompt_spreads_if_repeating_costs_nothing() -> None:
    ours = router(repeat=0)
    asked = Counter(ours.route(prompt(), REPLICAS).asked for _ in range(8))
    assert len(asked) == 4
    assert max(asked.values()) <= 3


def test_a_burst_of_one_new_prompt_stays_together_for_a_while_if_repeating_costs_much() -> None:
    ours = router(repeat=4)
    heads = keys_of(range(4000))
    burst = [Prompt([*heads, *keys_of(range(10_000 * n, 10_000 * n + 4000))], LONG) for n in range(1, 31)]
    asked = [ours.route(each, REPLICAS).asked for each in burst]
    assert len(set(asked[:2])) == 1
    assert len(set(asked)) == 4


def test_a_burst_of_different_prompts_is_shared_evenly() -> None:
    ours = router(repeat=4)
    asked = Counter(ours.route(prompt(first=number * LONG), REPLICAS).asked for number in range(20))
    assert asked == dict.fromkeys(REPLICAS, 5)


def test_the_next_equal_prompt_counts_on_the_one_before_it() -> None:
    ours = router(repeat=4)
    first = ours.route(prompt(), REPLICAS)
    second = ours.route(prompt(), REPLICAS)
    assert (first.predicted, second.predicted, second.asked) == (0, LONG - SIZE, first.asked)
    first.end()
    second.end()
    assert ours.route(prompt(), REPLICAS).predicted == 0


@pytest.mark.parametrize(("tokens", "most"), [(8, 4), (9, 8), (4, 0), (7, 4), (3, 0), (0, 0)])
def test_the_last_token_is_always_computed(tokens: int, most: int) -> None:
    ours, asked = router(), prompt(tokens)
    holds(ours, "b", prompt(), LONG)
    routed = ours.route(asked, REPLICAS)
    assert max(routed.cached) == most
    assert routed.work is not None
    assert routed.work.new == tokens - routed.predicted


def test_without_keys_nothing_is_predicted() -> None:
    ours = router()
    holds(ours, "b", prompt(), LONG)
    routed = ours.route(Prompt([], LONG), REPLICAS)
    assert routed.cached == [0, 0, 0, 0]
    routed.prefilled()
    routed.end()
    assert is_idle(ours)


def test_asking_another_moves_the_reservation() -> None:
    ours, asked = router(), prompt()
    holds(ours, "b", asked, 6000)
    routed = ours.route(asked, REPLICAS)
    second = routed.replicas[1]
    routed.ask("b")
    assert ours.ledger("b").ongoing == 1
    routed.ask(second)
    assert (routed.asked, routed.predicted) == (second, 0)
    assert ours.ledger("b").ongoing == 0
    assert ours.ledger(second).ongoing == 1
    assert ours.index.match(asked.keys, ours.pending.masks).device == {"b": 1500, second: 2000}
    routed.ask("b")
    assert ours.ledger(second).ongoing == 0
    routed.end()
    assert is_idle(ours)


def test_computed_blocks_stay_expected_until_their_events_have_come() -> None:
    ours = router()
    first = ours.route(prompt(), REPLICAS)
    first.prefilled()
    first.end()
    second = ours.route(prompt(), REPLICAS)
    assert (second.asked, second.predicted) == (first.asked, LONG - SIZE)
    second.end()
    clock_of(ours).now += GRACE_S
    assert ours.route(prompt(), REPLICAS).predicted == 0


def test_an_answer_in_one_piece_that_fails_late_is_given_back_whole() -> None:
    ours = router()
    routed = ours.route(prompt(is_whole=True), REPLICAS)
    clock_of(ours).now += 10
    other = ours.route(prompt(), ["a"])
    routed.end()
    other.end()
    assert not ours.pending.masks
    assert is_idle(ours)


@given(
    st.lists(st.tuples(st.sampled_from(["route", "route", "next", "prefilled", "end", "wait", "forget"]), st.integers(0, 99)), max_size=40)
)
def test_whatever_happens_everything_is_given_back(steps: list[tuple[str, int]]) -> None:
    ours = router()
    routed: list[Routed] = []
    for action, number in steps:
        if action == "route":
            routed.append(ours.route(prompt(40 + number, first=number % 3, is_whole=number % 2 == 0), REPLICAS))
        elif action == "wait":
            clock_of(ours).now += number / 500
        elif action == "forget":
            ours.forget(REPLICAS[number % 4])
        elif routed:
            each = routed[number % len(routed)]
            if action == "next":
                each.ask(each.replicas[number % 4])
            elif action == "prefilled":
                each.prefilled()
            else:
                each.end()
    random.Random(len(steps)).shuffle(routed)
    for each in routed:
        each.end()
    assert is_idle(ours)


def test_requests_that_never_end_are_forgotten_in_the_end() -> None:
    ours = router()
    ours.route(prompt(), REPLICAS)
    clock_of(ours).now += MAX_LIFE_S
    assert ours.route(prompt(), REPLICAS).predicted == 0


def test_a_replica_that_has_gone_leaves_nothing_to_the_next() -> None:
    ours, asked = router(), prompt()
    lost = ours.route(asked, ["a"])
    ours.forget("a")
    ours.apply("b", [])
    ours.apply("c", [])
    routed = ours.route(asked, ["b", "c"])
    assert routed.cached == [0, 0]
    routed.end()
    lost.prefilled()
    lost.end()
    assert is_idle(ours)
    assert ours.route(asked, ["a"]).predicted == 0


@pytest.mark.parametrize(("changes", "is_snapshot"), [([CLEARED], False), ([], True), ([come(1, 2)], True)])
def test_what_is_on_its_way_stays_expected_when_a_cache_starts_from_nothing(changes: list[Change], is_snapshot: bool) -> None:
    ours, asked = router(repeat=4), prompt()
    first = ours.route(asked, REPLICAS)
    assert first.asked is not None
    ours.apply(first.asked, changes, is_snapshot)
    second = ours.route(asked, REPLICAS)
    assert (second.asked, second.predicted) == (first.asked, LONG - SIZE)
    first.end()
    second.end()
    assert not ours.pending.masks


def test_engines_teach_the_profile() -> None:
    ours = router(tokens_per_s=1_000_000)
    for number in range(50):
        routed = ours.route(prompt(4000, first=number * 4000), REPLICAS)
        clock_of(ours).now += 0.4
        routed.prefilled()
        routed.end()
    assert ours.profile.seconds(0, 4000) == pytest.approx(0.4, rel=0.05)


def ledgers(*ongoing: int) -> list[Ledger]:
    made = [Ledger(str(place), lambda sample: None) for place in range(len(ongoing))]
    for ledger, number in zip(made, ongoing, strict=True):
        ledger.decoding = number
    return made


def firsts(policy: Policy, among: Sequence[Ledger], cached: Sequence[int], times: int) -> Counter[int]:
    return Counter(policy.order(among, cached, 100, 0.0)[0] for _ in range(times))


def test_round_robin_is_fair_whatever_replicas_do() -> None:
    policy = RoundRobin()
    assert [policy.order(ledgers(9, 0, 0), [0, 0, 100], 100, 0)[0] for _ in range(6)] == [0, 1, 2, 0, 1, 2]
    assert policy.order(ledgers(0, 0, 0), [0, 0, 0], 100, 0) == [0, 1, 2]
    assert policy.order(ledgers(0, 0, 0), [0, 0, 0], 100, 0) == [1, 2, 0]


def test_power_of_two_takes_the_one_with_less_to_do() -> None:
    policy = PowerOfTwo(random.Random(1))
    assert firsts(policy, ledgers(5, 4), [0, 0], 100) == {1: 100}
    chosen = firsts(policy, ledgers(3, 2, 1, 0), [0, 0, 0, 0], 6000)
    assert chosen[0] == 0
    for place, share in ((1, 1 / 6), (2, 2 / 6), (3, 3 / 6)):
        assert chosen[place] == pytest.approx(6000 * share, rel=0.15)


def test_power_of_two_falls_back_on_the_least_loaded_of_the_others() -> None:
    policy = PowerOfTwo(random.Random(2))
    for _ in range(50):
        order = policy.order(ledgers(7, 3, 9, 1, 5), [0] * 5, 100, 0)
        rest = [(7, 3, 9, 1, 5)[place] for place in order[2:]]
        assert rest == sorted(rest)


@pytest.mark.parametrize("policy", [LeastCost(PrefillProfile(), chance=random.Random(3)), PowerOfTwo(random.Random(3))])
def test_equal_replicas_are_chosen_by_chance(policy: Policy) -> None:
    chosen = firsts(policy, ledgers(0, 0, 0, 0), [0, 0, 0, 0], 4000)
    assert all(chosen[place] == pytest.approx(1000, rel=0.2) for place in range(4))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 100), st.integers(0, 3)), min_size=1, max_size=9), st.integers(0, 9))
def test_every_policy_ranks_each_replica_once(replicas: list[tuple[int, int, int]], turns: int) -> None:
    among = ledgers(*(decoding for decoding, _, _ in replicas))
    for ledger, (_, _, waiting) in zip(among, replicas, strict=True):
        for _ in range(waiting):
            ledger.admit(Work(0, 10, 0.1), 0.0)
    for policy in (RoundRobin(), PowerOfTwo(), LeastCost(PrefillProfile())):
        for _ in range(turns + 1):
            assert sorted(policy.order(among, [cached for _, cached, _ in replicas], 100, 1.0)) == [*range(len(replicas))]


def test_one_replica_is_a_list_of_one() -> None:
    for policy in (RoundRobin(), PowerOfTwo(), None):
        assert router(policy).route(prompt(), ["a"]).replicas == ["a"]
