"""Beginnings of chats that are kept because it was asked for, as OpenAI's own client can ask."""

import random
from typing import Any

import httpx
import openai

from tests.e2e.conftest import WORDS
from tests.e2e.system import System, poll


def text(words: int = 400) -> str:
    """One that nobody has sent before."""
    return " ".join(random.choices(WORDS, k=words))


def ask(client: openai.OpenAI, system: System, *messages: Any) -> Any:
    return client.chat.completions.with_raw_response.create(
        model=system.model, messages=list(messages), max_tokens=4, temperature=0, extra_body={"cache": {"mode": "off"}}
    )


def cached(answer: Any) -> int:
    tokens: int = answer.parse().usage.prompt_tokens_details.cached_tokens
    return tokens


def test_a_chat_begins_with_a_context_until_its_end(client: openai.OpenAI, system: System) -> None:
    body = {"model": system.model, "messages": [{"role": "system", "content": text()}], "ttl": 60, "tags": ["rules"]}
    made: Any = client.post("/caching", body=body, cast_to=object)
    assert made["status"] == "ready"
    for reference in (f"cache_id={made['id']}", "tag=rules"):
        answer = ask(client, system, {"role": "cache", "content": reference}, {"role": "user", "content": "What is the first word?"})
        assert cached(answer) >= made["tokens"] > 300
        assert answer.headers["msh-context-cache-id"] == made["id"]
    client.delete(f"/caching/{made['id']}", cast_to=object)
    try:
        ask(client, system, {"role": "cache", "content": f"cache_id={made['id']}"}, {"role": "user", "content": "And now?"})
    except openai.NotFoundError as error:
        assert error.code == "context_not_found"  # noqa: PT017
    else:
        raise AssertionError("a context that was deleted was found")


def test_a_marked_beginning_is_kept(client: openai.OpenAI, http: httpx.Client, system: System) -> None:
    part = {"type": "text", "text": text(), "cache_control": {"type": "ephemeral", "ttl": "5m"}}
    begins = {"role": "system", "content": [part]}
    first = ask(client, system, begins, {"role": "user", "content": "What is the first word?"})
    assert (first.headers["x-mygo-context"], cached(first)) == ("new", 0)
    questions = iter(range(1000))

    def is_kept() -> bool:
        again = ask(client, system, begins, {"role": "user", "content": f"What is word {next(questions)}?"})
        return bool(again.headers["x-mygo-context"] == "kept" and cached(again) > 300)

    poll("the marked beginning is kept", 10, is_kept)
