"""POST /v1/completions: prompts of each form, batches, and the parameters that chats do not have."""

from typing import Any

import pytest
from openai.types import CompletionUsage

from tests.conformance.conftest import Post
from tests.conformance.shapes import check_usage, checked, completion_answer, completion_chunks, error_of, events
from tests.e2e.system import System

PROMPTS: list[tuple[str, Any, int]] = [
    ("text", "A cache is", 1),
    ("list of one text", ["A cache is"], 1),
    ("list of texts", ["A cache is", "A router is", "A key is"], 3),
    ("tokens", [20, 21, 22], 1),
    ("list of tokens", [[20, 21, 22]], 1),
    ("lists of tokens", [[20, 21, 22], [30, 31]], 2),
    ("text beyond ASCII", "缓存是 \U0001f642", 1),
]


@pytest.mark.parametrize(("prompt", "answers"), [each[1:] for each in PROMPTS], ids=[name for name, *_ in PROMPTS])
def test_prompts(complete: Post, system: System, prompt: Any, answers: int) -> None:
    answer = completion_answer(complete(prompt=prompt))
    assert answer.model == system.model
    assert len(answer.choices) == answers


def test_a_batch_answers_in_the_order_of_its_prompts(complete: Post, real: System) -> None:
    prompts = ["A cache is", "The tenant has", "One replica"]
    alone = [completion_answer(complete(prompt=prompt)).choices[0].text for prompt in prompts]
    together = completion_answer(complete(prompt=prompts, cache={"mode": "off"}))
    assert [choice.text for choice in together.choices] == alone


def test_n_answers_for_each_prompt_in_its_order(complete: Post, real: System) -> None:
    answer = completion_answer(complete(prompt=["A cache is", "A router is"], n=2, echo=True))
    starts = [choice.text.startswith("A cache") for choice in answer.choices]
    assert starts == [True, True, False, False]


TAKEN: list[tuple[str, dict[str, Any]]] = [
    ("best_of as n", {"best_of": 1}),
    ("frequency_penalty", {"frequency_penalty": 1.5}),
    ("presence_penalty", {"presence_penalty": -1.5}),
    ("logit_bias", {"logit_bias": {"20": -100}}),
    ("max_tokens left out", {"max_tokens": None}),
    ("n 3", {"n": 3, "temperature": 1}),
    ("seed", {"seed": 42}),
    ("stop", {"stop": ["\n\n\n"]}),
    ("suffix null", {"suffix": None}),
    ("temperature 2", {"temperature": 2}),
    ("top_p", {"top_p": 0.5, "temperature": 1}),
    ("user", {"user": "someone"}),
]


@pytest.mark.parametrize("fields", [fields for _, fields in TAKEN], ids=[name for name, _ in TAKEN])
def test_taken(complete: Post, fields: dict[str, Any]) -> None:
    assert len(completion_answer(complete(**fields)).choices) == fields.get("n", 1)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("prompt missing", {"prompt": None}, "prompt"),
    ("prompt number", {"prompt": 7}, "prompt"),
    ("no prompts", {"prompt": []}, "prompt"),
    ("texts and tokens", {"prompt": ["A cache", 7]}, "prompt"),
    ("tokens that are none", {"prompt": [-1]}, "prompt"),
    ("no tokens", {"prompt": [[]]}, "prompt"),
    ("a prompt of null", {"prompt": [None]}, "prompt"),
    ("model missing", {"model": None}, "model"),
    ("best_of more than n", {"best_of": 3, "n": 1}, "best_of"),
    ("logprobs 21", {"logprobs": 21}, "logprobs"),
    ("logprobs true", {"logprobs": True}, "logprobs"),
    ("echo text", {"echo": "yes"}, "echo"),
    ("max_tokens -1", {"max_tokens": -1}, "max_tokens"),
    ("n 0", {"n": 0}, "n"),
    ("temperature 2.1", {"temperature": 2.1}, "temperature"),
    ("stream text", {"stream": "yes"}, "stream"),
]


@pytest.mark.parametrize(("fields", "param"), [each[1:] for each in REFUSED], ids=[name for name, *_ in REFUSED])
def test_refused(complete: Post, fields: dict[str, Any], param: str) -> None:
    error = error_of(complete(**fields), 400, param)
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"prompt": [10**9]}, "prompt"), ({"suffix": "the end."}, "suffix")],
    ids=["tokens beyond the vocabulary", "suffix"],
)
def test_refused_by_the_engine(complete: Post, real: System, fields: dict[str, Any], param: str) -> None:
    error_of(complete(**fields), 400, param)


def test_an_unknown_model(complete: Post) -> None:
    error_of(complete(model="gpt-none"), 404, "model", "model_not_found")


def test_max_tokens_are_16_unless_said(complete: Post, real: System) -> None:
    answer = completion_answer(complete(max_tokens=None, ignore_eos=True))
    assert answer.usage
    assert answer.usage.completion_tokens == 16
    assert answer.choices[0].finish_reason == "length"


def test_echo_gives_the_prompt_too(complete: Post, real: System) -> None:
    answer = completion_answer(complete(prompt="A cache is", echo=True, max_tokens=4))
    assert answer.choices[0].text.startswith("A cache is")


def test_echo_of_the_prompt_alone(complete: Post, real: System) -> None:
    answer = completion_answer(complete(prompt="A cache is", echo=True, max_tokens=0))
    assert answer.choices[0].text == "A cache is"


@pytest.mark.parametrize("number", [0, 1, 5])
def test_logprobs(complete: Post, real: System, number: int) -> None:
    choice = completion_answer(complete(logprobs=number, max_tokens=4, min_tokens=4)).choices[0]
    logprobs = choice.logprobs
    assert logprobs
    assert "".join(logprobs.tokens or []) == choice.text
    assert len(logprobs.token_logprobs or []) == len(logprobs.text_offset or []) == len(logprobs.top_logprobs or []) == 4
    assert all(value <= 0 for value in logprobs.token_logprobs or [])
    assert all(number <= len(each) <= number + 1 for each in logprobs.top_logprobs or [])


def test_logprobs_of_the_prompt(complete: Post, real: System) -> None:
    """The first token of a prompt has none."""
    body = complete(prompt="A cache is", echo=True, logprobs=1, max_tokens=2, ignore_eos=True).raise_for_status().json()
    logprobs = body["choices"][0]["logprobs"]
    assert "".join(logprobs["tokens"]) == body["choices"][0]["text"]
    assert logprobs["token_logprobs"][0] is None
    assert all(value <= 0 for value in logprobs["token_logprobs"][1:])
    starts = logprobs["text_offset"]
    assert starts == sorted(starts)
    assert starts[0] == 0


def test_a_stop_ends_the_text(complete: Post) -> None:
    whole = completion_answer(complete(max_tokens=24, ignore_eos=True)).choices[0].text
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    cut = completion_answer(complete(max_tokens=24, ignore_eos=True, stop=stop)).choices[0]
    assert cut.text == whole[: whole.index(stop)]
    assert cut.finish_reason == "stop"


@pytest.mark.parametrize("kept", [False, True], ids=["computed", "kept"])
def test_a_stream_joins_to_the_whole(complete: Post, kept: bool) -> None:
    response = complete(stream=True, ignore_eos=True)
    if kept:
        response = complete(stream=True, ignore_eos=True)
        assert response.headers["x-mygo-cache"] == "exact"
    chunks = completion_chunks(response)
    whole = completion_answer(complete(ignore_eos=True, cache={"mode": "off"}))
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole.choices[0].text
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert all(chunk.get("usage") is None for chunk in chunks)


@pytest.mark.parametrize("kept", [False, True], ids=["computed", "kept"])
def test_a_stream_with_usage(complete: Post, kept: bool) -> None:
    fields = {"stream": True, "stream_options": {"include_usage": True}}
    response = complete(**fields)
    if kept:
        response = complete(**fields)
    raw = events(response.text)
    assert raw[-1]["choices"] == []
    assert [chunk["usage"] for chunk in raw[:-1]] == [None] * (len(raw) - 1)
    check_usage(checked(raw[-1]["usage"], CompletionUsage))


def test_a_stream_of_a_batch_has_an_index_for_each(complete: Post) -> None:
    chunks = completion_chunks(complete(prompt=["A cache is", "A router is"], stream=True))
    assert {choice["index"] for chunk in chunks for choice in chunk["choices"]} == {0, 1}
