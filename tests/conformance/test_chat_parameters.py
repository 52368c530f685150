"""POST /v1/chat/completions: each parameter of the reference, with values that are taken and values that are not."""

from typing import Any

import pytest

from tests.conformance.conftest import Post
from tests.conformance.shapes import chat_answer, error_of
from tests.e2e.system import System

TAKEN: list[tuple[str, dict[str, Any]]] = [
    ("frequency_penalty -2", {"frequency_penalty": -2}),
    ("frequency_penalty 2", {"frequency_penalty": 2}),
    ("frequency_penalty null", {"frequency_penalty": None}),
    ("presence_penalty -2", {"presence_penalty": -2.0}),
    ("presence_penalty 2", {"presence_penalty": 2.0}),
    ("logit_bias empty", {"logit_bias": {}}),
    ("logit_bias -100 and 100", {"logit_bias": {"20": -100, "30": 100}}),
    ("logprobs false", {"logprobs": False}),
    ("max_completion_tokens 1", {"max_tokens": None, "max_completion_tokens": 1}),
    ("max_tokens 1", {"max_tokens": 1}),
    ("metadata", {"metadata": {"team": "blue"}}),
    ("modalities text", {"modalities": ["text"]}),
    ("n 1", {"n": 1}),
    ("n 3", {"n": 3, "temperature": 1}),
    ("parallel_tool_calls without tools", {"parallel_tool_calls": False}),
    ("prediction", {"prediction": {"type": "content", "content": "A line."}}),
    ("prompt_cache_key", {"prompt_cache_key": "me"}),
    ("reasoning_effort", {"reasoning_effort": "low"}),
    ("response_format text", {"response_format": {"type": "text"}}),
    ("safety_identifier", {"safety_identifier": "someone"}),
    ("seed 0", {"seed": 0}),
    ("seed negative", {"seed": -1}),
    ("seed 2^63-1", {"seed": 2**63 - 1}),
    ("service_tier auto", {"service_tier": "auto"}),
    ("stop text", {"stop": "\n\n\n"}),
    ("stop list of four", {"stop": ["\n\n\n", "@@", "##", "~~"]}),
    ("stop null", {"stop": None}),
    ("store false", {"store": False}),
    ("stream false", {"stream": False}),
    ("temperature 0", {"temperature": 0}),
    ("temperature 2", {"temperature": 2}),
    ("top_p 1", {"top_p": 1}),
    ("top_p small", {"top_p": 0.01, "temperature": 1}),
    ("user", {"user": "someone"}),
    ("verbosity", {"verbosity": "low"}),
    ("a field of tomorrow", {"field_of_tomorrow": {"a": 1}}),
]


@pytest.mark.parametrize("fields", [fields for _, fields in TAKEN], ids=[name for name, _ in TAKEN])
def test_taken(ask: Post, system: System, fields: dict[str, Any]) -> None:
    answer = chat_answer(ask(**fields))
    assert answer.model == system.model
    assert len(answer.choices) == fields.get("n", 1)


def test_nulls_are_as_if_they_were_left_out(ask: Post, chat: dict[str, Any], http: Any) -> None:
    fields = (
        "frequency_penalty logit_bias logprobs max_completion_tokens n presence_penalty seed stop stream stream_options tools top_p user"
    )
    body = {**chat, **dict.fromkeys(fields.split())}
    nulls = chat_answer(http.post("/v1/chat/completions", json={**body, "cache": {"mode": "off"}}))
    assert nulls.choices[0].message.content == chat_answer(ask()).choices[0].message.content


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("frequency_penalty 2.1", {"frequency_penalty": 2.1}, "frequency_penalty"),
    ("frequency_penalty -2.1", {"frequency_penalty": -2.1}, "frequency_penalty"),
    ("frequency_penalty text", {"frequency_penalty": "much"}, "frequency_penalty"),
    ("presence_penalty 2.1", {"presence_penalty": 2.1}, "presence_penalty"),
    ("logit_bias list", {"logit_bias": [1]}, "logit_bias"),
    ("logit_bias 101", {"logit_bias": {"20": 101}}, "logit_bias"),
    ("logit_bias of no token", {"logit_bias": {"a word": 1}}, "logit_bias"),
    ("logprobs text", {"logprobs": "yes"}, "logprobs"),
    ("top_logprobs without logprobs", {"top_logprobs": 2}, "top_logprobs"),
    ("top_logprobs 21", {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ("top_logprobs -1", {"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
    ("max_completion_tokens 0", {"max_completion_tokens": 0}, "max_completion_tokens"),
    ("max_completion_tokens too many", {"max_tokens": None, "max_completion_tokens": 10**6}, "max_completion_tokens"),
    ("max_tokens 1.5", {"max_tokens": 1.5}, "max_tokens"),
    ("model missing", {"model": None}, "model"),
    ("messages missing", {"messages": None}, "messages"),
    ("modalities audio", {"modalities": ["text", "audio"]}, "modalities"),
    ("audio", {"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
    ("n 129", {"n": 129}, "n"),
    ("n true", {"n": True}, "n"),
    ("functions", {"functions": [{"name": "f", "parameters": {"type": "object", "properties": {}}}]}, "functions"),
    ("web_search_options", {"web_search_options": {}}, "web_search_options"),
    ("seed too large", {"seed": 2**63}, "seed"),
    ("seed text", {"seed": "1"}, "seed"),
    ("stop number", {"stop": 7}, "stop"),
    ("stop of numbers", {"stop": [7]}, "stop[0]"),
    ("stop too many", {"stop": [str(number) for number in range(65)]}, "stop"),
    ("stream number", {"stream": 1}, "stream"),
    ("stream_options number", {"stream": True, "stream_options": 1}, "stream_options"),
    ("temperature -0.1", {"temperature": -0.1}, "temperature"),
    ("temperature 2.1", {"temperature": 2.1}, "temperature"),
    ("top_p 1.1", {"top_p": 1.1}, "top_p"),
    ("user number", {"user": 7}, "user"),
    ("tools text", {"tools": "a tool"}, "tools"),
    ("response_format text", {"response_format": "json"}, "response_format"),
]


@pytest.mark.parametrize(("fields", "param"), [each[1:] for each in REFUSED], ids=[name for name, *_ in REFUSED])
def test_refused(ask: Post, fields: dict[str, Any], param: str) -> None:
    error = error_of(ask(**fields), 400, param)
    assert error["type"] == "invalid_request_error"


def test_max_tokens_ends_an_answer_with_length(ask: Post) -> None:
    answer = chat_answer(ask(max_tokens=3, ignore_eos=True))
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage
    assert answer.usage.completion_tokens == 3


def test_max_completion_tokens_counts_before_max_tokens(ask: Post) -> None:
    answer = chat_answer(ask(max_tokens=9, max_completion_tokens=2, ignore_eos=True))
    assert answer.usage
    assert answer.usage.completion_tokens == 2


def test_an_answer_that_ends_by_itself_ends_with_stop(ask: Post, real: System) -> None:
    answer = chat_answer(ask(messages=[{"role": "user", "content": "What is MyGO Serve?"}], max_tokens=500))
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("as_list", [False, True], ids=["text", "list"])
def test_stop_ends_before_what_it_names(ask: Post, as_list: bool) -> None:
    whole = chat_answer(ask(max_tokens=24, ignore_eos=True)).choices[0].message.content or ""
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    cut = chat_answer(ask(max_tokens=24, ignore_eos=True, stop=[stop, "@@@@"] if as_list else stop)).choices[0]
    assert cut.finish_reason == "stop"
    assert cut.message.content == whole[: whole.index(stop)]


def test_n_counts_all_choices_in_usage(ask: Post) -> None:
    answer = chat_answer(ask(n=4, max_tokens=5, ignore_eos=True, temperature=1))
    assert len(answer.choices) == 4
    assert answer.usage
    assert answer.usage.completion_tokens == 20


def test_the_same_seed_gives_the_same_answer(ask: Post, real: System) -> None:
    def answer(seed: int) -> str | None:
        fields = {"temperature": 2, "max_tokens": 24, "ignore_eos": True, "seed": seed, "cache": {"mode": "off"}}
        return chat_answer(ask(**fields)).choices[0].message.content

    assert answer(7) == answer(7)
    assert len({answer(seed) for seed in range(4)}) > 1


def test_logit_bias_of_100_chooses_the_token(ask: Post, real: System) -> None:
    token = real.http.post("/v1/completions", json={"model": real.model, "prompt": "cache", "max_tokens": 1, "return_token_ids": True})
    chosen = token.json()["choices"][0]["prompt_token_ids"][-1]
    answer = chat_answer(ask(logit_bias={str(chosen): 100}, max_tokens=3, return_token_ids=True))
    assert answer.choices[0].model_extra
    assert answer.choices[0].model_extra["token_ids"] == [chosen] * 3


@pytest.mark.parametrize("top", [None, 0, 1, 5, 20])
def test_logprobs_of_each_token(ask: Post, real: System, top: int | None) -> None:
    answer = chat_answer(ask(logprobs=True, top_logprobs=top, max_tokens=4, ignore_eos=True))
    logprobs = answer.choices[0].logprobs
    assert logprobs
    assert logprobs.content
    assert len(logprobs.content) == 4
    for each in logprobs.content:
        assert each.logprob <= 0
        assert bytes(each.bytes or []).decode(errors="replace") == each.token
        assert len(each.top_logprobs) == (top or 0)
        if top:
            assert [other.logprob for other in each.top_logprobs] == sorted((other.logprob for other in each.top_logprobs), reverse=True)
            assert each.top_logprobs[0].token == each.token, "at temperature 0 the likeliest is taken"


def test_logprobs_null_unless_asked_for(ask: Post) -> None:
    assert chat_answer(ask()).choices[0].logprobs is None


@pytest.mark.parametrize("is_hit", [False, True], ids=["computed", "kept"])
def test_every_field_of_the_reference_is_there(ask: Post, is_hit: bool) -> None:
    response = ask()
    if is_hit:
        response = ask()
        assert response.headers["x-mygo-cache"] == "exact"
    body = response.json()
    assert {"id", "object", "created", "model", "choices", "usage"} <= set(body)
    assert {"index", "message", "logprobs", "finish_reason"} <= set(body["choices"][0])
    assert {"role", "content", "refusal"} <= set(body["choices"][0]["message"])
    assert {"prompt_tokens", "completion_tokens", "total_tokens"} <= set(body["usage"])
    chat_answer(response)
