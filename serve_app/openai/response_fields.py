"""What OpenAI's reference requires of a response and of its stream's events, and vLLM leaves out.

vLLM lacks some fields of a response, and writes a null for whatever was not asked for, also where the reference has a number, a list or an
object, or no field at all.
"""

import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from serve_app.openai.completing import Completing

OF_REQUEST: Final = frozenset({"metadata", "user", "safety_identifier", "prompt_cache_key", "service_tier"})
"""Fields that a response repeats from its request, and that say nothing of the answer: equal answers may differ in them."""
_NEVER: Final[Mapping[str, Any]] = {
    "object": "response",
    "error": None,
    "incomplete_details": None,
    "previous_response_id": None,
    "background": False,
    "usage": None,
}
_USUAL: Final[Mapping[str, Any]] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "reasoning": None,
    "temperature": 1.0,
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_logprobs": 0,
    "text": {},
    "tools": [],
    "tool_choice": "auto",
    "truncation": "disabled",
}
"""Where neither the engine nor the request says another."""
_ENGINES: Final = ("kv_transfer_params", "ec_transfer_params", "input_messages", "output_messages")
"""vLLM's own: left out where they are null."""
_ENDS: Final = {"incomplete": "response.incomplete", "failed": "response.failed"}
_TO_COMPLETE: Final = re.compile(
    rb"^event: response\.(?:created|queued|in_progress|completed|incomplete|failed|output_item|content_part)\b", re.MULTILINE
)


def complete(response: Mapping[str, Any], asked: Mapping[str, Any], now: int) -> dict[str, Any]:
    """`response` with every field that the reference requires. `asked`: the request's body, without nulls; `now`: seconds since the epoch.

    What belongs to the request is `asked`'s, whatever `response` says: that may have been the answer to an equal request.
    """
    whole = {key: value for key, value in response.items() if value is not None or key not in _ENGINES}
    for key, value in _NEVER.items():
        if whole.get(key) is None:
            whole[key] = value
    for key, value in _USUAL.items():
        if whole.get(key) is None:
            whole[key] = asked.get(key, value)
    whole["text"] = _text(whole["text"])
    whole["tools"] = _each(whole["tools"], _tool)
    if isinstance(whole["reasoning"], dict):
        whole["reasoning"] = {"effort": None, "summary": None, **_said(whole["reasoning"])}
    if isinstance(whole.get("output"), list):
        whole["output"] = _each(whole["output"], _item)
    begun = whole.get("created_at")
    ended = max(now, begun) if isinstance(begun, int) else now  # the engine's clock may be ahead
    return {**whole, **_of_request(asked), "completed_at": ended if whole.get("status") == "completed" else None}


def ending(response: Mapping[str, Any]) -> str:
    """The type of the stream's last event."""
    return _ENDS.get(str(response.get("status")), "response.completed")


def _of_request(asked: Mapping[str, Any]) -> dict[str, Any]:
    fields = {key: asked.get(key) for key in OF_REQUEST}
    return {**fields, "metadata": asked.get("metadata", {}), "service_tier": asked.get("service_tier", "auto"), "store": False}


def _said(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: each for key, each in value.items() if each is not None}


def _each(values: Any, change: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Any:
    """What is no list of objects is no form that is known here, and stays as it is."""
    return [change(value) if isinstance(value, dict) else value for value in values] if isinstance(values, list) else values


def _text(text: Any) -> Any:
    if not isinstance(text, dict):
        return text
    said = _said(text)
    form = said.get("format", {"type": "text"})
    if isinstance(form, dict):
        form = _said(form)
        said["format"] = {"description": None, "strict": False, **form} if form.get("type") == "json_schema" else form
    return said


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    said = _said(tool)
    return {"description": None, "parameters": None, "strict": None, **said} if said.get("type") == "function" else said


def _item(item: Mapping[str, Any]) -> dict[str, Any]:
    said = _said(item)
    if "content" in said:
        said["content"] = _each(said["content"], _part)
    return said


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    said = _said(part)
    return {"annotations": [], "logprobs": [], **said} if said.get("type") == "output_text" else said


class CompletingResponse(Completing):
    """One response. `asked`, `clock`: see `complete`."""

    def __init__(self, asked: Mapping[str, Any], clock: Callable[[], float] = time.time) -> None:
        super().__init__(_TO_COMPLETE)
        self._asked = asked
        self._clock = clock

    def _answer(self, answer: dict[str, Any]) -> dict[str, Any] | None:
        return self._complete(answer) if answer.get("object") == "response" else None

    def _value(self, value: dict[str, Any]) -> dict[str, Any] | None:
        response, item, part = value.get("response"), value.get("item"), value.get("part")
        if isinstance(response, dict):
            kind = ending(response) if value.get("type") == "response.completed" else value.get("type")
            return {**value, "type": kind, "response": self._complete(response)}
        if isinstance(item, dict):
            return {**value, "item": _item(item)}
        return {**value, "part": _part(part)} if isinstance(part, dict) else None

    def _complete(self, response: Mapping[str, Any]) -> dict[str, Any]:
        return complete(response, self._asked, int(self._clock()))
