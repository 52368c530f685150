"""Each way in which a question ends: served, or not and why."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from cache.cascade import DOUBTED, LONG, SHORT, Decision, Query, Reason
from cache.decision.account import Budget
from cache.decision.belief import Effect
from cache.entry import Entry
from cache.policy import Policy
from cache.stores.base import Candidate
from cache.vectors.base import Neighbour
from tests.cache.entries import unit
from tests.cache.worlds import STATIC, CacheWorld

SIMILAR = unit(0.95, math.sqrt(1 - 0.95**2))


@pytest.fixture
def world(tmp_path: Path) -> CacheWorld:
    return CacheWorld(tmp_path)


def served(world: CacheWorld, query: Query | None = None, policy: Policy = STATIC) -> Entry | None:
    return world.cache.search(query or world.query(), policy).entry


def reason(world: CacheWorld, query: Query | None = None, policy: Policy = STATIC) -> Decision:
    found = world.cache.search(query or world.query(), policy)
    assert found.entry is None
    return found.decision


def test_an_equivalent_question_is_served(world: CacheWorld) -> None:
    entry = world.keep(vector=SIMILAR)
    found = world.cache.search(world.query(), STATIC)
    assert found.entry is not None
    assert (found.entry.id, found.entry.answer) == (entry.id, entry.answer)
    assert found.decision.similarity == pytest.approx(0.95, abs=1e-4)
    assert found.decision.score == pytest.approx(math.log(0.99 / 0.01))
    assert list(found.decision.seconds) == ["search", "confirm", "guards", "verify"]


def test_off_looks_at_nothing(world: CacheWorld) -> None:
    world.keep()
    assert reason(world, policy=Policy(mode="off")).reason is Reason.OFF


def test_nothing_kept_or_nothing_near(world: CacheWorld) -> None:
    assert reason(world).reason is Reason.EMPTY
    world.keep(vector=unit(0, 1))
    assert reason(world).reason is Reason.FAR


def test_another_partition_is_empty(world: CacheWorld) -> None:
    world.keep()
    for elsewhere in (world.query(namespace="b2"), world.query(fingerprint="f2")):
        assert reason(world, elsewhere).reason is Reason.EMPTY


def test_the_index_is_told_what_is_close_enough(world: CacheWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    def search(*arguments: object) -> list[Neighbour]:
        asked.append(arguments)
        return []

    monkeypatch.setattr(world.index, "search", search)
    query = world.query()
    world.cache.search(query, replace(STATIC, top_k=5, min_similarity=0.75))
    assert asked == [(query.namespace, query.fingerprint, query.vector, 5, 0.75)]


def test_what_is_gone_is_not_served_though_the_index_has_it(world: CacheWorld) -> None:
    entry = world.keep()
    world.cache.apply()
    world.cache.delete("a1", [entry.id])
    assert reason(world).reason is Reason.STALE
    expired = world.keep()
    world.cache.apply()
    world.clock.now = expired.expires_at
    assert reason(world).reason is Reason.STALE


def test_an_entry_that_ends_between_decision_and_reading_is_not_served(world: CacheWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = world.keep()
    verify = world.verifier.probabilities

    def slow(pairs: object) -> list[float | None]:
        world.cache.delete("a1", [entry.id])
        return verify(pairs)  # type: ignore[arg-type]

    monkeypatch.setattr(world.verifier, "probabilities", slow)
    assert reason(world).reason is Reason.STALE


def test_a_denied_pair_is_never_served_again(world: CacheWorld) -> None:
    entry = world.keep()
    assert world.cache.deny("a1", entry.id, world.query().text)
    assert reason(world).reason is Reason.DENIED
    assert served(world, world.query("Explain what caches are")) is not None
    assert not world.cache.deny("b2", entry.id, "x")


def test_a_guard_refuses_and_is_named(world: CacheWorld) -> None:
    world.keep("How do I enable the cache?")
    decision = reason(world, world.query("How do I not enable the cache?"))
    assert (decision.reason, decision.guard) == (Reason.GUARD, "negation")
    assert world.verifier.asked == []


def test_a_candidate_that_passes_serves_when_a_closer_one_is_refused(world: CacheWorld) -> None:
    world.keep("How do I enable 5 caches?")
    right = world.keep("How can one enable 6 caches?", vector=SIMILAR)
    assert served(world, world.query("How do I enable 6 caches?")) is not None
    assert [pair.kept for pair in world.verifier.asked] == [right.text]


def test_of_candidates_that_none_is_sure_of_the_most_probable_counts(world: CacheWorld) -> None:
    near, far = world.keep("Explain caches to me"), world.keep("What are caches good for", vector=SIMILAR)
    query = world.query()
    world.verifier.say(query.text, str(near.text), 0.82)
    world.verifier.say(query.text, str(far.text), 0.86)
    for policy, outcome in ((STATIC, Reason.DOUBTFUL), (Policy(mode="shadow"), Reason.EXPLORE)):
        decision = reason(world, query, policy)
        assert decision.reason is outcome
        assert decision.candidate is not None
        assert decision.candidate.id == far.id


def test_behind_a_candidate_that_is_sure_none_is_read(world: CacheWorld) -> None:
    near, far = world.keep("Explain caches to me"), world.keep("What are caches good for", vector=SIMILAR)
    query = world.query()
    world.verifier.say(query.text, str(near.text), 0.9)
    world.verifier.say(query.text, str(far.text), 0.97)
    found = served(world, query)
    assert found is not None
    assert found.id == near.id
    assert [pair.kept for pair in world.verifier.asked] == [near.text]


def test_the_verifier_sees_no_more_candidates_than_allowed(world: CacheWorld) -> None:
    for number in range(6):
        kept = world.keep(f"Explain the caches please {'so ' * number}", vector=unit(1, number / 100))
        world.verifier.say(world.query().text, str(kept.text), 0.5)
    served(world, policy=Policy(mode="static", max_verified=2))
    assert len(world.verifier.asked) == 2


@pytest.mark.parametrize(("probability", "outcome"), [(0.87, Reason.DOUBTFUL), (None, Reason.UNVERIFIED)])
def test_a_doubtful_pair_is_not_served(world: CacheWorld, probability: float | None, outcome: Reason) -> None:
    entry = world.keep()
    world.verifier.say(world.query().text, str(entry.text), probability)
    decision = reason(world)
    assert decision.reason is outcome
    assert decision.candidate is not None
    assert decision.candidate.id == entry.id


def test_what_a_guard_doubts_and_the_verifier_settles_is_learnt_apart(world: CacheWorld) -> None:
    world.keep("How do I open a cache?", fingerprint="f1")
    world.keep("How do I open the cache", fingerprint="f2")
    query = world.query("How do I open a file?")
    assert reason(world, query).guard == "near_identical"
    world.verifier.settles = frozenset({"near_identical"})
    assert served(world, query) is not None
    doubted = world.cache._cascade.decide(query, STATIC)
    agreed = world.cache._cascade.decide(world.query("How do I open a cache?", fingerprint="f2"), STATIC)
    assert (doubted.kind, agreed.kind) == (DOUBTED, SHORT)
    before = errors(world)
    for _ in range(100):
        world.cache.learn("a1", doubted, False)
    world.clock.now += 3
    after = errors(world)
    assert after[SHORT] == before[SHORT] < 0.5
    assert before[DOUBTED] < 0.5 < 0.9 < after[DOUBTED]


def errors(world: CacheWorld) -> dict[str, float]:
    """Of what the verifier is very sure of."""
    return {kind: world.cache._beliefs.tenant("a1", kind).error(4.0, Effect(0.0, 0.1)) for kind in (SHORT, DOUBTED)}


def test_long_questions_are_compared_by_their_vectors(world: CacheWorld) -> None:
    long = "word " * 60
    world.keep(long, vector=SIMILAR)
    assert reason(world, world.query(long + "more")).reason is Reason.DOUBTFUL
    same = world.keep(long + "still")
    found = world.cache.search(world.query(long + "yet"), STATIC)
    assert found.entry is not None
    assert (found.entry.id, found.decision.kind) == (same.id, LONG)
    assert world.verifier.asked == []


# The verified mode


def chance(world: CacheWorld, drawn: float) -> None:
    world.cache._cascade._chance = lambda: drawn


def requests(world: CacheWorld, policy: Policy, number: int = 200, namespace: str = "a1") -> None:
    """Questions that nothing is kept for: they earn what hits cost."""
    for _ in range(number):
        reason(world, world.query(namespace=namespace, fingerprint="f9"), policy)


def test_a_hit_is_paid_for_by_the_requests_before_it(world: CacheWorld) -> None:
    world.keep()
    chance(world, 0.999)
    policy = Policy(budget=Budget(0.01))
    assert reason(world, policy=policy).reason is Reason.EXPLORE
    requests(world, policy)
    for _ in range(400):
        world.cache.learn("a1", Decision(Reason.EXPLORE, Candidate("x", ""), score=4.0), True)
    world.clock.now += 3
    found = world.cache.search(world.query(), policy)
    assert found.entry is not None
    assert 0 < (found.decision.error or 0) < 0.2


def test_a_candidate_that_was_often_wrong_does_not_stand_before_a_good_one(world: CacheWorld) -> None:
    bad, good = world.keep("Explain caches to me"), world.keep("What are caches good for", vector=SIMILAR)
    query, policy = world.query(), Policy(budget=Budget(0.05))
    world.verifier.say(query.text, str(bad.text), 0.95)
    world.verifier.say(query.text, str(good.text), 0.93)
    chance(world, 0.999)
    requests(world, policy)
    for _ in range(60):
        for entry, correct in ((bad, False), (good, True)):
            world.cache.learn("a1", Decision(Reason.EXPLORE, Candidate(entry.id, ""), score=2.7), correct)
            world.cache.learn("a1", Decision(Reason.EXPLORE, Candidate("others", ""), score=2.7), True)
    world.clock.now += 3
    found = served(world, query, policy)
    assert found is not None
    assert found.id == good.id


def test_one_tenant_does_not_teach_all_others(world: CacheWorld) -> None:
    before = world.cache._beliefs.tenant("a1", SHORT).error(1.4, Effect(0.0, 0.1))
    for _ in range(2000):
        world.cache.learn("b2", Decision(Reason.EXPLORE, Candidate("x", ""), score=1.4), True)
    world.clock.now += 3
    after = world.cache._beliefs.tenant("a1", SHORT).error(1.4, Effect(0.0, 0.1))
    assert 0.1 < after < before


def test_now_and_then_what_could_be_served_is_learnt_from(world: CacheWorld) -> None:
    world.keep()
    policy = Policy(budget=Budget(0.01))
    requests(world, policy)
    chance(world, 0.0)
    assert reason(world, policy=policy).reason is Reason.EXPLORE


def test_the_shadow_decides_and_does_not_serve(world: CacheWorld) -> None:
    world.keep()
    chance(world, 0.999)
    requests(world, Policy(mode="shadow"))
    assert reason(world, policy=Policy(mode="shadow")).reason is Reason.SHADOW


def test_right_answers_make_hits_certain_and_wrong_ones_end_them(world: CacheWorld) -> None:
    world.keep()
    strict = Policy(budget=Budget(0.02))
    chance(world, 0.999)
    requests(world, strict, 1)
    for correct in (True, False):
        decision = reason(world, policy=strict)
        for _ in range(400):
            world.cache.learn("a1", decision, correct)
        world.clock.now += 3
        if correct:
            assert served(world, policy=strict) is not None
            decision = Decision(Reason.HIT, decision.candidate, kind=SHORT, score=decision.score)
            for _ in range(400):
                world.cache.learn("a1", decision, False)
            world.clock.now += 3


def test_what_one_tenant_teaches_is_not_another_ones(world: CacheWorld) -> None:
    world.keep()
    world.keep(namespace="b2")
    chance(world, 0.999)
    policy = Policy(budget=Budget(0.02))
    for namespace, correct in (("a1", False), ("b2", True)):
        decision = reason(world, world.query(namespace=namespace), policy)
        for _ in range(400):
            world.cache.learn(namespace, decision, correct)
    world.clock.now += 3
    for namespace in ("a1", "b2"):
        requests(world, policy, namespace=namespace)
    assert reason(world, policy=policy).reason is Reason.EXPLORE
    assert served(world, world.query(namespace="b2"), policy) is not None


def test_learning_of_nothing_is_nothing(world: CacheWorld) -> None:
    world.cache.learn("a1", Decision(Reason.EMPTY), True)
    assert world.evidence.behind(0, None, world.parts.scorer, 9)[0] == []
