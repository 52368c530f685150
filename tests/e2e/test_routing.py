"""Prompts go back to the replica that holds their beginning, and what is predicted is what the engine finds."""

import json
import random
import secrets
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import WORDS
from tests.e2e.system import System, poll

OFF = {"cache": {"mode": "off"}}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "find_document",
            "description": "Finds a document by its title, and says where it lies.",
            "parameters": {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]},
        },
    }
]


def long_text(words: int = 300) -> str:
    """One that nobody has sent before."""
    return " ".join(random.choices(WORDS, k=words))


def chat_of(text: str, question: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": text}, {"role": "user", "content": question}]
    return {"messages": messages, "max_tokens": 4, "temperature": 0, **OFF, **fields}


def completion_of(text: str, question: str, **fields: Any) -> dict[str, Any]:
    return {"prompt": f"{text} {question}", "max_tokens": 4, "temperature": 0, **OFF, **fields}


class Asked:
    """One answer: who gave it, what was predicted, and what was found."""

    def __init__(self, http: httpx.Client, system: System, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
        answer = http.post(path, json={"model": system.model, **body}, headers=headers)
        assert answer.status_code == 200, answer.text
        self.replica = answer.headers["x-mygo-replica"]
        self.predicted = int(answer.headers["x-mygo-predicted-cached-tokens"])
        self.usage = _usage(answer)
        self.found = self.usage["prompt_tokens_details"]["cached_tokens"]


def _usage(answer: httpx.Response) -> dict[str, Any]:
    if not answer.headers["content-type"].startswith("text/event-stream"):
        usage: dict[str, Any] = answer.json()["usage"]
        return usage
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    return next(event["usage"] for event in reversed(events) if event.get("usage"))


STREAM = {"stream": True, "stream_options": {"include_usage": True}}
SHAPES: dict[str, tuple[Callable[..., dict[str, Any]], dict[str, Any]]] = {
    "chat": (chat_of, {}),
    "streamed chat": (chat_of, STREAM),
    "completion": (completion_of, {}),
    "streamed completion": (completion_of, STREAM),
    "chat with tools": (chat_of, {"tools": TOOLS, "tool_choice": "none"}),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_prompts_beginning_is_found_where_it_was_predicted(http: httpx.Client, system: System, shape: str) -> None:
    body, fields = SHAPES[shape]
    text = long_text()
    first = Asked(http, system, body(text, "What is the first word?", **fields))
    assert (first.predicted, first.found) == (0, 0)
    for number in range(4):
        again = Asked(http, system, body(text, f"What is word {number}?", **fields))
        assert again.replica == first.replica
        assert again.predicted == again.found >= 200


def test_a_conversation_stays_where_it_began(http: httpx.Client, system: System) -> None:
    messages = [{"role": "user", "content": long_text()}]
    replicas, found = set(), []
    for turn in range(3):
        asked = Asked(http, system, {"messages": messages, "max_tokens": 4, "temperature": 0, **OFF})
        replicas.add(asked.replica)
        found.append(asked.found)
        assert asked.predicted == asked.found
        messages += [{"role": "assistant", "content": "I see."}, {"role": "user", "content": f"And then? Say more about part {turn}."}]
    assert len(replicas) == 1
    assert 0 == found[0] < found[1] <= found[2]


def test_a_tenants_prefix_is_its_own(http: httpx.Client, system: System) -> None:
    text = long_text()
    tenants = [{"x-mygo-tenant": f"test-{secrets.token_hex(8)}"} for _ in range(2)]
    for tenant in tenants:
        first = Asked(http, system, chat_of(text, "What is it?"), tenant)
        assert (first.predicted, first.found) == (0, 0)
    for tenant in tenants:
        again = Asked(http, system, chat_of(text, "What else is it?"), tenant)
        assert again.predicted == again.found >= 200


def test_different_prefixes_use_all_replicas(http: httpx.Client, system: System) -> None:
    assert len({Asked(http, system, chat_of(long_text(), "What is it?")).replica for _ in range(12)}) >= 2


def test_short_prompts_are_not_predicted_and_use_all_replicas(http: httpx.Client, system: System, chat: dict[str, Any]) -> None:
    answers = [http.post("/v1/chat/completions", json={**chat, **OFF}) for _ in range(20)]
    assert {"x-mygo-predicted-cached-tokens" in answer.headers for answer in answers} == {False}
    assert len({answer.headers["x-mygo-replica"] for answer in answers}) >= 2


def test_predictions_are_counted(http: httpx.Client, system: System) -> None:
    text = long_text()
    for number in range(3):
        Asked(http, system, chat_of(text, f"What is word {number}?"))

    def counted() -> bool:
        text = http.get("/metrics").text
        return all(name in text for name in ('kind="predicted"', "mygo_prefix_predictions_total", "mygo_prefix_trusted"))

    poll("the metrics", 40, counted)
