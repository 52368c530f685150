"""What of a request decides its answer: the exact key, and what a semantic hit must have in common."""

from dataclasses import dataclass
from typing import Any

import msgspec

from cache.policy import Dialogue
from serve_app.errors import InvalidRequestError
from serve_app.openai.kinds import WITH_CHOICES
from serve_app.openai.requests import Generation
from serve_app.openai.response_fields import OF_REQUEST

_NOT_THE_ANSWER = frozenset(
    {
        "stream",
        "stream_options",
        "cache",
        "retrieval",
        "user",
        "metadata",
        "store",
        "priority",
        "request_id",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
    }
)
"""Fields that never change what is answered. Every other one is part of the key, also those not known here."""

_OF_THE_WAY = frozenset({"stream", "stream_options", "cache", "priority", "request_id", "store", *OF_REQUEST})
"""Those of a response or a message. Responses repeat all others, and objects in turns reach the prompt as they are written."""

_ORDERED = frozenset({"response_format", "structured_outputs", "tools", "functions", "documents", "chat_template_kwargs"})
"""Fields that reach the prompt or the grammar as they are written: the order of their members counts."""

_TIED_TO_WORDING = ("logprobs", "top_logprobs")
_NOT_KEPT = ("return_token_ids", "return_tokens_as_token_ids", "prompt_logprobs")
"""Fields that ask for what a kept answer does not hold."""


def key_material(request: Generation) -> dict[str, Any]:
    """The fields that decide the answer. A retrieval request must carry its documents in `messages` by now."""
    if request.kind not in WITH_CHOICES:
        return {key: msgspec.json.encode(value).decode() for key, value in request.body.items() if key not in _OF_THE_WAY}
    material = {key: value for key, value in request.body.items() if key not in _NOT_THE_ANSWER}
    ordered = {key: msgspec.json.encode(material[key]).decode() for key in _ORDERED & material.keys()}
    if request.retrieval and not request.retrieval.reorder:  # else it could be given an answer of documents in another order
        material["mygo_reorder"] = False
    return material | ordered


def is_cacheable(request: Generation) -> bool:
    """Whether a kept answer could be replayed with everything that this request asks for."""
    return not any(request.body.get(field) for field in _NOT_KEPT)


@dataclass(frozen=True, slots=True)
class Question:
    """A request seen by the semantic tier: `text` may differ in wording, `rest` must be equal."""

    text: str
    rest: dict[str, Any]


def question_of(request: Generation, max_chars: int, dialogue: Dialogue = "last_turn") -> Question | None:
    """None when the request is not eligible: an answer to another wording would not be an answer to it."""
    if request.kind != "chat" or request.retrieval or request.body.get("n", 1) != 1:
        return None
    if not is_cacheable(request) or any(request.body.get(field) for field in _TIED_TO_WORDING):
        return None
    *history, last = request.body["messages"]
    text = last.get("content")
    if last["role"] != "user" or not isinstance(text, str) or not text.strip() or len(text) > max_chars:
        return None
    unworded = {key: value for key, value in last.items() if key != "content"}
    if dialogue == "summary" and (summed := _summary(history, text, max_chars)):
        summary, instructions, turns = summed
        return Question(summary, {**key_material(request), "messages": [*instructions, unworded], "mygo_turns": turns})
    return Question(text, {**key_material(request), "messages": [*history, unworded]})


def _summary(history: list[dict[str, Any]], last: str, max_chars: int) -> tuple[str, list[dict[str, Any]], int] | None:
    """What the user said in all turns, the instructions, and the number of turns. What the model said follows from these.

    None where there is no history, or more in it than instructions and plain texts, or too much: then it is compared as it is.
    """
    turns = [message for message in history if message["role"] in ("user", "assistant")]
    instructions = [message for message in history if message["role"] in ("system", "developer")]
    is_plain = all(message.keys() == {"role", "content"} and isinstance(message["content"], str) for message in turns)
    said = [str(message["content"]).strip() for message in turns if message["role"] == "user"]
    text = "\n".join([*said, last])
    if not said or not is_plain or len(turns) + len(instructions) < len(history) or len(text) > max_chars:
        return None
    return text, instructions, len(turns)


def last_question(messages: list[dict[str, Any]]) -> str:
    """The text of the last user message, which is what documents are searched for. Raises `InvalidRequestError`."""
    content = next((message.get("content") for message in reversed(messages) if message["role"] == "user"), None)
    if isinstance(content, list):
        content = "\n".join(part["text"] for part in content if part.get("type") == "text" and isinstance(part.get("text"), str))
    if not content or not content.strip():
        raise InvalidRequestError("Retrieval needs a user message with text.", param="messages", code="invalid_value")
    return str(content)
