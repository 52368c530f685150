"""One owner at a time, and none for ever; observations and denials."""

import pytest

from cache.entry import Entry
from cache.guards.normal import normal_key
from cache.stores.evidence import MAX_PER_ENTRY, Observation, SqlEvidenceStore
from cache.stores.leases import SqlLeaseStore
from cache.stores.sql import SqlEntryStore
from tests.cache.entries import make_entry
from tests.cache.storing import NOW, at_once


@pytest.fixture
def leases(store: SqlEntryStore) -> SqlLeaseStore:
    return SqlLeaseStore(store._database)


@pytest.fixture
def evidence(store: SqlEntryStore) -> SqlEvidenceStore:
    return SqlEvidenceStore(store._database)


def test_a_lease_has_one_owner(leases: SqlLeaseStore) -> None:
    assert leases.acquire("a1", "k", "one", NOW, 30)
    assert not leases.acquire("a1", "k", "two", NOW + 29.9, 30)
    assert leases.acquire("b2", "k", "two", NOW, 30)
    assert leases.acquire("a1", "other", "two", NOW, 30)


def test_a_lease_is_prolonged_by_its_owner_and_passes_on_after_its_time(leases: SqlLeaseStore) -> None:
    leases.acquire("a1", "k", "one", NOW, 30)
    assert leases.acquire("a1", "k", "one", NOW + 20, 30)
    assert not leases.acquire("a1", "k", "two", NOW + 49, 30)
    assert leases.acquire("a1", "k", "two", NOW + 50, 30)
    leases.release("a1", "k", "one")
    assert not leases.acquire("a1", "k", "three", NOW + 51, 30), "it was not the first owner's to give back"


def test_a_released_lease_is_free(leases: SqlLeaseStore) -> None:
    leases.acquire("a1", "k", "one", NOW, 30)
    leases.release("a1", "k", "one")
    assert leases.acquire("a1", "k", "two", NOW, 30)


def test_leases_that_are_over_are_removed(leases: SqlLeaseStore) -> None:
    leases.acquire("a1", "old", "one", NOW, 30)
    leases.acquire("a1", "new", "one", NOW + 10, 30)
    leases.collect(NOW + 30)
    assert leases.acquire("a1", "old", "two", NOW, 1)
    assert not leases.acquire("a1", "new", "two", NOW + 30, 1)


def test_of_many_that_ask_at_once_one_gets_it(leases: SqlLeaseStore) -> None:
    got: list[bool] = []
    at_once(lambda number: got.append(leases.acquire("a1", "k", str(number), NOW, 30)), 8)
    assert sorted(got) == [False] * 7 + [True]


def test_audits_outlive_their_entry_and_grow_old(evidence: SqlEvidenceStore, store: SqlEntryStore) -> None:
    entry = make_entry(id="e")
    store.put(entry)
    for each in (seen(), seen(correct=False), seen(namespace="b2")):
        evidence.observe(each, audited=True)
    evidence.observe(seen())
    store.delete("a1", ["e"], NOW)
    store.collect(NOW + 100, 0.0, 100)
    assert evidence.audited("a1", NOW) == (2, 1)
    assert evidence.audited("a1", NOW + 1) == evidence.audited("c3", NOW) == (0, 0)
    evidence.forget_audits(NOW + 1)
    assert evidence.audited("b2", 0) == (0, 0)


def seen(entry_id: str = "e", namespace: str = "a1", score: float = 1.5, correct: bool = True, scorer: str = "s") -> Observation:
    return Observation(namespace, entry_id, "short", score, correct, NOW, scorer)


def test_observations_come_back_by_namespace_and_by_entry(evidence: SqlEvidenceStore) -> None:
    first, second, third, of_another = seen(), seen("f", correct=False), seen(namespace="b2", score=-2.0), seen(scorer="t")
    for each in (first, second, third, of_another):
        evidence.observe(each)
    assert evidence.of_entry("e", "short", "s") == [third, first]
    assert evidence.of_entry("e", "long", "s") == evidence.of_entry("unknown", "short", "s") == []
    page, mark = evidence.behind(0, "a1", "s", 1)
    assert page == [first]
    page, mark = evidence.behind(mark, "a1", "s", 9)
    assert page == [second]
    assert evidence.behind(mark, "a1", "s", 9) == ([], mark)
    assert evidence.behind(0, None, "s", 9)[0] == [first, second, third]


def test_a_mark_leaves_the_newest_behind_it(evidence: SqlEvidenceStore) -> None:
    for number in range(5):
        evidence.observe(seen(score=float(number)))
        evidence.observe(seen(namespace="b2"))
    assert [each.score for each in evidence.behind(evidence.mark("a1", 2), "a1", "s", 9)[0]] == [3.0, 4.0]
    assert len(evidence.behind(evidence.mark(None, 3), None, "s", 9)[0]) == 3
    assert evidence.mark("a1", 5) == evidence.mark("c3", 0) == 0


def test_of_many_observations_of_an_entry_the_newest_count(evidence: SqlEvidenceStore) -> None:
    for number in range(MAX_PER_ENTRY + 5):
        evidence.observe(seen(score=float(number)))
    assert [each.score for each in evidence.of_entry("e", "short", "s")] == [float(number) for number in range(MAX_PER_ENTRY + 4, 4, -1)]


def denied(store: SqlEntryStore, question: str, *entries: Entry) -> list[bool]:
    found = store.candidates("a1", "f1", [entry.id for entry in entries], normal_key(question), NOW)
    return [candidate.is_denied for candidate in found]


def test_denials_are_of_one_entry_and_one_question(store: SqlEntryStore, evidence: SqlEvidenceStore) -> None:
    key = normal_key("Who, me? \ud800")
    first, second = make_entry(normal_key=key, created_at=NOW + 1), make_entry(normal_key=key)
    for entry in (first, second):
        store.put(entry)
    for _ in range(2):
        evidence.deny(first.id, "Who, me? \ud800", NOW)
    assert denied(store, "Who, me? \ud800", first, second) == [True, False]
    assert denied(store, "why?", first, second) == [False, False]
    assert store.look_up("a1", "another key", "f1", key, NOW).reworded == second


def test_what_was_learnt_goes_with_its_entry(store: SqlEntryStore, evidence: SqlEvidenceStore) -> None:
    entry = make_entry()
    store.put(entry)
    evidence.observe(seen(entry.id))
    evidence.observe(seen("other"))
    evidence.deny(entry.id, "Why?", NOW)
    store.delete("a1", [entry.id], NOW)
    store.collect(NOW + 61, 60, 10)
    store.put(entry)
    assert evidence.of_entry(entry.id, "short", "s") == []
    assert evidence.of_entry("other", "short", "s") == [seen("other")]
    assert denied(store, "Why?", entry) == [False]
