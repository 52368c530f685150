"""OpenAI's own Python client, as a user would write it."""

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.e2e.conftest import demo_questions
from tests.e2e.system import System

QUESTION = "What is MyGO Serve?"


def test_models_are_listed_and_say_what_they_are(client: openai.OpenAI, system: System) -> None:
    models = {model.id: model for model in client.models.list()}
    assert set(models) == {system.model, "all-MiniLM-L6-v2"}
    assert models[system.model].owned_by == ("mygo-simulated" if system.is_simulated else "vllm")
    assert client.models.retrieve(system.model).id == system.model


def test_chat(client: openai.OpenAI, system: System) -> None:
    answer = client.chat.completions.create(model=system.model, messages=[{"role": "user", "content": QUESTION}], temperature=0)
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details
    assert answer.usage.prompt_tokens_details.cached_tokens is not None


def test_streamed_chat_with_usage_joins_to_the_whole_answer(client: openai.OpenAI, system: System) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "How does streaming work?"}]
    chunks = list(
        client.chat.completions.create(
            model=system.model,
            messages=messages,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"cache": {"mode": "off"}},
        )
    )
    whole = client.chat.completions.create(model=system.model, messages=messages, temperature=0)
    assert chunks[-1].choices == []
    assert all(chunk.usage is None for chunk in chunks[:-1])
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text == whole.choices[0].message.content
    reasons = [chunk.choices[0].finish_reason for chunk in chunks[:-1] if chunk.choices[0].finish_reason]
    assert reasons == [whole.choices[0].finish_reason]
    assert chunks[-1].usage
    assert whole.usage
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_stream_without_usage_has_none(client: openai.OpenAI, system: System) -> None:
    stream = client.chat.completions.create(
        model=system.model, messages=[{"role": "user", "content": "Stream without usage?"}], max_tokens=8, stream=True
    )
    chunks = list(stream)
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_completions(client: openai.OpenAI, system: System) -> None:
    answer = client.completions.create(model=system.model, prompt="A cache is", max_tokens=6, temperature=0)
    assert answer.object == "text_completion"
    assert answer.choices[0].text
    streamed = client.completions.create(
        model=system.model, prompt="A cache is", max_tokens=6, temperature=0, stream=True, extra_body={"cache": {"mode": "off"}}
    )
    assert "".join(chunk.choices[0].text for chunk in streamed if chunk.choices) == answer.choices[0].text


def test_embeddings_are_unit_vectors_that_know_what_is_close(client: openai.OpenAI) -> None:
    texts = ["How do I reset my password?", "I forgot my password, how can I change it?", "The soup needs more salt."]
    result = client.embeddings.create(model="all-MiniLM-L6-v2", input=texts)
    vectors = [each.embedding for each in result.data]
    assert [each.index for each in result.data] == [0, 1, 2]
    assert all(sum(x * x for x in vector) == pytest.approx(1, abs=1e-3) for vector in vectors)
    near, far = (sum(a * b for a, b in zip(vectors[0], other, strict=True)) for other in vectors[1:])
    assert near > 0.8
    assert far < 0.4
    assert result.usage.prompt_tokens > 10


def test_errors_are_the_clients_own_types(client: openai.OpenAI, system: System) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-none", messages=[{"role": "user", "content": "?"}])
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model=system.model, messages=[{"role": "user", "content": "?"}], temperature=9)
    assert error.value.param == "temperature"


def test_the_demo_model_answers_its_questions(client: openai.OpenAI, system: System) -> None:
    if system.is_simulated:
        pytest.skip("the simulated engine has no model")
    questions = demo_questions()
    assert len(questions) >= 100
    wrong = []
    for each in questions[:100]:
        answer = client.chat.completions.create(
            model=system.model,
            messages=[{"role": "user", "content": each["question"]}],
            temperature=0,
            extra_body={"cache": {"mode": "off"}},
        )
        if answer.choices[0].message.content != each["answer"]:
            wrong.append(each["question"])
    assert not wrong


def test_the_demo_model_says_when_it_does_not_know(client: openai.OpenAI, system: System) -> None:
    if system.is_simulated:
        pytest.skip("the simulated engine has no model")
    answer = client.chat.completions.create(
        model=system.model, messages=[{"role": "user", "content": "How long should I boil an egg?"}], temperature=0
    )
    assert "only know" in str(answer.choices[0].message.content)
