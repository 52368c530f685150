"""Continuous batching in discrete time, as a state machine without I/O.

A step computes, for every running request, either one more token of its answer (decode) or a chunk of its prompt
(prefill). Steps follow one another; a step's tokens exist when it ends. A step takes

    prefilled tokens / prefill_tokens_per_s + prefill_pair_s * pairs of a prefilled token and one before it
    + decode_step_s + decode_step_per_request_s * (decoding requests - 1)

where the last two terms are zero without decoding requests. As in vLLM, the step that computes the end of a prompt
also gives the first token of the answer, requests start in order of arrival, and when blocks run out the request that
started last is preempted: it loses its blocks, and later computes again what is not cached by then.

With a host tier (`host.py`), a request whose prefix goes on there waits for its copies outside of the batch, while others run. Room for
all of its known tokens is held meanwhile.
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
from deployments.engines.simulated.host import HostTier, HostUse

_IDLE_STEP_S = 0.001
"""With nothing to compute while copies are on their way, the next step comes after this time at most: a new request may have come."""


class State(Enum):
    WAITING = "waiting"
    LOADING = "loading"
    """Waits for copies from the host, or for its turn with them."""
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
    """Prompt tokens that needed no computation when the request first started, copies from the host included; None before."""
    max_offload_tokens: int | None = None
    """Of the prompt; what is behind is not copied to the host."""
    host_use: HostUse = field(default_factory=HostUse)

    @property
    def known(self) -> int:
        """Tokens of the prompt and of the answer up to now."""
        return self.prompt_tokens + self.generated

    @property
    def offloaded_tokens(self) -> int:
        """What may be copied to the host of it, from its start."""
        most = self.max_offload_tokens
        return self.prompt_tokens if most is None else min(most, self.prompt_tokens)


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
    host: HostTier | None = field(init=False)
    waiting: deque[R] = field(default_factory=deque, init=False)
    loading: deque[tuple[float, R]] = field(default_factory=deque, init=False)
    """Requests that wait for the host's copies, and when these are there, in the order of both."""
    running: list[R] = field(default_factory=list, init=False)
    _step: list[tuple[R, int]] = field(default_factory=list, init=False)
    """The step in progress: requests, and how many tokens of each it computes."""
    _ends_at: float = field(default=float("-inf"), init=False)

    def __post_init__(self) -> None:
        self.cache = BlockCache(self.config.kv_blocks, self.config.block_size)
        self.host = HostTier(self.config) if self.config.host_blocks else None

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
        elif request.state is State.LOADING:
            self.loading.remove(next(each for each in self.loading if each[1] is request))
            self.cache.release(request.sequence)
        if self.host is not None and request.state is not State.ENDED:
            cached = request.cached_tokens or 0
            self.host.end(request.host_use, request.sequence, cached, request.prompt_tokens - cached)
        request.state = State.ENDED

    def reset(self) -> bool:
        """Forgets everything cached, in both tiers. False, and no change, while a request holds blocks."""
        if not self.cache.reset():
            return False
        if self.host is not None:
            self.host.clear()
        return True

    def load(self) -> Load:
        return Load(running=len(self.running), waiting=len(self.waiting) + len(self.loading), kv_usage=self.cache.usage)

    def step(self, now: float) -> StepResult[R]:
        """Ends the step in progress, if there is one, and begins the next.

        Raises `ValueError` if the step in progress is not over at `now`.
        """
        if now < self._ends_at:
            raise ValueError(f"the step in progress ends at {self._ends_at}, not at {now}")
        tokens, finished = self._settle()
        events = self.cache.take_events()
        if self.host is not None:
            events += self.host.take_events()
        self._schedule(now)
        duration = self._duration() if self._step else self._until_loaded(now)
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

    def _schedule(self, now: float) -> None:
        self._step = []
        budget = self.config.max_batched_tokens
        n_running = len(self.running)
        for request in self._with_room():
            if _decodes(request):
                self._compute(request, 1)
            elif budget:
                budget -= self._compute(request, min(request.known - request.computed, budget))
        if len(self.running) == n_running:  # whoever was just preempted must not start again at once
            if self.host is not None:
                budget = self._admit_loaded(self.host, budget, now)
            self._admit(budget, now)

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

    def _admit_loaded(self, host: HostTier, budget: int, now: float) -> int:
        """Those whose copies have come. They hold their blocks already; what they leave of the budget is returned."""
        while self.loading and self.loading[0][0] <= now and budget > 0 and len(self.running) < self.config.max_running:
            _, request = self.loading.popleft()
            host.loaded(request.host_use)
            self.cache.commit(request.sequence, request.computed)
            budget -= self._start(request, budget)
        return budget

    def _admit(self, budget: int, now: float) -> None:
        host, passed_over = self.host, list[R]()
        while budget > 0 and self.waiting and len(self.running) < self.config.max_running:
            request = self.waiting[0]
            on_host = 0 if host is None else self._on_host(host, request)
            if on_host is None:
                passed_over.append(self.waiting.popleft())
                continue
            cached = self.cache.acquire(request.sequence, request.known)
            if cached is None:
                break
            self.waiting.popleft()
            request.computed = cached + on_host * self.config.block_size
            if request.cached_tokens is None:
                request.cached_tokens = request.computed
            if on_host and host is not None:
                request.state = State.LOADING
                first = cached // self.config.block_size
                self.loading.append((host.load(request.host_use, request.sequence, first, first + on_host, now), request))
            else:
                budget -= self._start(request, budget)
        self.waiting.extendleft(reversed(passed_over))

    def _on_host(self, host: HostTier, request: R) -> int | None:
        """Blocks that the host adds to the prefix on the device. None: another request is loading some of them now."""
        size = self.config.block_size
        first = self.cache.cached_tokens(request.sequence, request.known) // size
        return host.found(request.sequence, first, (request.known - 1) // size)

    def _start(self, request: R, budget: int) -> int:
        self.running.append(request)
        request.state = State.RUNNING
        return self._compute(request, min(request.known - request.computed, budget))

    def _until_loaded(self, now: float) -> float | None:
        return min(max(self.loading[0][0] - now, 0.0), _IDLE_STEP_S) if self.loading else None

    def _compute(self, request: R, n_tokens: int) -> int:
        self._step.append((request, n_tokens))
        self.cache.commit(request.sequence, request.computed + n_tokens)
        if self.host is not None and request.computed < request.prompt_tokens:
            end = min(request.computed + n_tokens, request.offloaded_tokens)
            self.host.store(request.host_use, request.sequence, end // self.config.block_size)
        return n_tokens

    def _duration(self) -> float:
        decoding = sum(_decodes(request) for request, _ in self._step)
        prefilled = sum(n_tokens for request, n_tokens in self._step if not _decodes(request))
        seconds = prefilled / self.config.prefill_tokens_per_s
        if self.config.prefill_pair_s:
            seconds += self.config.prefill_pair_s * sum(
                n_tokens * (request.computed + n_tokens / 2) for request, n_tokens in self._step if not _decodes(request)
            )
        if decoding:
            seconds += self.config.decode_step_s + self.config.decode_step_per_request_s * (decoding - 1)
        return seconds


def _decodes(request: Request) -> bool:
    """Only the last generated token is still to be computed."""
    return request.generated > 0 and request.computed == request.known - 1
