"""What OpenAI's reference says that responses and the events of their streams look like.

The official client's types take a field that may be null for one that may be missing. Here a field is required, or it is optional and has a
value: both are said.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from tests.conformance.shapes import json_body

Check = Callable[[Any, str], None]
"""Raises `AssertionError`, which names the place."""


def of_type(*types: type) -> Check:
    def check(value: Any, at: str) -> None:
        assert isinstance(value, types), f"{at} is {value!r}"
        assert bool in types or not isinstance(value, bool), f"{at} is {value!r}"

    return check


def one_of(*values: str) -> Check:
    def check(value: Any, at: str) -> None:
        assert value in values, f"{at} is {value!r}"

    return check


def nullable(check: Check) -> Check:
    return lambda value, at: None if value is None else check(value, at)


def listed(check: Check) -> Check:
    def every(values: Any, at: str) -> None:
        assert isinstance(values, list), f"{at} is {values!r}"
        for number, value in enumerate(values):
            check(value, f"{at}[{number}]")

    return every


def fields(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """An object. More fields than these may be there."""

    def check(value: Any, at: str) -> None:
        assert isinstance(value, dict), f"{at} is {value!r}"
        assert not (missing := required.keys() - value.keys()), f"{at} lacks {sorted(missing)}"
        for name, each in {**required, **(optional or {})}.items():
            if name in value:
                each(value[name], f"{at}.{name}")

    return check


def by_type(kinds: Mapping[str, Check]) -> Check:
    """One of several kinds of objects that their type tells apart."""

    def check(value: Any, at: str) -> None:
        assert isinstance(value, dict), f"{at} is {value!r}"
        assert value.get("type") in kinds, f"{at}.type is {value.get('type')!r}"
        kinds[value["type"]](value, at)

    return check


def any_of(first: Check, second: Check) -> Check:
    def check(value: Any, at: str) -> None:
        try:
            first(value, at)
        except AssertionError:
            second(value, at)

    return check


TEXT, WHOLE, NUMBER, YES_OR_NO, OBJECT = of_type(str), of_type(int), of_type(int, float), of_type(bool), of_type(dict)
_TOP = fields({"token": TEXT, "logprob": NUMBER})
LOGPROB = fields({"token": TEXT, "logprob": NUMBER, "top_logprobs": listed(_TOP)}, {"bytes": listed(WHOLE)})
PART = by_type(
    {
        "output_text": fields({"text": TEXT, "annotations": listed(OBJECT), "logprobs": listed(LOGPROB)}),
        "refusal": fields({"refusal": TEXT}),
        "reasoning_text": fields({"text": TEXT}),
    }
)
STATUS = one_of("in_progress", "completed", "incomplete")
ITEM = by_type(
    {
        "message": fields({"id": TEXT, "role": one_of("assistant"), "status": STATUS, "content": listed(PART)}, {"phase": TEXT}),
        "function_call": fields({"id": TEXT, "call_id": TEXT, "name": TEXT, "arguments": TEXT, "status": STATUS}, {"namespace": TEXT}),
        "custom_tool_call": fields({"id": TEXT, "call_id": TEXT, "name": TEXT, "input": TEXT}),
        "reasoning": fields(
            {"id": TEXT, "summary": listed(OBJECT)}, {"content": listed(PART), "encrypted_content": TEXT, "status": STATUS}
        ),
    }
)
TOOL = by_type(
    {
        "function": fields(
            {"name": TEXT, "description": nullable(TEXT), "parameters": nullable(OBJECT), "strict": nullable(YES_OR_NO)},
            {"defer_loading": YES_OR_NO},
        ),
        "custom": fields({"name": TEXT}, {"description": TEXT, "format": OBJECT}),
    }
)
TOOL_CHOICE = any_of(one_of("none", "auto", "required"), by_type({"function": fields({"name": TEXT})}))
FORMAT = by_type(
    {
        "text": fields({}),
        "json_object": fields({}),
        "json_schema": fields({"name": TEXT, "schema": OBJECT, "description": nullable(TEXT), "strict": YES_OR_NO}),
    }
)
USAGE = fields(
    {
        "input_tokens": WHOLE,
        "input_tokens_details": fields({"cached_tokens": WHOLE}),
        "output_tokens": WHOLE,
        "output_tokens_details": fields({"reasoning_tokens": WHOLE}),
        "total_tokens": WHOLE,
    }
)
_LEVELS = one_of("none", "minimal", "low", "medium", "high", "xhigh")
RESPONSE_FIELDS: dict[str, Check] = {
    "id": TEXT,
    "object": one_of("response"),
    "created_at": WHOLE,
    "completed_at": nullable(WHOLE),
    "status": one_of("completed", "failed", "in_progress", "cancelled", "queued", "incomplete"),
    "incomplete_details": nullable(fields({"reason": one_of("max_output_tokens", "content_filter")})),
    "model": TEXT,
    "previous_response_id": nullable(TEXT),
    "instructions": nullable(TEXT),
    "output": listed(ITEM),
    "error": nullable(fields({"code": TEXT, "message": TEXT})),
    "tools": listed(TOOL),
    "tool_choice": TOOL_CHOICE,
    "truncation": one_of("auto", "disabled"),
    "parallel_tool_calls": YES_OR_NO,
    "text": fields({"format": FORMAT}, {"verbosity": one_of("low", "medium", "high")}),
    "top_p": NUMBER,
    "presence_penalty": NUMBER,
    "frequency_penalty": NUMBER,
    "top_logprobs": WHOLE,
    "temperature": NUMBER,
    "reasoning": nullable(fields({"effort": nullable(_LEVELS), "summary": nullable(one_of("auto", "concise", "detailed"))})),
    "user": nullable(TEXT),
    "usage": nullable(USAGE),
    "max_output_tokens": nullable(WHOLE),
    "max_tool_calls": nullable(WHOLE),
    "store": YES_OR_NO,
    "background": YES_OR_NO,
    "service_tier": one_of("auto", "default", "flex", "scale", "priority"),
    "metadata": OBJECT,
    "safety_identifier": nullable(TEXT),
    "prompt_cache_key": nullable(TEXT),
}
RESPONSE = fields(RESPONSE_FIELDS)

_PLACE: dict[str, Check] = {"item_id": TEXT, "output_index": WHOLE}
_WITHIN: dict[str, Check] = {**_PLACE, "content_index": WHOLE}
_EVENTS: dict[str, dict[str, Check]] = {
    "response.created": {"response": RESPONSE},
    "response.in_progress": {"response": RESPONSE},
    "response.completed": {"response": RESPONSE},
    "response.incomplete": {"response": RESPONSE},
    "response.output_item.added": {"output_index": WHOLE, "item": ITEM},
    "response.output_item.done": {"output_index": WHOLE, "item": ITEM},
    "response.content_part.added": {**_WITHIN, "part": PART},
    "response.content_part.done": {**_WITHIN, "part": PART},
    "response.output_text.delta": {**_WITHIN, "delta": TEXT, "logprobs": listed(LOGPROB)},
    "response.output_text.done": {**_WITHIN, "text": TEXT, "logprobs": listed(LOGPROB)},
    "response.reasoning_text.delta": {**_WITHIN, "delta": TEXT},
    "response.reasoning_text.done": {**_WITHIN, "text": TEXT},
    "response.function_call_arguments.delta": {**_PLACE, "delta": TEXT},
    "response.function_call_arguments.done": {**_PLACE, "arguments": TEXT},
    "response.custom_tool_call_input.delta": {**_PLACE, "delta": TEXT},
    "response.custom_tool_call_input.done": {**_PLACE, "input": TEXT},
}
EVENT = by_type({name: fields({"sequence_number": WHOLE, **required}) for name, required in _EVENTS.items()})
ENDS = {"completed": "response.completed", "incomplete": "response.incomplete"}
_SAID = {"output_text": "text", "reasoning_text": "text", "function_call_arguments": "arguments", "custom_tool_call_input": "input"}


def response_answer(answer: httpx.Response) -> dict[str, Any]:
    body = json_body(answer)
    check_ended(body)
    return body


def check_ended(body: dict[str, Any]) -> None:
    """Of a response that is over: its shape, and what its fields have to do with each other."""
    RESPONSE(body, "response")
    assert body["status"] in ENDS
    assert body["output"]
    assert (body["incomplete_details"] is None) == (body["status"] == "completed")
    assert (body["completed_at"] is None) == (body["status"] != "completed")
    assert body["completed_at"] is None or body["completed_at"] >= body["created_at"]
    assert body["usage"]["total_tokens"] == body["usage"]["input_tokens"] + body["usage"]["output_tokens"]
    assert 0 <= body["usage"]["input_tokens_details"]["cached_tokens"] <= body["usage"]["input_tokens"]


def text_of(body: dict[str, Any]) -> str:
    parts = [part for item in body["output"] if item["type"] == "message" for part in item["content"]]
    return "".join(part["text"] for part in parts if part["type"] == "output_text")


def named_events(answer: httpx.Response) -> list[dict[str, Any]]:
    """Events that have their type for a name, one line of data each; no other line."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("\n\n")
    values = []
    for each in answer.text.removesuffix("\n\n").split("\n\n"):
        name, data = each.split("\n")
        value = json.loads(data.removeprefix("data: "))
        assert name == f"event: {value['type']}"
        values.append(value)
    return values


def response_events(answer: httpx.Response) -> list[dict[str, Any]]:
    """A stream's events, each in its shape, and in an order that tells one story."""
    events = named_events(answer)
    for number, event in enumerate(events):
        EVENT(event, f"event {number}, {event['type']}")
        assert event["sequence_number"] == number
    first, second, *between, last = events
    assert [first["type"], second["type"]] == ["response.created", "response.in_progress"]
    for begun in (first["response"], second["response"]):
        assert (begun["status"], begun["output"], begun["usage"], begun["completed_at"]) == ("in_progress", [], None, None)
        assert begun["id"] == last["response"]["id"]
        assert begun["created_at"] == last["response"]["created_at"]
    check_ended(last["response"])
    assert last["type"] == ENDS[last["response"]["status"]]
    assert not [event["type"] for event in between if "response" in event]
    _check_items(between, last["response"]["output"])
    return events


def _check_items(events: list[dict[str, Any]], output: list[dict[str, Any]]) -> None:
    """Each item is added, said in pieces that join, done, and then in the response as it was done."""
    for index, item in enumerate(output):
        own = [event for event in events if event["output_index"] == index]
        added, *said, done = own
        assert (added["type"], done["type"]) == ("response.output_item.added", "response.output_item.done")
        assert added["item"]["id"] == item["id"]
        assert done["item"] == item
        assert {event["item_id"] for event in said} <= {item["id"]}
        for name, key in _SAID.items():
            pieces = [event["delta"] for event in said if event["type"] == f"response.{name}.delta"]
            wholes = [event[key] for event in said if event["type"] == f"response.{name}.done"]
            assert "".join(pieces) == "".join(wholes)
    assert {event["output_index"] for event in events} == set(range(len(output)))
