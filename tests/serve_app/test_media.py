"""What a request may name by a URL: an engine fetches nothing for strangers."""

from typing import Any

import pytest

from serve_app.config import load_config
from serve_app.errors import InvalidRequestError
from serve_app.media import refuse_remote_media
from tests.serve_app.asking import ask, caller, chat
from tests.serve_app.clients import client_of
from tests.serve_app.fakes import MODEL, World

METADATA = "http://169.254.169.254/latest/meta-data/"
DATA = "data:image/png;base64,iVBORw0KGgo="
VLLM = load_config({}).llm
TEXT = {"type": "text", "text": "What is this?"}


def message(part: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [TEXT, part]}]}


@pytest.mark.parametrize(
    ("part", "where"),
    [
        ({"type": "image_url", "image_url": {"url": METADATA}}, "messages[0].content[1].image_url.url"),
        ({"image_url": METADATA}, "messages[0].content[1].image_url"),
        ({"type": "text", "text": "x", "video_url": {"url": METADATA}}, "messages[0].content[1].video_url.url"),
        ({"type": "audio_url", "audio_url": {"url": "file:///etc/passwd"}}, "messages[0].content[1].audio_url.url"),
        ({"type": "image_url", "image_url": {"url": "/etc/passwd"}}, "messages[0].content[1].image_url.url"),
        ({"type": "image_url", "image_url": {"url": " data:,x"}}, "messages[0].content[1].image_url.url"),
        ({"type": "image", "source": {"type": "url", "url": METADATA}}, "messages[0].content[1].source.url"),
        ({"type": "tool_result", "content": [{"image_url": {"url": METADATA}}]}, "messages[0].content[1].content[0].image_url.url"),
    ],
)
def test_media_of_other_places_are_refused(part: dict[str, Any], where: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        refuse_remote_media(message(part), VLLM)
    assert refused.value.param == where
    assert "169.254" not in refused.value.message


def test_an_input_as_responses_have_it() -> None:
    with pytest.raises(InvalidRequestError) as refused:
        refuse_remote_media({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": METADATA}]}]}, VLLM)
    assert refused.value.param == "input[0].content[0].image_url"


@pytest.mark.parametrize(
    "body",
    [
        message(TEXT),
        message({"type": "image_url", "image_url": {"url": DATA}}),
        message({"type": "image_url", "image_url": {"url": DATA.replace("data", "DATA")}}),
        message({"type": "image", "source": {"type": "base64", "data": "iVBORw0KGgo="}}),
        {"messages": [{"role": "user", "content": f"Look at {METADATA}"}], "tools": [{"image_url": METADATA}]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"function": {"arguments": {"image_url": METADATA}}}]}]},
        {"prompt": METADATA},
        {"input": METADATA},
    ],
)
def test_what_is_fetched_from_nowhere_is_let_through(body: dict[str, Any]) -> None:
    refuse_remote_media(body, VLLM)


def test_hosts_that_the_configuration_names_are_vllms_to_check() -> None:
    extra = {"allowed_media_domains": ["media.example"]}
    llm = load_config({"llm": {"engine": {"type": "vllm", "args": {"extra": extra}}}}).llm
    refuse_remote_media(message({"type": "image_url", "image_url": {"url": METADATA}}), llm)


async def test_no_engine_sees_such_a_request(world: World) -> None:
    parts = [TEXT, {"type": "image_url", "image_url": {"url": METADATA}}]
    with pytest.raises(InvalidRequestError):
        await world.pipeline.generate(chat(messages=[{"role": "user", "content": parts}]), caller())
    assert world.replicas.bodies == []
    assert (await ask(world, chat(model=MODEL)))[0] == "miss"


async def test_nor_one_whose_tokens_are_counted(world: World) -> None:
    part = {"type": "image", "source": {"type": "url", "url": METADATA}}
    async with client_of(world) as http:
        body = {"model": MODEL, "messages": [{"role": "user", "content": [part]}]}
        answer = await http.post("/v1/messages/count_tokens", json=body)
    assert answer.status_code == 400
    assert "169.254" not in answer.text
    assert world.replicas.bodies == []
