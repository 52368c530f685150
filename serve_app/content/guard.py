"""One tenant's content rules, as its requests and answers meet them."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import msgspec

from serve_app.content.answers import BLOCKED, Events, pass_choices
from serve_app.content.base import Matcher, Moderator, Rule
from serve_app.content.items import blank_answer, pass_answer, pass_items, text_of_answer
from serve_app.content.moderation import NAME, Moderation
from serve_app.content.named_events import MessageEvents, ResponseEvents, ruled_events
from serve_app.content.prompts import Checked, prompt_text, require_text
from serve_app.errors import ApiError, InvalidRequestError, UpstreamError
from serve_app.metrics import Metrics
from serve_app.openai import answers
from serve_app.openai.formats import Parse
from serve_app.openai.requests import Generation

LONG_BYTES = 16 * 1024
"""Longer texts are looked at in a thread, so that nobody waits for them."""
_SPELT_OUT = ("logprobs", "return_token_ids")
"""Fields that ask for the answer a second time, as tokens."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Rules for prompts and for answers, if there are any, and a moderation model, if there is one."""

    prompt: Matcher | None
    answer: Matcher | None
    moderation: Moderation | None
    fingerprint: str
    """Of what answers must pass: those that were kept under another one must not be replayed. Empty: nothing."""
    metrics: Metrics

    def check(self, request: Generation) -> "Ruled":
        """What of it can be told at once. Raises `InvalidRequestError` for what cannot be checked."""
        if self.prompt or self.moderation:
            require_text(request)
        if self.answer and (asked := _spelt_out(request)):
            raise InvalidRequestError(
                "This cannot be had here: it would show answers that are not checked.",
                param=asked[0],
                code="unsupported_parameter",
            )
        if self.prompt and request.prompt_bytes > LONG_BYTES:
            return Ruled(self, request, is_checked=False)
        return self.ruled(request, Checked(request, self.prompt)) if self.prompt else Ruled(self, request)

    def ruled(self, request: Generation, checked: Checked) -> "Ruled":
        """What follows from it."""
        for rule, times in checked.matched.values():
            self.met(rule, times)
        if checked.blocked_by:
            return Ruled(self, request, refused=_against(checked.blocked_by.name, checked.field))
        return Ruled(self, replace(request, body={**request.body, **checked.fields}) if checked.matched else request)

    async def judge(self, request: Generation) -> None:
        """By the model. Raises `InvalidRequestError`, and `UnavailableError`."""
        if self.moderation is None:
            return
        is_long = request.prompt_bytes > LONG_BYTES
        text = await asyncio.to_thread(prompt_text, request) if is_long else prompt_text(request)
        if await self.moderation.flags(text):
            raise _against(NAME, request.prompt_field)

    async def whole(self, raw: bytes) -> bytes:
        """What may be sent of an answer in one piece. Raises `UpstreamError` for what is no answer, and `UnavailableError`."""
        try:
            if self.answer:
                met: list[Rule] = []
                work = partial(pass_answer, raw, self.answer, met.append)
                raw = await asyncio.to_thread(work) if len(raw) > LONG_BYTES else work()
                for rule in met:
                    self.met(rule)
            return raw if await self._passes(msgspec.json.decode(raw)) else blank_answer(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise UpstreamError("The engine's answer could not be read, so it could not be checked.", code="engine_error") from None

    def imported(self, answer: dict[str, Any]) -> None:
        """Leaves in an answer that no engine gave what may be kept. Raises `InvalidRequestError`. The model does not judge it."""
        if self.answer:
            is_blocked = pass_items(answer, self.answer, self.met)
            pass_choices(answer, self.answer, self.met)
            if is_blocked or any(choice.get("finish_reason") == BLOCKED for choice in answer.get("choices") or ()):
                raise InvalidRequestError("answer: it is against a content rule.", param="answer", code=BLOCKED)

    def events(self, request: Generation) -> Events | MessageEvents | ResponseEvents | None:
        """What a streamed answer's events pass. None: nothing."""
        return ruled_events(request, self.answer, self.met) if self.answer else None

    async def may_keep(self, raw: bytes, parse: Parse = answers.from_stream) -> bool:
        """Of a complete streamed answer: what the model says of it. Never raises `UnavailableError`."""
        try:
            answer = parse(raw) if self.judges_answers else {}
            return answer is not None and await self._passes(answer)
        except ApiError:
            return False

    @property
    def judges_answers(self) -> bool:
        return self.moderation is not None and self.moderation.judges_answers

    async def _passes(self, answer: dict[str, Any]) -> bool:
        if self.moderation is None or not self.judges_answers:
            return True
        return not await self.moderation.flags(text_of_answer(answer))

    def met(self, rule: Rule, times: int = 1) -> None:
        self.metrics.content(rule.name, rule.action, times)


@dataclass(frozen=True, slots=True)
class Ruled:
    """A request as far as it has been checked, masked where that was to be done."""

    guard: Guard
    request: Generation
    refused: ApiError | None = None
    is_checked: bool = True

    @property
    def is_final(self) -> bool:
        """What will be answered is known."""
        return self.is_checked and self.refused is None

    @property
    def waits(self) -> bool:
        """`permitted` has something to say."""
        return not self.is_final or self.guard.moderation is not None

    async def permitted(self) -> Generation:
        """What may be answered. Raises what the answer is otherwise."""
        ruled = self
        if not self.is_checked and self.guard.prompt:
            ruled = self.guard.ruled(self.request, await asyncio.to_thread(Checked, self.request, self.guard.prompt))
        if ruled.refused:
            raise ruled.refused
        await self.guard.judge(ruled.request)
        return ruled.request


@dataclass(frozen=True, slots=True)
class Content:
    """The rules of all tenants. One for each ingress replica."""

    everybody: Guard | None
    """Of tenants that are not named."""
    tenants: Mapping[str, Guard]
    moderator: Moderator | None = None

    def check(self, request: Generation, tenant: str) -> Ruled | None:
        """None: there are no rules for it. Raises as `Guard.check` does."""
        guard = self.of(tenant)
        return None if guard is None else guard.check(request)

    def of(self, tenant: str) -> Guard | None:
        return self.tenants.get(tenant, self.everybody)

    async def close(self) -> None:
        if self.moderator:
            await self.moderator.close()


def _spelt_out(request: Generation) -> list[str]:
    asked = [field for field in _SPELT_OUT if request.body.get(field, False) is not False]  # 0 asks, too
    if request.kind == "response" and "message.output_text.logprobs" in request.body.get("include", ()):
        asked.append("include")
    return asked


def _against(name: str, field: str) -> InvalidRequestError:
    return InvalidRequestError(f"The prompt is against the content rule {name}.", param=field, code=BLOCKED)
