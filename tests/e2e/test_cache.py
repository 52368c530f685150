"""Exact and semantic hits, and what must never be one."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import msgspec
import pytest

from tests.e2e.system import System, poll

Chat = dict[str, Any]


def ask(http: httpx.Client, body: Chat, **headers: str) -> httpx.Response:
    response = http.post("/v1/chat/completions", json=body, headers={name.replace("_", "-"): value for name, value in headers.items()})
    assert response.status_code == 200, response.text
    return response


def tier(response: httpx.Response) -> str:
    return response.headers["x-mygo-cache"]


def text_of(response: httpx.Response) -> str:
    """The answer's text, streamed or not."""
    if "event-stream" not in response.headers["content-type"]:
        return str(response.json()["choices"][0]["message"]["content"])
    events = [part.removeprefix("data: ") for part in response.text.split("\n\n") if part]
    assert events[-1] == "[DONE]"
    chunks = [msgspec.json.decode(event) for event in events[:-1]]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


@pytest.mark.parametrize("first_streams", [False, True])
def test_the_same_request_twice_is_an_exact_hit(http: httpx.Client, chat: Chat, first_streams: bool) -> None:
    streamed = {**chat, "stream": True}
    miss = ask(http, streamed if first_streams else chat)
    whole, stream = ask(http, chat), ask(http, streamed)
    assert [tier(miss), tier(whole), tier(stream)] == ["miss", "exact", "exact"]
    assert text_of(miss) == text_of(whole) == text_of(stream)
    assert whole.headers["x-mygo-entry"] == stream.headers["x-mygo-entry"]


def test_a_hit_looks_like_the_miss_that_was_kept(http: httpx.Client, chat: Chat) -> None:
    miss, hit = ask(http, chat).json(), ask(http, chat).json()
    assert miss["usage"] == hit["usage"]
    assert miss["usage"]["prompt_tokens_details"]["cached_tokens"] is not None
    assert miss["choices"][0]["finish_reason"] == hit["choices"][0]["finish_reason"]
    assert miss["model"] == hit["model"]
    assert miss["object"] == hit["object"]
    assert miss["id"] != hit["id"]


def test_a_streamed_hit_carries_the_usage_when_it_is_asked_for(http: httpx.Client, chat: Chat) -> None:
    usage = ask(http, chat).json()["usage"]
    hit = ask(http, {**chat, "stream": True, "stream_options": {"include_usage": True}})
    assert tier(hit) == "exact"
    last = msgspec.json.decode(hit.text.split("\n\n")[-3].removeprefix("data: "))
    assert last["choices"] == []
    assert last["usage"] == usage


def test_equal_requests_at_once_are_computed_once(http: httpx.Client, chat: Chat) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda number: ask(http, {**chat, "stream": number % 2 == 0}), range(20)))
    assert sorted(tier(answer) for answer in answers) == ["exact"] * 19 + ["miss"]
    assert len({text_of(answer) for answer in answers}) == 1


def asking(system: System, content: str) -> Chat:
    return {"model": system.model, "messages": [{"role": "user", "content": content}], "max_tokens": 16, "temperature": 0}


def wait_kept(http: httpx.Client, entries: int) -> None:
    poll("answers in the store", 10, lambda: http.get("/v1/cache/stats").raise_for_status().json()["entries"] >= entries)


def test_the_same_question_in_other_clothes_is_a_semantic_hit(http: httpx.Client, system: System) -> None:
    first = ask(http, asking(system, "What is the purpose of a KV cache?"))
    assert tier(first) == "miss"
    wait_kept(http, 1)
    hit = ask(http, asking(system, "please, what's the purpose of a KV cache"))
    assert tier(hit) == "semantic"
    assert text_of(hit) == text_of(first)
    assert float(hit.headers["x-mygo-similarity"]) == 1
    for other in ("What is not the purpose of a KV cache?", "What is the purpose of 2 KV caches?", "How do I cook rice?"):
        assert tier(ask(http, asking(system, other))) == "miss"


def test_a_paraphrase_is_served_or_learnt_from(http: httpx.Client, system: System) -> None:
    """A new tenant's first paraphrases are mostly computed anew: each tells whether the kept answer would have been right."""
    first = ask(http, asking(system, "What is the purpose of a KV cache?"))
    wait_kept(http, 1)
    before = learnt(http)
    paraphrase = ask(http, asking(system, "What purpose does a KV cache have?"))
    assert tier(paraphrase) in ("semantic", "miss")
    if tier(paraphrase) == "semantic":
        assert text_of(paraphrase) == text_of(first)
        assert 0.7 <= float(paraphrase.headers["x-mygo-similarity"]) <= 1
    else:
        poll("something learnt", 30, lambda: learnt(http) > before)


def learnt(http: httpx.Client) -> float:
    lines = http.get("/metrics").text.splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("mygo_cache_operations_total{") and 'what="learn"' in line
    )


def test_another_namespace_never_hits(http: httpx.Client, chat: Chat) -> None:
    ask(http, chat, x_mygo_tenant="ada")
    assert tier(ask(http, chat, x_mygo_tenant="ada")) == "exact"
    assert tier(ask(http, chat, x_mygo_tenant="bob")) == "miss"
    other_words = {**chat, "messages": [{"role": "user", "content": chat["messages"][0]["content"] + " "}]}
    assert tier(ask(http, other_words, x_mygo_tenant="cem")) == "miss"


def test_another_system_prompt_or_parameter_never_hits(http: httpx.Client, chat: Chat) -> None:
    ask(http, chat)
    system_prompt = {"role": "system", "content": "Answer in French."}
    assert tier(ask(http, {**chat, "messages": [system_prompt, *chat["messages"]]})) == "miss"
    assert tier(ask(http, {**chat, "temperature": 0.5})) == "miss"
    assert tier(ask(http, {**chat, "max_tokens": 17})) == "miss"


def test_a_request_can_keep_out_of_the_cache(http: httpx.Client, chat: Chat) -> None:
    off = {**chat, "cache": {"mode": "off"}}
    assert [tier(ask(http, off)), tier(ask(http, off))] == ["bypass", "bypass"]
    assert tier(ask(http, chat, cache_control="no-store")) == "bypass"
    assert tier(ask(http, chat)) == "miss"
    assert tier(ask(http, {**chat, "cache": {"mode": "refresh"}})) == "bypass"
    assert tier(ask(http, chat)) == "exact"
