"""Requests for `/v1/responses`, checked.

vLLM keeps responses in one replica's memory, where the next request may not come and where tenants are not told apart. So nothing is
stored here: what would need it is refused, with what to do instead.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from serve_app.errors import InvalidRequestError
from serve_app.openai.kinds import type_of
from serve_app.openai.requests import CacheOptions, Count, Generation, Penalty, check, parse_object

INSTEAD: Final = "Responses are not stored here. Send the whole conversation in input, with the output of earlier responses."
_NEEDS_STORE: Final = ("previous_response_id", "conversation", "prompt")
_ENGINES_OWN: Final = ("previous_input_messages", "enable_response_messages")
"""vLLM's, past what is checked here."""
_TO_GO_ON: Final = ("in_progress", "incomplete")
"""A message with this status is one that the model is to finish."""
TOOLS: Final = frozenset({"function", "custom", "namespace"})
"""Tools that the client carries out. An engine would leave others out without a word."""


class ResponseRequest(msgspec.Struct, kw_only=True):
    """What of it the ingress needs, or must refuse."""

    model: str = ""
    """OpenAI's may be left out, too."""
    input: str | Annotated[list[dict[str, Any]], Meta(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Count | None = None
    stream: bool | None = None
    store: bool | None = None
    background: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    tools: list[dict[str, Any]] | None = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    include: list[str] | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority"] | None = None
    priority: Annotated[int, Meta(ge=-1000, le=1000)] | None = None
    cache_salt: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    cache: CacheOptions | None = None


def parse_response(body: bytes) -> Generation:
    """Raises `InvalidRequestError`."""
    value = {key: each for key, each in parse_object(body).items() if each is not None}
    for field in (*_NEEDS_STORE, *_ENGINES_OWN):
        if value.get(field):
            message = f"{field}: {INSTEAD}" if field in _NEEDS_STORE else "This field is not accepted here."
            raise InvalidRequestError(message, param=field, code="unsupported_parameter")
    if value.get("retrieval"):
        raise InvalidRequestError("retrieval is for chat completions.", param="retrieval", code="unsupported_parameter")
    request = check(value, ResponseRequest)
    if request.background:
        message = "background: responses are computed while the client waits. Leave it out, and stream the response if that takes long."
        raise InvalidRequestError(message, param="background", code="unsupported_parameter")
    _refuse_references(request.input)
    _refuse_hosted(request.tools or ())
    return Generation(
        kind="response",
        body={**value, "input": _without_parts(request.input), "store": False},
        model=request.model,
        stream=bool(request.stream),
        include_usage=True,
        cache=request.cache or CacheOptions(),
        retrieval=None,
        max_tokens=request.max_output_tokens,
        priority=request.priority or 0,
    )


def _without_parts(items: str | Sequence[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """What the model has said is given back in parts, of which vLLM reads the first only, and fails where there is none."""
    return items if isinstance(items, str) else [_joined(item) for item in items]


def _joined(item: dict[str, Any]) -> dict[str, Any]:
    parts = item.get("content")
    if item.get("role") == "assistant" and isinstance(parts, str) and item.get("status") not in _TO_GO_ON:
        return {"type": "message", "role": "assistant", "content": parts}  # with an id vLLM takes no plain text
    if item.get("role") != "assistant" or not isinstance(parts, list) or (parts and item.get("status") in _TO_GO_ON):
        return item
    texts = [part.get("text", part.get("refusal")) if isinstance(part, dict) else None for part in parts]
    said = [text for text in texts if isinstance(text, str)]
    return {"type": "message", "role": "assistant", "content": "".join(said)} if len(said) == len(parts) else item


def _refuse_references(items: str | Sequence[dict[str, Any]]) -> None:
    """To items of responses that were stored."""
    for at, item in enumerate(() if isinstance(items, str) else items):
        if item.get("type") == "item_reference":
            raise InvalidRequestError(f"input[{at}]: {INSTEAD}", param=f"input[{at}]", code="unsupported_parameter")


def _refuse_hosted(tools: Sequence[dict[str, Any]]) -> None:
    """Tools that a server would have to carry out."""
    for at, tool in enumerate(tools):
        if type_of(tool) in TOOLS:
            continue
        where = f"tools[{at}].type"
        if tool.get("type") == "file_search":
            message = 'documents are for chats here: POST /v1/chat/completions with "retrieval": {"vector_store_ids": ["vs_..."]}.'
        else:
            message = f"only tools that the client carries out itself are accepted: {', '.join(sorted(TOOLS))}."
        raise InvalidRequestError(f"{where}: {message}", param=where, code="unsupported_parameter")
