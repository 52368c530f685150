"""Continuous batching in discrete time, as a state machine without I/O.

A step computes, for every running request, either one more token of its answer (decode) or a chunk of its prompt
(prefill). Steps follow one another; a step's tokens exist when it ends. A step takes

    prefilled tokens / prefill_tokens_per_s + decode_step_s + decode_step_per_request_s * (decoding requests - 1)

where the last two terms are zero without decoding requests. As in vLLM, the step that computes the end of a prompt
also gives the first token of the answer, requests start in order of arrival, and when blocks run out the request that
started last is preempted: it loses its blocks, and later computes again what is not cached by then.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from cache.prefix.events import Event
from deployments.config import SimulatedEngineConfig
from deployments.engines.base import Load
from deployments.engines.simulated.blocks import BlockCache, TokenSequence


class State(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(slots=True, eq=False)
class Request:
    """One prompt and the answer that it will get; the scheduler owns the fields that have defaults."""

    sequence: TokenSequence
    """The prompt and, behind it, the whole answer."""
    prompt_tokens: int
    answer_tokens: int
    state: State = State.WAITING
    computed: int = 0
    """Tokens whose keys and values are in the cache."""
    generated: int = 0
    cached_tokens: int | None = None
    """Prompt tokens that needed no computation when the request first started; None before."""

    @property
    def known(self) -> int:
        """Tokens of the prompt and of the answer up to now."""
        return self.prompt_tokens + self.generated


R = TypeVar("R", bound=Request)


@dataclass(frozen=True, slots=True)
class StepResult(Generic[R]):
    """What the step that just ended brought, and how long the next one takes."""

    tokens: list[R]
    """Requests that got one more token."""
    finished: list[R]
    """Those of them that got their last one."""
    events: list[Event]
    duration_s: float | None
    """Length of the step that begins now; None if there is nothing to do."""


@dataclass(slots=True)
class Scheduler(Generic[R]):
    """Waiting and running requests, and the step in progress."""

    config: SimulatedEngineConfig
    cache: BlockCache = field(init=False)
    waiting: deque[R] = field(default_factory=deque, init=False)
    running: list[R] = field(default_factory=list, init=False)
    _step: list[tuple[R, int]] = field(default_factory=list, init=False)
    """The step in progress: requests, and how many tokens of each it computes."""
    _ends_at: float = field(default=float("-inf"), init=False)

    def __post_init__(self) -> None:
        self.cache = BlockCache(self.config.kv_blocks, self.config.block_size)

    def add(self, request: R) -> None:
        """Raises `ValueError` for a request that would not fit even if it were alone."""
        room = self.config.kv_blocks * self.config.block_size
        if request.prompt_tokens + request.answer_tokens - 1 > room:
            raise ValueError(f"the request needs more than the {room} tokens that the cache holds")
        self.waiting.append(request)

    def abort(self, request: R) -> None:
        """Forgets a request and frees its blocks at once; harmless for one that has ended."""
        if request.state is State.WAITING:
            self.waiting.remove(request)
        elif request.state is State.RUNNING:
            self.running.remove(request)
            self.cache.release(request.sequence)
        request.state = State.ENDED

    def load(self) -> Load:
        return Load(running=len(self.running), waiting=len(self.waiting), kv_usage=self.cache.usage)

    def step(self, now: float) -> StepResult[R]:
        """Ends the step in progress, if there is one, and begins the next.

        Raises `ValueError` if the step in progress is not over at `now`.
        """
        if now < self._ends_at:
            raise ValueError(f"the step in progress ends at {self._ends_at}, not at {now}")
        tokens, finished = self._settle()
        events = self.cache.take_events()
        self._schedule()
        duration = self._duration() if self._step else None
        self._ends_at = now + (duration or 0.0)
        return StepResult(tokens, finished, events, duration)

    def _settle(self) -> tuple[list[R], list[R]]:
        tokens, finished = [], []
        for request, n_tokens in self._step:
            if request.state is not State.RUNNING:
                continue
            request.computed += n_tokens
            if request.computed == request.known:
                request.generated += 1
                tokens.append(request)
                if request.generated == request.answer_tokens:
                    finished.append(request)
        for request in finished:
            self.abort(request)
        return tokens, finished

    def _schedule(self) -> None:
        self._step = []
        budget = self.config.max_batched_tokens
        n_running = len(self.running)
        for request in self._with_room():
            if _decodes(request):
                self._compute(request, 1)
            elif budget:
                budget -= self._compute(request, min(request.known - request.computed, budget))
        if len(self.running) == n_running:  # whoever was just preempted must not start again at once
            self._admit(budget)

    def _with_room(self) -> Iterator[R]:
        """The running requests that hold blocks for their known tokens, or can have them; preempts where they cannot."""
        index = 0
        while index < len(self.running):
            request = self.running[index]
            while not self.cache.grow(request.sequence, request.known):
                if self._preempt_last() is request:
                    return
            yield request
            index += 1

    def _preempt_last(self) -> R:
        request = self.running.pop()
        self.cache.release(request.sequence)
        request.state = State.WAITING
        request.computed = 0
        self.waiting.appendleft(request)
        return request

    def _admit(self, budget: int) -> None:
        while budget > 0 and self.waiting and len(self.running) < self.config.max_running:
            request = self.waiting[0]
            cached = self.cache.acquire(request.sequence, request.known)
            if cached is None:
                return
            self.running.append(self.waiting.popleft())
            request.state = State.RUNNING
            request.computed = cached
            if request.cached_tokens is None:
                request.cached_tokens = cached
            budget -= self._compute(request, min(request.known - cached, budget))

    def _compute(self, request: R, n_tokens: int) -> int:
        self._step.append((request, n_tokens))
        self.cache.commit(request.sequence, request.computed + n_tokens)
        return n_tokens

    def _duration(self) -> float:
        decoding = sum(_decodes(request) for request, _ in self._step)
        prefilled = sum(n_tokens for request, n_tokens in self._step if not _decodes(request))
        seconds = prefilled / self.config.prefill_tokens_per_s
        if decoding:
            seconds += self.config.decode_step_s + self.config.decode_step_per_request_s * (decoding - 1)
        return seconds


def _decodes(request: Request) -> bool:
    """Only the last generated token is still to be computed."""
    return request.generated > 0 and request.computed == request.known - 1
