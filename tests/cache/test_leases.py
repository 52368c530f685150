"""One owner at a time, and none for ever; observations and denials."""

from dataclasses import replace

import pytest

from cache.stores.evidence import MAX_PER_ENTRY, Observation, SqlEvidenceStore
from cache.stores.leases import SqlLeaseStore
from cache.stores.sql import SqlEntryStore
from tests.cache.entries import make_entry
from tests.cache.test_stores import NOW, at_once


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
    evidence.observe([seen(), seen(correct=False), seen(namespace="b2"), replace(seen(), served=False)])
    store.delete("a1", ["e"], NOW)
    store.collect(NOW + 100, 0.0, 100)
    assert evidence.audited("a1", NOW) == (2, 1)
    assert evidence.audited("a1", NOW + 1) == evidence.audited("c3", NOW) == (0, 0)
    evidence.forget_audits(NOW + 1)
    assert evidence.audited("b2", 0) == (0, 0)


def seen(entry_id: str = "e", namespace: str = "a1", score: float = 1.5, correct: bool = True) -> Observation:
    return Observation(namespace, entry_id, "short", score, correct, NOW, weight=0.5, served=True)


def test_observations_come_back_by_entry_and_by_namespace(evidence: SqlEvidenceStore) -> None:
    first, second, third = seen(), seen("f", correct=False), seen(namespace="b2", score=-2.0)
    evidence.observe([])
    evidence.observe([first, second])
    evidence.observe([third])
    assert evidence.of_entries(["e", "unknown"]) == {"e": [third, first]}
    page, mark = evidence.recent("a1", 1)
    assert page == [first]
    page, mark = evidence.recent("a1", 9, mark)
    assert page == [second]
    assert evidence.recent("a1", 9, mark) == ([], mark)
    assert evidence.recent(None, 9)[0] == [first, second, third]


def test_of_many_observations_of_an_entry_the_newest_count(evidence: SqlEvidenceStore) -> None:
    evidence.observe([seen(score=float(number)) for number in range(MAX_PER_ENTRY + 5)])
    assert [each.score for each in evidence.of_entries(["e"])["e"]] == [float(number) for number in range(MAX_PER_ENTRY + 4, 4, -1)]


def test_denials_are_of_one_entry_and_one_question(evidence: SqlEvidenceStore) -> None:
    for _ in range(2):
        evidence.deny("e", "Why? \ud800", NOW)
    assert evidence.denied(["e", "f"], "Why? \ud800") == {"e"}
    assert evidence.denied(["e"], "why?") == set()


def test_what_was_learnt_goes_with_its_entry(store: SqlEntryStore, evidence: SqlEvidenceStore) -> None:
    entry = make_entry()
    store.put(entry)
    evidence.observe([seen(entry.id), seen("other")])
    evidence.deny(entry.id, "Why?", NOW)
    store.delete("a1", [entry.id], NOW)
    store.collect(NOW + 61, 60, 10)
    assert evidence.of_entries([entry.id, "other"]).keys() == {"other"}
    assert evidence.denied([entry.id], "Why?") == set()
