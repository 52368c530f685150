"""OpenAI's responses, as vLLM serves them: `/v1/responses`. One message, no tools are called, nothing is stored."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from deployments.engines.simulated import tokenizer
from deployments.engines.simulated.generation import Generation
from deployments.engines.simulated.protocol import Positive, Sampling

_encode = msgspec.json.encode
_TOOL = {"description": None, "parameters": None, "strict": None, "defer_loading": None}
"""What vLLM says of a tool of which the request does not."""


class InputPart(msgspec.Struct):
    type: Literal["input_text", "output_text", "refusal", "reasoning_text", "summary_text"]
    text: str = ""
    refusal: str = ""


class Item(msgspec.Struct):
    """A message, a tool's call or output, or what was thought."""

    type: Literal["message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output", "reasoning"] = (
        "message"
    )
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[InputPart] | None = None
    arguments: str = ""
    input: str = ""
    output: str | list[InputPart] = ""

    def turn(self) -> tuple[str, str]:
        """Who says it, and what the prompt has of it."""
        role = "tool" if self.type.endswith("_output") else self.role or ("user" if self.type == "message" else "assistant")
        return role, _said(self.content or "") + self.arguments + self.input + _said(self.output)


class ResponsesRequest(Sampling, kw_only=True):
    """`POST /v1/responses`."""

    input: str | Annotated[list[Item], Meta(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Positive | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = None
    reasoning: dict[str, Any] | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority"] = "auto"
    truncation: Literal["auto", "disabled"] | None = "disabled"
    user: str | None = None

    @property
    def length(self) -> tuple[str, int | None]:
        return "max_output_tokens", self.max_output_tokens

    def prompt_tokens(self) -> list[list[int]]:
        described = [("tools", _encode(self.tools, order="deterministic").decode())] if self.tools else []
        instructed = [("system", self.instructions)] if self.instructions else []
        asked = [("user", self.input)] if isinstance(self.input, str) else [item.turn() for item in self.input]
        return [tokenizer.render(described + instructed + asked)]


def _said(content: str | list[InputPart]) -> str:
    return content if isinstance(content, str) else "\n".join(part.text or part.refusal for part in content)


@dataclass(slots=True)
class ResponseEncoder:
    """The answer to one request."""

    request: ResponsesRequest
    generation: Generation
    request_id: str
    model: str
    created: int = field(default_factory=lambda: int(time.time()))
    _position: int = 0
    _number: int = 0

    def roles(self) -> bytes:
        """What stands before the text."""
        begun = {**self._response(), "status": "in_progress", "output": []}
        item = {**self._item(), "status": "in_progress", "content": []}
        return b"".join(
            [
                self._event("response.created", response=begun),
                self._event("response.in_progress", response=begun),
                self._event("response.output_item.added", output_index=0, item=item),
                self._event("response.content_part.added", **self._place(), part={**_part(""), "logprobs": []}),
            ]
        )

    def chunks(self, indices: list[int]) -> bytes:
        """Events for so many tokens."""
        pieces = self.generation.choices[0].answer.pieces[self._position : self._position + len(indices)]
        self._position += len(indices)
        return b"".join(self._event("response.output_text.delta", **self._place(), delta=piece, logprobs=[]) for piece in pieces)

    def closing(self) -> bytes:
        return b"".join(self._closing())

    def _closing(self) -> Iterator[bytes]:
        text = self._text
        yield self._event("response.output_text.done", **self._place(), text=text, logprobs=[])
        yield self._event("response.content_part.done", **self._place(), part=_part(text))
        yield self._event("response.output_item.done", output_index=0, item=self._item())
        yield self._event("response.completed", response=self._whole())  # as vLLM ends it, whatever the status

    def failed(self, body: dict[str, Any]) -> bytes:
        """An error in the middle of a stream."""
        return self._event("error", code="server_error", message=body["error"]["message"], param=None)

    def full(self) -> bytes:
        return _encode(self._whole())

    @property
    def _text(self) -> str:
        return "".join(self.generation.choices[0].answer.pieces)

    def _event(self, name: str, **fields: Any) -> bytes:
        value = {"type": name, "sequence_number": self._number, **fields}
        self._number += 1
        return b"event: %s\ndata: %s\n\n" % (name.encode(), _encode(value))

    def _place(self) -> dict[str, Any]:
        return {"item_id": f"msg_{self.request_id}", "output_index": 0, "content_index": 0}

    def _item(self) -> dict[str, Any]:
        head = {"id": f"msg_{self.request_id}", "type": "message", "role": "assistant", "status": "completed", "phase": None}
        return {**head, "content": [_part(self._text)]}

    def _whole(self) -> dict[str, Any]:
        prompt, answer, cached = self.generation.prompt_tokens, self.generation.completion_tokens, self.generation.cached_tokens
        is_cut = self.generation.choices[0].answer.finish_reason == "length"
        return {
            **self._response(),
            "status": "incomplete" if is_cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "output": [self._item()],
            "usage": {
                "input_tokens": prompt,
                "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
                "output_tokens": answer,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": prompt + answer,
            },
        }

    def _response(self) -> dict[str, Any]:
        """What the response has in common with what is told of it beforehand: the request's own fields, as far as vLLM repeats them.

        It has fewer than OpenAI's reference requires, and a null for each that was not asked for.
        """
        asked = self.request
        (_, limits), *_ = self.generation.task.prompts
        return {
            "id": f"resp_{self.request_id}",
            "object": "response",
            "created_at": self.created,
            "model": self.model,
            "incomplete_details": None,
            "instructions": asked.instructions,
            "background": False,
            "max_output_tokens": limits.max_tokens,
            "max_tool_calls": asked.max_tool_calls,
            "previous_response_id": None,
            "prompt": None,
            "reasoning": asked.reasoning,
            "service_tier": asked.service_tier,
            "top_logprobs": None,
            "truncation": asked.truncation,
            "user": asked.user,
            "presence_penalty": asked.presence_penalty or 0.0,
            "frequency_penalty": asked.frequency_penalty or 0.0,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "input_messages": None,
            "output_messages": None,
            "metadata": asked.metadata,
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "temperature": 1.0 if asked.temperature is None else asked.temperature,
            "text": asked.text,
            "tool_choice": asked.tool_choice or ("auto" if asked.tools else "none"),
            "tools": [{**_TOOL, **tool} for tool in asked.tools or ()],
            "top_p": 1.0 if asked.top_p is None else asked.top_p,
            "usage": None,
        }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": None}
