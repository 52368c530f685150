"""The order of the steps, admission, documents: with fakes for everything around the pipeline."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from deployments.errors import ReplicaLostError
from deployments.replicas import Replica
from retrieval.documents import SearchRequest
from retrieval.errors import UnknownStoreError
from serve_app.errors import ApiError, InvalidRequestError, NotFoundError, to_api_error
from tests.serve_app.asking import ask, caller, chat, completion, text_of
from tests.serve_app.fakes import CANARY, CONTEXT, TEXT, FakeAnswer, World, make_world, streamed, whole

# The order of the steps


async def test_a_miss_passes_every_tier_before_the_engine(world: World) -> None:
    assert await ask(world, chat()) == ("miss", whole(TEXT))
    assert world.steps == ["exact", "embed", "search", "engine"]


async def test_documents_come_before_the_key(world: World) -> None:
    await ask(world, chat(retrieval={"vector_store_ids": ["vs_1"]}))
    assert world.steps == ["retrieve", "exact", "engine"]


async def test_text_completions_have_the_exact_tier_only(world: World) -> None:
    assert await ask(world, completion()) == ("miss", whole(TEXT, chat=False))
    assert world.steps == ["exact", "engine"]


async def test_what_was_just_answered_is_in_this_process(world: World) -> None:
    await ask(world, chat())
    world.steps.clear()
    assert (await ask(world, chat()))[0] == "exact"
    assert world.steps == []


async def test_what_another_process_kept_is_found_in_the_store_once(world: World) -> None:
    await ask(world, chat())
    world.lru.clear()
    world.steps.clear()
    assert [(await ask(world, chat()))[0] for _ in range(2)] == ["exact", "exact"]
    assert [step for step in world.steps if step != "embed"] == ["exact"]


async def test_a_refused_request_reaches_nothing(world: World) -> None:
    for bad in (chat(model="other"), chat(max_tokens=CONTEXT + 1), chat(kv_transfer_params={"x": 1})):
        with pytest.raises(ApiError):
            await world.pipeline.generate(bad, caller())
    with pytest.raises(InvalidRequestError):
        await world.pipeline.generate(chat(), caller("no tenant's name"))
    assert world.steps == []


# Admission


async def test_an_unknown_model_is_not_repeated(world: World) -> None:
    with pytest.raises(NotFoundError) as caught:
        await world.pipeline.generate(chat(model=CANARY), caller())
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")
    assert CANARY not in caught.value.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": CONTEXT + 1}, "max_tokens"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"max_completion_tokens": CONTEXT + 1}, "max_completion_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": CONTEXT + 1}, "max_completion_tokens"),
    ],
)
async def test_an_answer_longer_than_the_context_is_refused(world: World, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await world.pipeline.generate(chat(**fields), caller())
    assert caught.value.param == param
    assert str(CONTEXT) in caught.value.message


async def test_an_answer_as_long_as_the_context_is_the_engines_to_judge(world: World) -> None:
    await ask(world, chat(max_tokens=CONTEXT))
    world.directory.replace([])
    await ask(world, chat(max_tokens=CONTEXT + 1))
    assert [body["max_tokens"] for body in world.replicas.bodies] == [CONTEXT, CONTEXT + 1]


async def test_the_shortest_context_of_the_replicas_counts(world: World) -> None:
    world.directory.replace([Replica("a", "http://a", 50, 16), Replica("b", "http://b", 40, 16)])
    with pytest.raises(InvalidRequestError, match="at most 40"):
        await world.pipeline.generate(chat(max_tokens=41), caller())


@pytest.mark.parametrize("field", ["kv_transfer_params", "ec_transfer_params"])
async def test_internal_fields_are_refused(world: World, field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await world.pipeline.generate(chat("x", **{field: {CANARY: 1}}), caller())
    assert (caught.value.param, caught.value.code) == (field, "unsupported_parameter")


@pytest.mark.parametrize("name", ["kv_transfer_params", "kv_cache_report_mode"])
async def test_internal_fields_are_refused_among_vllms_own_arguments_too(world: World, name: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await world.pipeline.generate(chat("x", vllm_xargs={name: "full"}), caller())
    assert caught.value.param == f"vllm_xargs.{name}"
    await ask(world, chat("x", vllm_xargs={"another": 1}))


async def test_a_number_too_long_for_a_key_is_the_clients_error(world: World) -> None:
    with pytest.raises(Exception, match="integer") as caught:
        await world.pipeline.generate(chat(an_engine_field=10**1000), caller())
    assert to_api_error(caught.value).status == 400


# Documents


async def test_documents_are_part_of_the_key_and_of_the_prompt(world: World) -> None:
    request = chat(retrieval={"vector_store_ids": ["vs_1", "vs_2"], "top_k": 3})
    assert (await ask(world, request))[0] == "miss"
    assert (await ask(world, request))[0] == "exact"
    world.retrieval.texts[0] = "A replica is one of several."
    assert (await ask(world, request))[0] == "miss"
    prompts = [body["messages"][0]["content"] for body in world.replicas.bodies]
    assert ["A replica is a copy." in prompts[0], "A replica is one of several." in prompts[1]] == [True, True]
    assert all(prompt.endswith("What is a cache?") for prompt in prompts)
    namespace = world.pipeline.namespaces.of("default")
    assert world.retrieval.calls[0] == (namespace, SearchRequest(["vs_1", "vs_2"], ["What is a cache?"], 3))


async def test_an_answer_from_documents_serves_no_other_question(world: World) -> None:
    world.embedding.means["Explain caches."] = "What is a cache?"
    await ask(world, chat(retrieval={"vector_store_ids": ["vs_1"]}))
    assert (await ask(world, chat()))[0] == "miss"
    assert (await ask(world, chat("Explain caches.", retrieval={"vector_store_ids": ["vs_1"]})))[0] == "miss"


async def test_more_documents_than_allowed_are_refused_by_the_fields_name(world: World) -> None:
    limit = world.config.retrieval.max_top_k
    with pytest.raises(InvalidRequestError, match=f"at most {limit}") as caught:
        await world.pipeline.generate(chat(retrieval={"vector_store_ids": ["vs"], "top_k": limit + 1}), caller())
    assert caught.value.param == "retrieval.top_k"
    assert str(limit + 1) not in caught.value.message


@pytest.mark.parametrize(
    ("store_ids", "missing", "param"),
    [
        (["vs"], "", "retrieval.vector_store_ids[0]"),
        (["vs", "vs_2"], "vs_2", "retrieval.vector_store_ids[1]"),
        (["vs", "vs_2"], "", "retrieval.vector_store_ids"),
    ],
)
async def test_an_unknown_collection_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch, store_ids: list[str], missing: str, param: str
) -> None:
    async def search(*args: Any) -> None:
        raise UnknownStoreError("no", missing)

    monkeypatch.setattr(world.retrieval, "search", search)
    with pytest.raises(NotFoundError) as caught:
        await world.pipeline.generate(chat(retrieval={"vector_store_ids": store_ids}), caller())
    assert (caught.value.param, caught.value.code) == (param, "not_found")
    assert missing in caught.value.message


async def test_retrieval_that_is_turned_off_is_said() -> None:
    world = make_world(retrieval={"enabled": False})
    with pytest.raises(InvalidRequestError) as caught:
        await world.pipeline.generate(chat(retrieval={"vector_store_ids": ["vs"]}), caller())
    assert caught.value.param == "retrieval"
    await ask(world, chat())
    await world.keeper.stop()


async def test_lookups_are_counted(world: World) -> None:
    await ask(world, chat())
    await ask(world, chat())
    await ask(world, chat(cache={"mode": "off"}))
    assert world.metrics.lookups == [
        ("exact", "miss"),
        ("semantic", "empty"),
        ("exact", "hit"),
        ("exact", "bypass"),
        ("semantic", "ineligible"),
    ]
    assert world.metrics.operations == [("flight", "led")]
    assert world.metrics.staged == [{"ask_store"}, {"wait_for_embedding"}, {"ask_for_similar"}, set()]


# Equal requests at once


@pytest.mark.parametrize("stream", [False, True])
async def test_equal_requests_in_flight_are_computed_once(world: World, stream: bool) -> None:
    answers = await asyncio.gather(*(ask(world, chat(stream=stream)) for _ in range(20)))
    assert len(world.replicas.calls) == 1
    assert Counter(tier for tier, _ in answers) == {"miss": 1, "exact": 19}
    assert {text_of(body) for _, body in answers} == {TEXT}
    assert len(world.flights) == 0


async def test_a_stream_whose_client_leaves_is_computed_for_the_next(world: World) -> None:
    world.replicas.script.append(FakeAnswer([*streamed(TEXT)[:2], None]))
    reply = await world.pipeline.generate(chat(stream=True), caller())
    others = [asyncio.create_task(ask(world, chat())) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert len(world.replicas.calls) == 1
    await reply.close()
    answers = await asyncio.gather(*others)
    assert Counter(tier for tier, _ in answers) == {"miss": 1, "exact": 2}
    assert len(world.replicas.calls) == 2
    assert len(world.flights) == 0


@pytest.mark.parametrize("pieces", [[b"{}"], [ReplicaLostError("gone")], [ValueError("strange")]], ids=["not kept", "lost", "strange"])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_not_kept_serves_nobody_else(world: World, stream: bool, pieces: Any) -> None:
    world.replicas.script.append(FakeAnswer(pieces))
    answers = await asyncio.gather(*(ask(world, chat(stream=stream)) for _ in range(3)), return_exceptions=True)
    assert len(world.replicas.calls) >= 2
    assert sum(not isinstance(each, BaseException) and TEXT in text_of(each[1]) for each in answers[1:]) == 2
    assert len(world.flights) == 0


async def test_a_semantic_hit_holds_up_no_equal_request(world: World) -> None:
    world.embedding.means["Explain caches."] = "What is a cache?"
    await ask(world, chat())
    answers = await asyncio.gather(*(ask(world, chat("Explain caches.")) for _ in range(3)))
    assert [tier for tier, _ in answers] == ["semantic"] * 3
    assert len(world.flights) == 0
