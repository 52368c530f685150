"""Anthropic's messages, as vLLM serves them: `/v1/messages` and `/v1/messages/count_tokens`. One text block, no tools are called."""

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from deployments.engines.simulated import tokenizer
from deployments.engines.simulated.generation import Generation
from deployments.engines.simulated.protocol import NonEmpty, Positive, Sampling

_encode = msgspec.json.encode
_STOPPED: Final = {"length": "max_tokens", "stop": "end_turn"}


class Block(msgspec.Struct):
    """A part of a turn, as far as the prompt has its text."""

    type: Literal["text", "tool_use", "tool_result", "thinking", "redacted_thinking"]
    text: str = ""
    thinking: str = ""
    input: dict[str, Any] | None = None
    content: "str | list[Block] | None" = None

    def said(self) -> str:
        if self.input is not None:
            return _encode(self.input, order="deterministic").decode()
        return self.text + self.thinking + said(self.content or "")


class Turn(msgspec.Struct):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class CountRequest(msgspec.Struct, kw_only=True):
    """`POST /v1/messages/count_tokens`."""

    messages: Annotated[list[Turn], Meta(min_length=1)]
    model: str | None = None
    system: str | list[Block] | None = None
    tools: list[dict[str, Any]] | None = None

    def tokens(self) -> list[int]:
        return rendered(self.tools, self.system, self.messages)


class MessagesRequest(Sampling, kw_only=True):
    """`POST /v1/messages`."""

    messages: Annotated[list[Turn], Meta(min_length=1)]
    max_tokens: Positive
    system: str | list[Block] | None = None
    tools: list[dict[str, Any]] | None = None
    stop_sequences: Annotated[list[NonEmpty], Meta(max_length=64)] | None = None

    def __post_init__(self) -> None:
        self.stop = self.stop_sequences

    def prompt_tokens(self) -> list[list[int]]:
        return [rendered(self.tools, self.system, self.messages)]


def rendered(tools: list[dict[str, Any]] | None, system: str | list[Block] | None, turns: list[Turn]) -> list[int]:
    """The prompt of the chat that says the same."""
    described = [("tools", _encode(tools, order="deterministic").decode())] if tools else []
    instructed = [("system", said(system))] if system else []
    return tokenizer.render(described + instructed + [(turn.role, said(turn.content)) for turn in turns])


def said(content: str | list[Block]) -> str:
    return content if isinstance(content, str) else "\n".join(block.said() for block in content)


@dataclass(slots=True)
class MessageEncoder:
    """The answer to one request."""

    generation: Generation
    request_id: str
    model: str
    _position: int = 0

    def roles(self) -> bytes:
        """What stands before the text."""
        start = {**self._message(), "content": [], "usage": self._usage(0)}
        block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        return _event({"type": "message_start", "message": start}) + _event(block)

    def chunks(self, indices: list[int]) -> bytes:
        """Events for so many tokens."""
        pieces = self.generation.choices[0].answer.pieces[self._position : self._position + len(indices)]
        self._position += len(indices)
        return b"".join(
            _event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}) for piece in pieces
        )

    def closing(self) -> bytes:
        delta = {"type": "message_delta", "delta": self._stopped(), "usage": self._usage(self.generation.completion_tokens)}
        return _event({"type": "content_block_stop", "index": 0}) + _event(delta) + _event({"type": "message_stop"})

    def failed(self, body: dict[str, Any]) -> bytes:
        """An error in the middle of a stream."""
        return _event({"type": "error", "error": {"type": "internal_error", "message": body["error"]["message"]}})

    def full(self) -> bytes:
        text = "".join(self.generation.choices[0].answer.pieces)
        usage = self._usage(self.generation.completion_tokens)
        whole = {**self._message(), **self._stopped(), "content": [{"type": "text", "text": text}], "usage": usage}
        return _encode({key: value for key, value in whole.items() if value is not None})  # vLLM leaves nulls out

    def _message(self) -> dict[str, Any]:
        head = {"id": f"msg_{self.request_id}", "type": "message", "role": "assistant", "model": self.model}
        return {**head, "stop_reason": None, "stop_sequence": None}

    def _stopped(self) -> dict[str, Any]:
        answer = self.generation.choices[0].answer
        if answer.stop_reason is not None:
            return {"stop_reason": "stop_sequence", "stop_sequence": answer.stop_reason}
        return {"stop_reason": _STOPPED[answer.finish_reason], "stop_sequence": None}

    def _usage(self, output: int) -> dict[str, int]:
        cached = self.generation.cached_tokens
        return {"input_tokens": self.generation.prompt_tokens - cached, "output_tokens": output, "cache_read_input_tokens": cached}


def _event(value: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (value["type"].encode(), _encode(value))
