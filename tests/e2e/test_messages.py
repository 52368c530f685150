"""Anthropic's `/v1/messages` with its own Python client."""

import secrets
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest
from anthropic.types import MessageParam, Usage

from tests.e2e.system import System, poll
from tests.e2e.test_routing import long_text

QUESTION: list[MessageParam] = [{"role": "user", "content": "What is MyGO Serve?"}]


@pytest.fixture
def claude(system: System, tenant: dict[str, str]) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=system.url, api_key="unused", max_retries=0, timeout=60, default_headers=tenant) as client:
        yield client


def prompt_tokens(usage: Usage) -> int:
    return usage.input_tokens + (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)


def test_a_message(claude: anthropic.Anthropic, client: openai.OpenAI, system: System) -> None:
    raw = claude.messages.with_raw_response.create(
        model=system.model, max_tokens=32, messages=QUESTION, extra_body={"temperature": 0}, extra_headers={"x-request-id": "mine-1"}
    )
    message = raw.parse()
    assert (raw.headers["x-mygo-cache"], message.type, message.role, message.model) == ("miss", "message", "assistant", system.model)
    assert (message._request_id, raw.headers["x-request-id"]) == ("mine-1", "mine-1")
    assert raw.headers["x-mygo-replica"]
    (block,) = message.content
    assert block.type == "text"
    assert message.stop_reason in ("end_turn", "max_tokens")
    assert message.usage.output_tokens > 0
    assert message.usage.cache_read_input_tokens in (0, None)
    chat = client.chat.completions.create(
        model=system.model, messages=[{"role": "user", "content": "What is MyGO Serve?"}], max_tokens=32, temperature=0
    )
    assert block.text == chat.choices[0].message.content
    assert chat.usage
    counted = claude.messages.count_tokens(model=system.model, messages=QUESTION)
    assert counted.input_tokens == prompt_tokens(message.usage) == chat.usage.prompt_tokens


def test_a_streamed_message_joins_to_the_whole_one(claude: anthropic.Anthropic, system: System) -> None:
    asked: dict[str, Any] = {
        "model": system.model,
        "max_tokens": 48,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "How does streaming work?"}],
        "extra_body": {"temperature": 0},
    }
    raw = claude.messages.with_raw_response.create(**asked, extra_headers={"cache-control": "no-cache"})
    whole = raw.parse()
    assert [block.type for block in whole.content] == ["text"]
    for headers, outcome in (({"cache-control": "no-cache"}, "bypass"), ({}, "exact")):  # computed, and replayed
        with claude.messages.stream(**asked, extra_headers=headers) as stream:
            assert stream.response.headers["x-mygo-cache"] == outcome
            text = "".join(stream.text_stream)
            streamed = stream.get_final_message()
        assert streamed.content[0].type == whole.content[0].type == "text"
        assert text == streamed.content[0].text == whole.content[0].text
        assert (streamed.stop_reason, streamed.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)
    again = claude.messages.with_raw_response.create(**asked)
    assert (again.headers["x-mygo-cache"], again.parse().content) == ("exact", whole.content)


def test_a_conversation_finds_its_kv_again_and_nobody_elses(claude: anthropic.Anthropic, system: System) -> None:
    turns: list[MessageParam] = [{"role": "user", "content": f"Remember {' '.join(secrets.token_hex(4) for _ in range(30))}."}]
    begun = claude.messages.create(model=system.model, max_tokens=8, messages=turns)
    turns += [{"role": "assistant", "content": begun.content}, {"role": "user", "content": "What was it?"}]
    own, others = (
        claude.messages.create(model=system.model, max_tokens=8, messages=turns, extra_headers=headers).usage
        for headers in ({}, {"x-mygo-tenant": f"another-{secrets.token_hex(4)}"})
    )
    assert own.cache_read_input_tokens
    assert not others.cache_read_input_tokens
    assert prompt_tokens(own) == prompt_tokens(others)


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompts_beginning_is_found_where_it_was_predicted(claude: anthropic.Anthropic, system: System, stream: bool) -> None:
    text = long_text(1500)
    for number in range(4):
        turns: list[MessageParam] = [{"role": "user", "content": f"What is word {number}?"}]
        asked: dict[str, Any] = {"model": system.model, "max_tokens": 4, "system": text, "messages": turns}
        raw = claude.messages.with_raw_response.create(**asked, stream=stream)
        answer: Any = raw.parse()
        usage = next(event.usage for event in answer if event.type == "message_delta") if stream else answer.usage
        assert int(raw.headers["x-mygo-predicted-cached-tokens"]) == usage.cache_read_input_tokens
        assert (usage.cache_read_input_tokens > 0) is (number > 0)


def test_errors_are_the_clients_own_types(claude: anthropic.Anthropic, system: System) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        claude.messages.create(model="claude-none", max_tokens=8, messages=QUESTION)
    assert missing.value.body == {
        "type": "error",
        "error": {"type": "not_found_error", "message": f"Could not find this model; the one that answers here is {system.model}."},
    }
    with pytest.raises(anthropic.BadRequestError) as refused:
        claude.messages.create(
            model=system.model, max_tokens=8, messages=QUESTION, tools=[{"type": "web_search_20250305", "name": "web_search"}]
        )
    assert "tools[0].type" in refused.value.message
    with pytest.raises(anthropic.BadRequestError) as long:
        claude.messages.create(model=system.model, max_tokens=8, messages=[{"role": "user", "content": "word " * 9000}])
    assert "maximum context length" in long.value.message


def test_wrong_methods_are_told_in_the_same_shape(http: httpx.Client) -> None:
    response = http.get("/v1/messages")
    assert (response.status_code, response.json()["type"]) == (405, "error")


def test_a_client_that_leaves_ends_its_message(claude: anthropic.Anthropic, system: System) -> None:
    if not system.is_simulated:
        pytest.skip("vLLM cannot be told here to go on, and its demo model has little to say")
    turns: list[MessageParam] = [{"role": "user", "content": "Write for ever."}]
    with claude.messages.stream(model=system.model, max_tokens=4000, messages=turns, extra_body={"ignore_eos": True}) as stream:
        next(iter(stream))
        poll("the request in the engine", 10, lambda: system.ongoing() == 1)
    poll("the engines are idle", 2, lambda: system.ongoing() == 0)
