"""Answers of the HTTP API as bytes, in vLLM's form.

What is constant in the chunks of a stream is encoded once; a token then costs one small JSON string.
"""

import time
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from deployments.engines.simulated.generation import Choice, Generation

DONE: Final = b"data: [DONE]\n\n"
encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class Dialect:
    """Where chat and text completions differ."""

    id_prefix: str
    object: str
    chunk_object: str
    delta: bytes
    """What stands before a piece of text in a streamed choice."""
    delta_end: bytes
    has_role: bool


CHAT: Final = Dialect("chatcmpl-", "chat.completion", "chat.completion.chunk", b'"delta":{"content":', b"}", True)
COMPLETION: Final = Dialect("cmpl-", "text_completion", "text_completion", b'"text":', b"", False)


@dataclass(slots=True)
class Encoder:
    """The answer to one request."""

    dialect: Dialect
    generation: Generation
    request_id: str
    model: str
    include_usage: bool = False
    created: int = field(default_factory=lambda: int(time.time()))
    _heads: list[bytes] = field(init=False)
    _tail: bytes = field(init=False)
    _positions: list[int] = field(init=False)

    def __post_init__(self) -> None:
        head = b"data: " + encode(self._base(self.dialect.chunk_object))[:-1] + b',"choices":[{"index":%d,'
        self._heads = [head % choice.index for choice in self.generation.choices]
        self._tail = b'],"usage":null}\n\n' if self.include_usage else b"]}\n\n"
        self._positions = [0] * len(self._heads)

    def roles(self) -> bytes:
        """The first events of a chat stream; nothing for a text completion."""
        if not self.dialect.has_role:
            return b""
        delta = b'"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}'
        return b"".join(head + delta + self._tail for head in self._heads)

    def chunks(self, indices: list[int]) -> bytes:
        """Events for the next token of each of these choices."""
        return b"".join([self._chunk(self.generation.choices[index]) for index in indices])

    def closing(self) -> bytes:
        """The last events of a stream."""
        if not self.include_usage:
            return DONE
        body = {**self._base(self.dialect.chunk_object), "choices": [], "usage": self._usage()}
        return b"data: " + encode(body) + b"\n\n" + DONE

    def failed(self, body: dict[str, Any]) -> bytes:
        """An error in the middle of a stream, and its end."""
        return b"data: " + encode(body) + b"\n\n" + DONE

    def full(self) -> bytes:
        """The whole answer as one JSON object."""
        choices = [self._full_choice(choice) for choice in self.generation.choices]
        return encode({**self._base(self.dialect.object), "choices": choices, "usage": self._usage()})

    def _base(self, name: str) -> dict[str, Any]:
        return {"id": self.dialect.id_prefix + self.request_id, "object": name, "created": self.created, "model": self.model}

    def _chunk(self, choice: Choice) -> bytes:
        position = self._positions[choice.index]
        self._positions[choice.index] = position + 1
        end = _OPEN_END if position + 1 < choice.answer_tokens else _end(choice)
        piece = encode(choice.answer.pieces[position])
        return self._heads[choice.index] + self.dialect.delta + piece + self.dialect.delta_end + end + self._tail

    def _full_choice(self, choice: Choice) -> dict[str, Any]:
        text = "".join(choice.answer.pieces)
        says: dict[str, Any] = (
            {"message": {"role": "assistant", "content": text, "refusal": None}} if self.dialect.has_role else {"text": text}
        )
        reasons = {"finish_reason": choice.answer.finish_reason, "stop_reason": choice.answer.stop_reason}
        return {"index": choice.index, **says, "logprobs": None, **reasons}

    def _usage(self) -> dict[str, Any]:
        prompt, completion = self.generation.prompt_tokens, self.generation.completion_tokens
        return {
            "prompt_tokens": prompt,
            "total_tokens": prompt + completion,
            "completion_tokens": completion,
            "prompt_tokens_details": {"cached_tokens": self.generation.cached_tokens},
        }


_OPEN_END: Final = b',"logprobs":null,"finish_reason":null}'


def _end(choice: Choice) -> bytes:
    reasons = {"logprobs": None, "finish_reason": choice.answer.finish_reason, "stop_reason": choice.answer.stop_reason}
    return b"," + encode(reasons)[1:]
