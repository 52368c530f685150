"""What a moderation model judges on its way, with fakes around the pipeline."""

import pytest

from serve_app.content.moderation_fake import FakeModerator
from serve_app.errors import UnavailableError
from tests.serve_app.asking import ask, bytes_of, caller, chat, text_of
from tests.serve_app.content.worlds import MASK, answered, moderated, refused, says
from tests.serve_app.fakes import TEXT, make_world


async def test_prompts_are_judged_before_anything_is_done() -> None:
    world, judge = moderated()
    error = await refused(world, chat("an evil plan"))
    assert (error.code, error.message) == ("content_filter", "The prompt is against the content rule moderation.")
    assert world.steps == []
    assert judge.judged == ["an evil plan"]
    assert world.metrics.content_matches == [("moderation", "block")]
    assert world.metrics.operations == [("moderation", "flagged")]


async def test_what_is_to_be_judged_is_not_answered_at_once() -> None:
    world, judge = moderated()
    assert world.pipeline.arrive(chat(), caller()).asked is None
    assert [(await ask(world, chat()))[0] for _ in range(2)] == ["miss", "exact"]
    assert judge.judged == ["What is a cache?", TEXT, "What is a cache?"]


async def test_whole_answers_are_judged_before_they_are_sent() -> None:
    world, _ = moderated()
    assert await answered(world, chat(), says("an evil answer")) == ("miss", "", "content_filter")
    assert world.cache.entries == []


async def test_streamed_answers_are_judged_before_they_are_kept() -> None:
    world, judge = moderated()
    assert await answered(world, chat(stream=True), says("an evil answer", stream=True)) == ("miss", "an evil answer", "stop")
    assert world.cache.entries == []
    assert (await answered(world, chat(stream=True)))[0] == "miss"
    assert len(world.cache.entries) == 1
    assert judge.judged[1::2] == ["an evil answer", TEXT]


async def test_answers_are_judged_only_if_they_are_to_be() -> None:
    world, judge = moderated(answers=False)
    await ask(world, chat())
    await ask(world, chat("another", stream=True))
    assert judge.judged == ["What is a cache?", "another"]
    assert len(world.cache.entries) == 2


async def test_without_a_verdict_it_is_closed_or_open() -> None:
    world, judge = moderated()
    judge.fails = True
    with pytest.raises(UnavailableError) as caught:
        await world.pipeline.generate(chat(), caller())
    assert caught.value.code == "moderation_unavailable"
    assert world.steps == []
    world, judge = moderated(on_failure="open")
    judge.fails = True
    assert (await ask(world, chat()))[0] == "miss"
    assert world.metrics.operations[0] == ("moderation", "failed")


async def test_a_stream_whose_verdict_does_not_come_is_not_kept_when_closed() -> None:
    world, judge = moderated()
    reply = await world.pipeline.generate(chat(stream=True), caller())
    judge.fails = True
    assert text_of(await bytes_of(reply)) == TEXT
    await world.keeper.drain()
    assert world.cache.entries == []


async def test_masked_prompts_are_judged_masked() -> None:
    fake = FakeModerator({})
    world = make_world(fake, content={"all": {"rules": [MASK], "moderated": True}, "moderator": {"answers": False}})
    await ask(world, chat("I am Bob"))
    assert fake.judged == ["I am ***"]
