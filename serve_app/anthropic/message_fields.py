"""What Anthropic's reference requires of a message, and vLLM leaves out: what is null there is no field at all."""

import re
from collections.abc import Mapping
from typing import Any, Final

from serve_app.openai.completing import Completing

_NULLS: Final = {"stop_reason": None, "stop_sequence": None}
_USAGE: Final = {"cache_creation_input_tokens": None, "cache_read_input_tokens": None}
_TO_COMPLETE: Final = re.compile(rb"^event: (?:message_start|content_block_start)\b", re.MULTILINE)


def complete_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """With every field that the reference requires."""
    usage = message.get("usage")
    return {**_NULLS, **message, **({"usage": {**_USAGE, **usage}} if isinstance(usage, dict) else {})}


class CompletingMessage(Completing):
    """One message."""

    def __init__(self) -> None:
        super().__init__(_TO_COMPLETE)

    def _answer(self, answer: dict[str, Any]) -> dict[str, Any] | None:
        return complete_message(answer) if answer.get("type") == "message" else None

    def _value(self, value: dict[str, Any]) -> dict[str, Any] | None:
        message, block = value.get("message"), value.get("content_block")
        if isinstance(message, dict):
            return {**value, "message": complete_message(message)}
        if isinstance(block, dict) and block.get("type") == "thinking":
            return {**value, "content_block": {"signature": "", **block}}
        return None
