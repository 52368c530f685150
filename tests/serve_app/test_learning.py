"""What is learnt from answers that were computed anew, and from audits of hits."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from cache.cascade import Decision, Query, Reason
from cache.policy import Policy
from cache.semantic import Found
from cache.stores.base import Candidate
from serve_app import background
from serve_app.learning import Learner
from tests.serve_app.asking import ask, bytes_of, caller, chat
from tests.serve_app.fakes import TEXT, World, make_world
from tests.serve_app.recorded import RecordedMetrics

CANDIDATE = Candidate("entry", "What is a cache?")
SCORED = Decision(Reason.EXPLORE, CANDIDATE, score=3.0)


class Service:
    """Records what it is asked to learn, and answers with a label."""

    def __init__(self, label: bool | Exception | None = True) -> None:
        self.label = label
        self.learnt: list[tuple[Decision, bytes, bool]] = []

    async def learn(self, namespace: str, decision: Decision, answer: bytes, served: bool) -> bool | None:
        self.learnt.append((decision, answer, served))
        if isinstance(self.label, Exception):
            raise self.label
        return self.label


@pytest.fixture
async def audited() -> AsyncIterator[World]:
    world = make_world(cache={"semantic": {"audit_share": 1.0}})
    yield world
    await world.learner.stop()
    await world.keeper.stop()


@pytest.mark.parametrize(("label", "counted"), [(True, "right"), (False, "wrong"), (None, "unclear"), (RuntimeError("x"), "error")])
async def test_a_candidate_that_was_passed_over_is_compared(label: bool | Exception | None, counted: str) -> None:
    service, metrics = Service(label), RecordedMetrics()
    learner = Learner(service, metrics)
    learner.missed("a1", SCORED, b"answer")
    await learner.drain()
    assert service.learnt == [(SCORED, b"answer", False)]
    assert metrics.operations == [("learn", counted)]


@pytest.mark.parametrize("decision", [None, Decision(Reason.EMPTY), Decision(Reason.GUARD, CANDIDATE)])
async def test_without_a_scored_candidate_there_is_nothing_to_learn(decision: Decision | None) -> None:
    service = Service()
    learner = Learner(service, RecordedMetrics())
    learner.missed("a1", decision, b"answer")
    await learner.drain()
    assert service.learnt == []


async def test_the_share_of_the_audits_is_kept() -> None:
    service, drawn = Service(), iter([0.019, 0.02, 0.5])
    learner = Learner(service, RecordedMetrics(), lambda: next(drawn))

    async def compute() -> bytes:
        return b"fresh"

    for _ in range(3):
        learner.hit("a1", SCORED, 0.02, compute)
    await learner.drain()
    assert service.learnt == [(SCORED, b"fresh", True)]


async def test_what_is_too_much_at_once_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "MAX_TASKS", 2)
    metrics = RecordedMetrics()
    learner = Learner(Service(), metrics)
    for _ in range(3):
        learner.missed("a1", SCORED, b"")
    await learner.drain()
    assert sorted(metrics.operations) == [("learn", "busy"), ("learn", "right"), ("learn", "right")]


async def test_a_stop_ends_what_runs() -> None:
    learner = Learner(Service(), RecordedMetrics())

    async def never() -> bytes:
        await asyncio.Event().wait()
        return b""

    learner.hit("a1", SCORED, 1.0, never)
    await asyncio.sleep(0)
    await learner.stop()


def decide(world: World, monkeypatch: pytest.MonkeyPatch, decision: Decision) -> None:
    """The cache decides so about every question."""

    async def search(query: Query, policy: Policy) -> Found:
        entries = world.cache.live
        return Found(decision, entries[0] if decision.reason is Reason.HIT and entries else None)

    monkeypatch.setattr(world.cache, "search", search)


async def test_an_answer_computed_in_spite_of_a_candidate_teaches(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    decide(world, monkeypatch, SCORED)
    assert (await ask(world, chat()))[0] == "miss"
    await world.learner.drain()
    ((_, decision, answer, served),) = world.cache.learnt
    assert (decision, served) == (SCORED, False)
    assert msgspec.json.decode(answer)["choices"][0]["message"]["content"] == TEXT


@pytest.mark.parametrize("stream", [False, True])
async def test_a_served_answer_is_audited_with_the_same_question(audited: World, monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    await ask(audited, chat())
    decide(audited, monkeypatch, hit := Decision(Reason.HIT, CANDIDATE, similarity=0.9, score=3.0))
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    reply = await audited.pipeline.generate(chat("Explain caches.", **options), caller())
    assert reply.headers["x-mygo-cache"] == "semantic"
    await bytes_of(reply)
    await audited.learner.drain()
    ((_, decision, _, served),) = audited.cache.learnt
    assert (decision, served) == (hit, True)
    assert audited.replicas.bodies[-1]["messages"] == [{"role": "user", "content": "Explain caches."}]
    assert "stream" not in audited.replicas.bodies[-1]
    assert len(audited.cache.entries) == 1, "an audit keeps nothing"
