"""The door behind the door: what a request takes of its tenant's limits, and whose turn it takes at the engines."""

import math
from dataclasses import dataclass

from deployments.turns import Flow
from serve_app.admission.expected import CHARACTERS_A_TOKEN, AnswerLengths
from serve_app.admission.limiter import Limiter, Ticket
from serve_app.errors import RateLimitError
from serve_app.openai.requests import Generation
from serve_app.openai.sse import Usage
from serve_app.replies import Reply
from serve_app.tenants import Caller, Principal

BACKGROUND = 1_000_000
"""Priority of what is computed for a tenant without its having asked: after all that it asks."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that was taken."""

    flow: Flow
    _ticket: Ticket
    _lengths: AnswerLengths

    def grown(self, before: Generation, now: Generation) -> None:
        """The request has a longer prompt than it was taken with. Raises `RateLimitError`."""
        more = (now.prompt_characters - before.prompt_characters) / CHARACTERS_A_TOKEN
        if more > 0:
            self._ticket.expects(more)

    def used(self, usage: Usage) -> None:
        """What an engine has computed."""
        self._ticket.used(usage.prompt_tokens + usage.completion_tokens)
        self._lengths.seen(self.flow.name, usage.completion_tokens)

    def end(self) -> None:
        """It has failed. Calling it twice is harmless, as is calling it after `ends_with`'s reply was closed."""
        self._ticket.end()

    def ends_with(self, reply: Reply) -> Reply:
        """The reply, at whose end the request's place is free again."""
        close = reply.close

        async def end() -> None:
            self._ticket.end()
            await close()

        reply.headers = {**reply.headers, **self._ticket.headers}
        reply.close = end
        return reply


class Admission:
    """One for each ingress replica."""

    def __init__(self, limiter: Limiter, lengths: AnswerLengths | None = None) -> None:
        self._limiter = limiter
        self._lengths = lengths or AnswerLengths()

    def enter(self, request: Generation, caller: Caller, namespace: str) -> Admitted:
        """Raises `RateLimitError`."""
        flow = self.flow(request, caller, namespace)
        return Admitted(flow, self._limiter.enter(caller.principal, _expected(request, flow)), self._lengths)

    def check(self, request: Generation, caller: Caller, flow: Flow) -> None:
        """Raises `RateLimitError` if `enter` would. Nothing is taken."""
        self._limiter.check(caller.principal, _expected(request, flow))

    def take(self, principal: Principal, tokens: float) -> Ticket:
        """For what no language model computes. Raises `RateLimitError`."""
        return self._limiter.enter(principal, tokens)

    def is_free(self, principal: Principal) -> bool:
        """Nothing limits it."""
        return self._limiter.is_free(principal)

    def hit(self, principal: Principal) -> dict[str, str] | None:
        """The headers of an answer that costs nothing but counts as a request. None: it is one too many."""
        try:
            ticket = self._limiter.enter(principal, 0.0)
        except RateLimitError:
            return None
        ticket.end()
        return ticket.headers

    def flow(self, request: Generation, caller: Caller, namespace: str, *, is_background: bool = False) -> Flow:
        principal = caller.principal
        queues = [limits.queue for limits in (principal.limits, self._limiter.shared(principal)) if limits.queue is not None]
        return Flow(
            namespace,
            principal.shared.weight,
            min(queues, default=None),
            BACKGROUND if is_background else request.priority,
            self._lengths.expected(namespace, request.max_tokens) * request.choices,
            math.inf if caller.max_wait_s is None else caller.max_wait_s,
        )


def _expected(request: Generation, flow: Flow) -> float:
    """Tokens of the prompt and the answer."""
    return request.prompt_characters / CHARACTERS_A_TOKEN + flow.output_tokens
