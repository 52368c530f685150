"""Answers that get what an API's reference requires and vLLM leaves out, as they pass."""

import re
from abc import ABC, abstractmethod
from typing import Any

import msgspec

from serve_app.openai.sse import END, WholeEvents, named


class Completing(ABC):
    """The answer to one request. What is not in a known form passes as it is, and what is said in a stream's pieces is not read."""

    def __init__(self, events: re.Pattern[bytes]) -> None:
        self._events = events
        """How those begin that are to be completed."""
        self._whole = WholeEvents(drop_usage=False)

    def whole(self, raw: bytes) -> bytes:
        """An answer in one piece."""
        try:
            completed = self._answer(msgspec.json.decode(raw, type=dict[str, Any]))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return raw
        return raw if completed is None else msgspec.json.encode(completed)

    def feed(self, chunk: bytes) -> bytes:
        """What may be sent on of a stream, in whole events."""
        whole = self._whole.feed(chunk)
        if not self._events.search(whole):
            return whole
        return b"".join(map(self._event, whole.split(END)[:-1]))

    def _event(self, each: bytes) -> bytes:
        if not self._events.match(each):
            return each + END
        try:
            completed = self._value(msgspec.json.decode(each.partition(b"\ndata: ")[2], type=dict[str, Any]))
        except (msgspec.DecodeError, UnicodeDecodeError):
            completed = None
        return each + END if completed is None or not isinstance(completed.get("type"), str) else named(completed)

    @abstractmethod
    def _answer(self, answer: dict[str, Any]) -> dict[str, Any] | None:
        """None: it is no answer that is known here."""

    @abstractmethod
    def _value(self, value: dict[str, Any]) -> dict[str, Any] | None:
        """What a stream's event says; None as above."""
