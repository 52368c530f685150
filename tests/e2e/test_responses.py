"""`/v1/responses` with OpenAI's own Python client."""

import json
import secrets
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import Response

from tests.e2e.conftest import demo_questions
from tests.e2e.system import System, poll
from tests.e2e.test_routing import long_text

QUESTION = "What is MyGO Serve?"


def test_a_response(client: openai.OpenAI, system: System) -> None:
    raw = client.responses.with_raw_response.create(model=system.model, input=QUESTION, max_output_tokens=32, temperature=0)
    response = raw.parse()
    assert (raw.headers["x-mygo-cache"], response.object, response.model) == ("miss", "response", system.model)
    assert raw.headers["x-mygo-replica"]
    assert response.output_text
    assert response.status in ("completed", "incomplete")
    assert response.usage
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert response.usage.input_tokens_details.cached_tokens == 0
    chat = client.chat.completions.create(
        model=system.model, messages=[{"role": "user", "content": QUESTION}], max_tokens=32, temperature=0
    )
    assert response.output_text == chat.choices[0].message.content


def test_a_streamed_response_joins_to_the_whole_one(client: openai.OpenAI, system: System) -> None:
    asked: dict[str, Any] = {"model": system.model, "input": "How does streaming work?", "instructions": "Be brief.", "temperature": 0}
    whole = client.responses.create(**asked, extra_headers={"cache-control": "no-cache"})
    for headers, outcome in (({"cache-control": "no-cache"}, "bypass"), ({}, "exact")):  # computed, and replayed
        raw = client.responses.with_raw_response.create(**asked, stream=True, extra_headers=headers)
        assert raw.headers["x-mygo-cache"] == outcome
        check_events(list(raw.parse()), whole)
    again = client.responses.with_raw_response.create(**asked)
    assert (again.headers["x-mygo-cache"], again.parse().output_text) == ("exact", whole.output_text)


def check_events(events: list[Any], whole: Response) -> None:
    assert [event.type for event in events][:2] == ["response.created", "response.in_progress"]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    last = events[-1]
    assert last.type in ("response.completed", "response.incomplete")
    assert (last.response.output_text, last.response.status) == (whole.output_text, whole.status)
    assert last.response.usage
    assert whole.usage
    assert last.response.usage.output_tokens == whole.usage.output_tokens


def test_its_prompt_is_counted_beforehand(client: openai.OpenAI, system: System) -> None:
    asked: dict[str, Any] = {"input": f"How does it go on? {secrets.token_hex(4)}", "instructions": "Be brief."}
    response = client.responses.create(model=system.model, **asked, max_output_tokens=4)
    counted = client.responses.input_tokens.count(**asked)  # the model may be left out
    assert response.usage
    assert (counted.object, counted.input_tokens) == ("response.input_tokens", response.usage.input_tokens)
    with pytest.raises(openai.BadRequestError):
        client.responses.input_tokens.count(input="word " * 100_000)


def test_the_answer_has_the_form_that_was_asked_for(client: openai.OpenAI, system: System) -> None:
    if system.is_simulated:
        pytest.skip("the simulated engine writes words, whatever is asked for")
    schema: dict[str, Any] = {"type": "string", "enum": ["yes", "perhaps"]}  # in an object the demo model writes spaces without end
    response = client.responses.create(
        model=system.model,
        input=QUESTION,
        temperature=0,
        max_output_tokens=64,
        text={"format": {"type": "json_schema", "name": "verdict", "schema": schema, "strict": True}},
    )
    assert json.loads(response.output_text) in schema["enum"]


def test_a_conversation_goes_on_with_its_whole_input(client: openai.OpenAI, system: System) -> None:
    """The first turn's KV is found again by the same tenant, and by nobody else."""
    first = f"Remember {' '.join(secrets.token_hex(4) for _ in range(30))}."
    items: list[Any] = [{"role": "user", "content": first}]
    begun = client.responses.create(model=system.model, input=items, max_output_tokens=8)
    items += [each.model_dump(exclude_none=True) for each in begun.output]
    items += [{"role": "user", "content": "What was it?"}]
    cached = [
        client.responses.create(model=system.model, input=items, max_output_tokens=8, extra_headers=headers).usage
        for headers in ({}, {"x-mygo-tenant": f"another-{secrets.token_hex(4)}"})
    ]
    assert cached[0]
    assert cached[1]
    assert cached[0].input_tokens_details.cached_tokens > 0
    assert cached[1].input_tokens_details.cached_tokens == 0


def test_all_that_the_model_has_said_is_read(client: openai.OpenAI, system: System) -> None:
    """In several parts, in none, or as text: equal prompts have equal lengths."""
    said: dict[str, Any] = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
    parts: list[Any] = [{"type": "output_text", "text": text, "annotations": []} for text in ("It is a tea, ", "brewed at eighty degrees.")]
    lengths = []
    for content in (parts, "It is a tea, brewed at eighty degrees.", []):
        items: Any = [{"role": "user", "content": "Tea?"}, {**said, "content": content}, {"role": "user", "content": "How hot?"}]
        response = client.responses.create(model=system.model, input=items, max_output_tokens=4)
        assert response.usage
        lengths.append(response.usage.input_tokens)
    assert lengths[0] == lengths[1] > lengths[2]


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompts_beginning_is_found_where_it_was_predicted(client: openai.OpenAI, system: System, stream: bool) -> None:
    text = long_text(1500)
    for number in range(4):
        raw = client.responses.with_raw_response.create(
            model=system.model, instructions=text, input=f"What is word {number}?", max_output_tokens=4, stream=stream
        )
        answer: Any = raw.parse()
        usage = list(answer)[-1].response.usage if stream else answer.usage
        assert int(raw.headers["x-mygo-predicted-cached-tokens"]) == usage.input_tokens_details.cached_tokens
        assert (usage.input_tokens_details.cached_tokens > 0) is (number > 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("previous_response_id", "resp_1"),
        ("background", True),
        ("conversation", "conv_1"),
        ("tools", [{"type": "file_search", "vector_store_ids": ["vs_1"]}]),
        ("tools", [{"type": "web_search"}]),
        ("enable_response_messages", True),
    ],
)
def test_what_cannot_be_done_is_refused(client: openai.OpenAI, system: System, field: str, value: Any) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.responses.create(model=system.model, input=QUESTION, extra_body={field: value})
    assert (error.value.param or "").startswith(field)
    assert error.value.code == "unsupported_parameter"


def test_nothing_is_stored(client: openai.OpenAI, system: System) -> None:
    response = client.responses.create(model=system.model, input=QUESTION, max_output_tokens=4, store=True)
    for ask in (client.responses.retrieve, client.responses.delete, client.responses.cancel, client.responses.input_items.list):
        with pytest.raises(openai.NotFoundError) as error:
            ask(response.id)
        assert "not stored" in error.value.message


def test_a_prompt_that_is_too_long_says_so(client: openai.OpenAI, system: System) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.responses.create(model=system.model, input="word " * 9000)
    assert error.value.code == "context_length_exceeded"
    assert error.value.param == "input"


def test_a_client_that_leaves_ends_its_response(system: System, http: httpx.Client) -> None:
    asked = {"model": system.model, "input": "Write for ever.", "max_output_tokens": 4000, "stream": True, "ignore_eos": True}
    with http.stream("POST", "/v1/responses", json=asked) as response:
        chunks = response.iter_bytes()  # a reader that is thrown away closes the stream
        next(chunks)
        poll("the request in the engine", 10, lambda: system.ongoing() == 1)
    poll("the engines are idle", 2, lambda: system.ongoing() == 0)


def test_the_demo_model_answers_its_questions(client: openai.OpenAI, system: System) -> None:
    if system.is_simulated:
        pytest.skip("the simulated engine has no model")
    for each in demo_questions()[:5]:
        assert client.responses.create(model=system.model, input=each["question"], temperature=0).output_text == each["answer"]
