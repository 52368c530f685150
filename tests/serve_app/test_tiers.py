"""What is looked up, replayed and kept."""

import asyncio
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from cache.stores.base import Known
from deployments.embedding import Embedded
from serve_app import tiers
from serve_app.epochs import FRESH_S
from serve_app.openai import sse
from serve_app.tenants import Caller
from tests.serve_app import fakes
from tests.serve_app.asking import ask, bytes_of, caller, chat, completion, text_of
from tests.serve_app.fakes import CANARY, MODEL, NOW, TEXT, USAGE, FakeAnswer, World, eventually, make_world, streamed, whole

# Hits


@pytest.mark.parametrize("first_stream", [False, True])
@pytest.mark.parametrize("then_stream", [False, True])
@pytest.mark.parametrize("make", [chat, completion])
async def test_a_hit_says_what_the_miss_said(world: World, make: Any, first_stream: bool, then_stream: bool) -> None:
    missed, fresh = await ask(world, make(stream=first_stream))
    hit, replayed = await ask(world, make(stream=then_stream))
    assert (missed, hit) == ("miss", "exact")
    assert text_of(replayed) == text_of(fresh) == TEXT
    assert replayed.endswith(sse.DONE) == then_stream


async def test_a_hit_looks_like_an_answer_of_now(world: World) -> None:
    await ask(world, chat())
    world.clock.now += 60
    reply = await world.pipeline.generate(chat(), Caller("r-2"))
    answer = msgspec.json.decode(await bytes_of(reply))
    assert (answer["id"], answer["created"], answer["usage"]) == ("chatcmpl-r-2", int(NOW) + 60, USAGE)
    assert reply.media_type == "application/json"
    assert reply.headers == {"x-mygo-cache": "exact", "x-mygo-similarity": "1.0000", "x-mygo-entry": world.cache.entries[0].id}


async def test_a_replayed_stream_has_usage_only_if_asked(world: World) -> None:
    await ask(world, chat(stream=True))
    _, without = await ask(world, chat(stream=True))
    _, with_usage = await ask(world, chat(stream=True, stream_options={"include_usage": True}))
    assert b"usage" not in without
    assert msgspec.json.decode(list(sse.payloads(with_usage))[-2]) | {"usage": USAGE, "choices": []} == msgspec.json.decode(
        list(sse.payloads(with_usage))[-2]
    )


async def test_a_paraphrase_is_a_semantic_hit(world: World) -> None:
    world.embedding.means["Explain caches."] = "What is a cache?"
    await ask(world, chat())
    reply = await world.pipeline.generate(chat("Explain caches."), caller())
    assert (reply.headers["x-mygo-cache"], reply.headers["x-mygo-similarity"]) == ("semantic", "0.9700")
    assert text_of(await bytes_of(reply)) == TEXT
    assert world.steps[-3:] == ["exact", "embed", "search"]
    assert world.metrics.lookups[-2:] == [("exact", "miss"), ("semantic", "hit")]


async def test_a_paraphrase_with_other_parameters_is_a_miss(world: World) -> None:
    world.embedding.means["Explain caches."] = "What is a cache?"
    await ask(world, chat())
    assert (await ask(world, chat("Explain caches.", temperature=0)))[0] == "miss"


async def test_another_model_under_the_same_name_has_answers_of_its_own(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await ask(world, chat())
    monkeypatch.setattr(fakes, "MODEL_IDENTITY", "m after an update")
    updated = make_world()
    updated.cache.entries += world.cache.entries
    updated.embedding.means["Explain caches."] = "What is a cache?"
    assert (await ask(updated, chat()))[0] == "miss"
    assert (await ask(updated, chat("Explain caches."), caller()))[0] == "semantic"
    assert updated.cache.entries[-1].fingerprint != world.cache.entries[0].fingerprint
    await updated.keeper.stop()


async def test_the_semantic_tier_works_without_the_exact_one() -> None:
    world = make_world(cache={"exact": {"enabled": False}})
    world.embedding.means["Explain caches."] = "What is a cache?"
    assert [(await ask(world, chat(text)))[0] for text in ("What is a cache?", "What is a cache?", "Explain caches.")] == [
        "miss",
        "semantic",
        "semantic",
    ]
    assert len(world.lru) == 0
    await world.keeper.stop()


async def test_what_a_kept_answer_does_not_hold_is_computed(world: World) -> None:
    await ask(world, chat())
    asked = chat(prompt_logprobs=1)
    assert [(await ask(world, asked))[0], (await ask(world, asked))[0]] == ["bypass", "bypass"]
    assert len(world.cache.entries) == 1


async def test_an_answer_that_is_not_understood_reaches_the_client(world: World) -> None:
    strange = b'{"choices": 7, "usage": {}}'
    world.replicas.script.append(FakeAnswer([strange]))
    assert await ask(world, chat()) == ("miss", strange)
    assert world.metrics.skipped == ["not_understood"]


async def test_a_text_that_the_encoder_did_not_see_whole_is_neither_found_nor_finds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def embed_one(text: str, whose: str) -> Embedded:
        return Embedded(np.ones(8, np.float32), 9000, covered=False)

    monkeypatch.setattr(world.embedding, "embed_one", embed_one)
    await ask(world, chat("A long text, then this."))
    assert world.cache.entries[0].vector is None
    assert (await ask(world, chat("A long text, then that.")))[0] == "miss"
    assert world.metrics.lookups.count(("semantic", "not_covered")) == 2


@pytest.mark.parametrize("damaged", [b"{", b"[]", b"{}", b'{"answer": "x", "query": "y"}', whole(TEXT, chat=False)], ids=str)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_was_damaged_in_the_store_is_a_miss(world: World, damaged: bytes, stream: bool) -> None:
    """Or that is no chat's: an import may have put it there."""
    await ask(world, chat())
    world.lru.clear()
    world.cache.entries[0] = replace(world.cache.entries[0], answer=damaged)
    tier, body = await ask(world, chat(stream=stream))
    assert (tier, text_of(body)) == ("miss", TEXT)
    assert ("exact", "damaged") in world.metrics.lookups


# What the client says about caching


@pytest.mark.parametrize(
    ("mode", "second", "kept", "tiers"),
    [
        ("on", "exact", 1, ["exact", "embed", "search"]),
        ("exact", "exact", 1, ["exact"]),
        ("refresh", "bypass", 2, ["exact", "embed"]),
        ("off", "bypass", 0, []),
    ],
)
async def test_cache_modes(world: World, mode: str, second: str, kept: int, tiers: list[str]) -> None:
    request = chat(cache={"mode": mode})
    await ask(world, request)
    assert world.steps == [*tiers, "engine"]
    assert (await ask(world, request))[0] == second
    assert len(world.cache.entries) == kept


async def test_refresh_replaces_what_others_get(world: World) -> None:
    await ask(world, chat())
    world.replicas.script.append(FakeAnswer([whole("News.")]))
    await ask(world, chat(cache={"mode": "refresh"}))
    assert text_of((await ask(world, chat()))[1]) == "News."


async def test_no_cache_asks_anew_and_keeps(world: World) -> None:
    await ask(world, chat())
    assert (await ask(world, chat(), caller(no_cache=True)))[0] == "bypass"
    assert len(world.cache.entries) == 2


async def test_no_store_neither_reads_nor_keeps(world: World) -> None:
    await ask(world, chat())
    world.steps.clear()
    assert (await ask(world, chat(), caller(no_store=True)))[0] == "bypass"
    assert world.steps == ["engine"]
    assert len(world.cache.entries) == 1


@pytest.mark.parametrize(("asked", "kept_for"), [({}, 100), ({"ttl_s": 5}, 5), ({"ttl_s": 500}, 100)])
async def test_the_shorter_time_to_live_counts(asked: dict[str, Any], kept_for: float) -> None:
    world = make_world(cache={"ttl_s": 100})
    await ask(world, chat(cache=asked))
    world.clock.now = NOW + kept_for - 1
    assert (await ask(world, chat()))[0] == "exact"
    world.clock.now = NOW + kept_for
    assert (await ask(world, chat()))[0] == "miss"
    await world.keeper.stop()


# Broken caches


@pytest.mark.parametrize(("hangs", "outcome"), [(False, "error"), (True, "timeout")])
@pytest.mark.parametrize("part", ["finds", "searches", "embedding"])
async def test_a_broken_cache_does_not_stop_an_answer(
    world: World, monkeypatch: pytest.MonkeyPatch, part: str, hangs: bool, outcome: str
) -> None:
    monkeypatch.setattr(tiers, "LOOKUP_TIMEOUT_S", 0.01)
    fault = world.embedding.fault if part == "embedding" else getattr(world.cache, part)
    fault.hangs, fault.error = hangs, RuntimeError(CANARY)
    assert await ask(world, chat()) == ("miss", whole(TEXT))
    tier = "exact" if part == "finds" else "semantic"
    assert [each for lookup_tier, each in world.metrics.lookups if lookup_tier == tier] == [outcome]
    fault.hangs, fault.error = False, None
    # An answer whose epoch is not known cannot be kept: it may be of a time before an invalidation.
    assert (await ask(world, chat()))[0] == ("miss" if part == "finds" else "exact")
    assert (await ask(world, chat()))[0] == "exact"


class HangsOnce:
    strikes = 0

    async def strike(self) -> None:
        self.strikes += 1
        if self.strikes == 1:
            await asyncio.Event().wait()


async def test_a_look_up_that_hangs_once_is_asked_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await ask(world, chat()))[0] == "miss"
    world.lru.clear()
    monkeypatch.setattr(tiers, "LOOKUP_TIMEOUT_S", 0.4)
    monkeypatch.setattr(world.cache, "finds", HangsOnce())
    assert (await ask(world, chat()))[0] == "exact"


async def test_an_answer_in_memory_is_served_no_longer_than_its_epoch_is_fresh(world: World) -> None:
    await ask(world, chat())
    (namespace,) = {entry.namespace for entry in world.cache.entries}
    world.cache.epochs[namespace] = 1
    world.cache.entries.clear()
    assert (await ask(world, chat()))[0] == "exact", "asked within the same moment"
    world.clock.now += FRESH_S + 0.01
    assert (await ask(world, chat()))[0] == "miss"
    assert (await ask(world, chat()))[0] == "exact"


async def test_a_question_about_now_is_for_the_exact_tier_only(world: World) -> None:
    await ask(world, chat("What is the weather today?"))
    assert world.steps == ["exact", "engine"]
    assert ("semantic", "time_sensitive") in world.metrics.lookups
    assert (await ask(world, chat("What is the weather today?")))[0] == "exact"


async def test_without_the_cache_nothing_in_memory_is_served(world: World) -> None:
    await ask(world, chat())
    world.clock.now += FRESH_S + 0.01
    world.cache.finds.error = world.cache.searches.error = RuntimeError(CANARY)
    assert (await ask(world, chat()))[0] == "miss"


async def test_another_epoch_elsewhere_costs_a_look_and_no_answer(world: World) -> None:
    await ask(world, chat())
    (namespace,) = {entry.namespace for entry in world.cache.entries}
    world.cache.epochs[namespace] = 1
    world.clock.now += FRESH_S + 0.01
    assert (await ask(world, chat()))[0] == "exact"
    steps = len(world.steps)
    assert "exact" in world.steps[-3:], "the store still had it"
    assert (await ask(world, chat()))[0] == "exact"
    assert world.steps[steps:] == [], "now it is in memory again"


async def test_an_answer_is_kept_with_the_epoch_of_its_request(world: World) -> None:
    await ask(world, chat())
    (first,) = world.cache.entries
    world.cache.epochs[first.namespace] = 5
    await ask(world, chat("Something else."))
    assert [entry.epoch for entry in world.cache.entries] == [0, 5]


async def test_a_question_worded_the_same_does_not_wait_for_the_encoder(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await ask(world, chat())
    (entry,) = world.cache.entries

    async def find(namespace: str, key: str, fingerprint: str, text: str | None) -> Known:
        assert (namespace, fingerprint, text) == (entry.namespace, entry.fingerprint, "what is a cache")
        return Known(0, reworded=entry)

    monkeypatch.setattr(world.cache, "find", find)
    world.embedding.fault.hangs = True
    steps = len(world.steps)
    reply = await asyncio.wait_for(world.pipeline.generate(chat("what is a cache"), caller()), 1)
    assert (reply.headers["x-mygo-cache"], reply.headers["x-mygo-similarity"]) == ("semantic", "1.0000")
    assert "search" not in world.steps[steps:]


async def test_the_encoder_works_while_the_store_is_asked(world: World) -> None:
    world.cache.finds.hangs = True
    asking = asyncio.create_task(world.pipeline.generate(chat(), caller()))
    await eventually(lambda: "embed" in world.steps)
    asking.cancel()
    await asyncio.wait([asking])


async def test_equal_questions_are_embedded_once_or_twice(world: World) -> None:
    await asyncio.gather(*(world.pipeline.generate(chat(), caller()) for _ in range(50)))
    assert 1 <= world.steps.count("embed") <= 2


async def test_in_the_shadow_nothing_is_served_that_was_worded_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(cache={"semantic": {"mode": "shadow"}})
    await ask(world, chat())
    asked: list[str | None] = []

    async def find(namespace: str, key: str, fingerprint: str, text: str | None) -> Known:
        asked.append(text)
        return Known(0)

    monkeypatch.setattr(world.cache, "find", find)
    await world.pipeline.generate(chat("what is a cache"), caller())
    assert asked == [None]
    await world.keeper.stop()


async def test_what_is_kept_says_what_it_cost_and_what_it_is_tagged_with(world: World) -> None:
    await ask(world, chat(cache={"tags": ["a", "b", "a"]}))
    (entry,) = world.cache.entries
    assert (entry.tokens, entry.tags) == (USAGE["completion_tokens"], ("a", "b"))


async def test_the_soft_end_comes_from_the_configuration() -> None:
    world = make_world(cache={"soft_ttl_s": 10})
    await ask(world, chat())
    assert world.cache.entries[0].stale_at == NOW + 10
    await world.keeper.stop()


async def test_a_store_that_cannot_write_does_not_stop_an_answer(world: World) -> None:
    world.cache.writes.error = RuntimeError(CANARY)
    assert (await ask(world, chat()))[0] == "miss"
    assert (await ask(world, chat()))[0] == "exact"
    assert world.metrics.skipped == ["store_error"]


async def test_a_question_that_could_not_be_embedded_is_kept_without_its_vector(world: World) -> None:
    world.embedding.fault.error = RuntimeError()
    await ask(world, chat())
    assert world.cache.entries[0].vector is None


# What is kept


async def test_what_is_kept(world: World) -> None:
    await ask(world, chat(stream=True))
    (entry,) = world.cache.entries
    assert (entry.model, entry.text, entry.created_at) == (MODEL, "What is a cache?", NOW)
    assert entry.vector is not None
    answer = msgspec.json.decode(entry.answer)
    assert not {"id", "created", "prompt_logprobs"} & set(answer)
    assert (answer["choices"][0]["message"]["content"], answer["usage"]) == (TEXT, USAGE)


NOT_KEPT = {
    "broken off": streamed(TEXT, done=False),
    "an error": [streamed(TEXT)[0], sse.event({"error": {"message": "x"}}), sse.DONE],
    "no finish reason": [*streamed(TEXT)[:2], sse.event({"choices": [], "usage": USAGE}), sse.DONE],
    "no usage": [*streamed(TEXT, done=False)[:-1], sse.DONE],
}


@pytest.mark.parametrize("pieces", NOT_KEPT.values(), ids=NOT_KEPT.keys())
async def test_an_incomplete_stream_is_not_kept(world: World, pieces: list[bytes]) -> None:
    world.replicas.script.append(FakeAnswer(pieces))
    await ask(world, chat(stream=True))
    assert world.cache.entries == []
    assert (await ask(world, chat()))[0] == "miss"


@pytest.mark.parametrize("body", [whole(TEXT, finish_reason=None), whole(TEXT, finish_reason="abort"), b"{", b"[]"])
async def test_an_incomplete_answer_is_relayed_and_not_kept(world: World, body: bytes) -> None:
    world.replicas.script.append(FakeAnswer([body]))
    assert await ask(world, chat()) == ("miss", body)
    assert world.cache.entries == []


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_over_the_limit_is_not_kept(stream: bool) -> None:
    world = make_world(cache={"max_answer_bytes": 2000})
    long = "word " * 1000
    world.replicas.script.append(FakeAnswer(streamed(long) if stream else [whole(long)]))
    _, body = await ask(world, chat(stream=stream))
    assert text_of(body) == long
    assert world.cache.entries == []
    assert stream or world.metrics.skipped == ["too_large"]
    assert len(world.lru) == 0
