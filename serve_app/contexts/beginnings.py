"""What marks are about: the beginnings of prompts, and their names."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from serve_app.contexts.asked import Mark
from serve_app.openai.kinds import type_of
from serve_app.openai.requests import Generation

BEHIND = {"role": "user", "content": "."}
"""What may follow a beginning: where its tokens end is seen by what changes."""
NOT_IN_PROMPTS = frozenset(
    {
        "cache", "priority", "request_id", "store", "stream", "stream_options",
        "metadata", "prompt_cache_key", "safety_identifier", "service_tier", "user",
        "frequency_penalty", "min_p", "presence_penalty", "repetition_penalty", "seed", "temperature", "top_k", "top_p",
        "ignore_eos", "max_completion_tokens", "max_tokens", "min_tokens", "n", "stop", "stop_sequences", "stop_token_ids",
        "logit_bias", "logprobs", "top_logprobs",
    }
)  # fmt: skip
"""Fields that no engine puts into a prompt, and that may differ where beginnings are equal. All others are part of a name, also those that
are not known here: a template may use them.
"""
_TEXTS = frozenset({"input_text", "output_text", "redacted_thinking", "refusal", "text", "thinking", "tool_result", "tool_use"})


def client_body(request: Generation) -> dict[str, Any]:
    """As the client wrote it, without documents that were found for it."""
    return {**request.body, "messages": request.retrieved.messages} if request.retrieved else request.body


def named(request: Generation, namespace: str) -> tuple[Mark, ...]:
    """Its marks, with names. Documents must have been found for it, if they are to be: they decide whose KV it is."""
    body = client_body(request)
    salted = request.retrieved.scope if request.retrieved else namespace
    common = [namespace, salted, request.kind, body if "truncate_prompt_tokens" in body else None]  # cut off by what it has at its end
    rest = {field: body[field] for field in sorted(body.keys() - NOT_IN_PROMPTS)}
    return tuple(_named(mark, mark.beginning(body, BEHIND), common, rest) for mark in request.marks)


def _named(mark: Mark, beginning: dict[str, Any], common: list[Any], rest: dict[str, Any]) -> Mark:
    name = hashlib.sha256(msgspec.json.encode([common, {**rest, **beginning}])).digest()
    return replace(mark, name=name, has_media=has_media(beginning["messages"], beginning.get("system")))


def has_media(messages: Sequence[Mapping[str, Any]], system: Any = None) -> bool:
    """Whether there is more than text in messages or a system prompt: then tokens alone do not tell which KV it is."""
    return _is_more_than_text(system) or any(_is_more_than_text(message.get("content")) for message in messages)


def _is_more_than_text(content: Any) -> bool:
    if isinstance(content, list):
        return any(map(_is_more_than_text, content))
    if not isinstance(content, dict):
        return False
    is_text = type_of(content) in _TEXTS or content.keys() == {"text"}  # whatever else it has, such as a role of its own
    return not is_text or _is_more_than_text(content.get("content"))
