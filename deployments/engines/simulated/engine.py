"""The simulated engine: the scheduler in real time, its HTTP API, and its KV events."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence

import zmq

from deployments.config import ModelConfig, SimulatedEngineConfig
from deployments.engines.base import ASGIApp, KvEventSource, Load
from deployments.engines.simulated.app import build_app
from deployments.engines.simulated.generation import Choice, Generation, Task
from deployments.engines.simulated.messages import MessagesRequest
from deployments.engines.simulated.protocol import ApiError, ChatRequest, CompletionRequest, Sampling, parse
from deployments.engines.simulated.publisher import KvEventPublisher, node_ip
from deployments.engines.simulated.responses import ResponsesRequest
from deployments.engines.simulated.scheduler import Scheduler, StepResult
from deployments.engines.simulated.tokenizer import encode
from deployments.errors import EngineDeadError, EngineStartError

_MAX_LAG_S = 0.25
"""Steps that began late are caught up by ending on time, unless the event loop is further behind than this."""
_REQUESTS: Mapping[str, type[Sampling]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/messages": MessagesRequest,
    "/v1/responses": ResponsesRequest,
}
_log = logging.getLogger(__name__)


class SimulatedEngine:
    """`Engine` without a model.

    `clock` is monotonic, in seconds. `host` is the address that KV events are published on; by default this node's.
    """

    def __init__(
        self,
        config: SimulatedEngineConfig,
        model: ModelConfig,
        *,
        host: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.model = model
        self.created = int(time.time())
        self.app: ASGIApp = build_app(self)
        self._host = host
        self._clock = clock
        self._scheduler: Scheduler[Choice] = Scheduler(config)
        self._open: set[Generation] = set()
        self._work = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None
        self._publisher: KvEventPublisher | None = None
        self._death: EngineDeadError | None = EngineDeadError("the engine has not been started")
        self._killed = False

    reuses_tokens = False
    control_tokens: Sequence[str] = ()

    @property
    def block_size(self) -> int:
        return self.config.block_size

    @property
    def kv_blocks(self) -> int:
        return self.config.kv_blocks

    @property
    def max_running(self) -> int:
        return self.config.max_running

    @property
    def max_model_len(self) -> int:
        return self.config.max_model_len

    @property
    def killed(self) -> bool:
        return self._killed

    async def start(self) -> None:
        """Raises `EngineStartError`; an engine that has ended cannot be started again."""
        if self._loop_task is not None:
            if self._death is not None:
                raise EngineStartError("the engine has ended; make a new one")
            return
        room = self.config.kv_blocks * self.config.block_size
        if room < self.max_model_len:
            raise EngineStartError(f"kv_blocks * block_size is {room}, less than max_model_len ({self.max_model_len}): raise kv_blocks")
        self._publisher = self._publish_events()
        self._death = None
        self._loop_task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        task = self._loop_task
        self._die(EngineDeadError("the engine was stopped"))
        if task is not None:
            await asyncio.wait([task])

    def kill(self) -> None:
        """As if the engine's process had died: everything fails from now on, and streams break off."""
        self._killed = True
        self._die(EngineDeadError("the engine was killed"))

    def load(self) -> Load:
        return self._scheduler.load()

    def kv_event_sources(self) -> tuple[KvEventSource, ...]:
        if self._publisher is None:
            raise RuntimeError("the engine has not been started")
        return (self._publisher.source,)

    async def check_health(self) -> None:
        if self._death is not None:
            raise self._death

    def submit(self, task: Task) -> Generation:
        """Raises `EngineDeadError`."""
        if self._death is not None:
            raise self._death
        generation = Generation(task, self.block_size, self._close)
        for choice in generation.choices:
            self._scheduler.add(choice)
        self._open.add(generation)
        self._work.set()
        return generation

    async def render(self, path: str, body: bytes) -> Sequence[int] | None:
        try:
            task = parse(body, _REQUESTS[path]).task(self.config)  # as vLLM, it makes no prompt that is too long
        except ApiError:
            return None
        return task.prompts[0][0] if len(task.prompts) == 1 else None

    async def encode(self, texts: Sequence[str]) -> list[Sequence[int]] | None:
        return [encode(text) for text in texts]

    async def reset_prefix_cache(self) -> bool:
        self._work.set()  # so that an idle engine publishes the event
        return self._scheduler.reset()

    def _close(self, generation: Generation) -> None:
        self._open.discard(generation)
        for choice in generation.choices:
            self._scheduler.abort(choice)

    def _publish_events(self) -> KvEventPublisher:
        host = self._host or node_ip()
        try:
            return KvEventPublisher(host)
        except zmq.ZMQError as error:
            raise EngineStartError(f"cannot publish KV events on {host}: {error}") from error

    def _die(self, reason: EngineDeadError) -> None:
        self._death = self._death or reason
        if self._loop_task is not None:
            self._loop_task.cancel()
        if self._publisher is not None:
            self._publisher.close()
        for generation in tuple(self._open):
            generation.fail(reason)
            generation.close()

    async def _run(self) -> None:
        try:
            await self._steps()
        except Exception as error:
            _log.exception("the simulated engine failed")
            self._die(EngineDeadError(f"the engine failed: {type(error).__name__}"))

    async def _steps(self) -> None:
        now = self._clock()
        while True:
            self._work.clear()
            result = self._scheduler.step(now)
            self._deliver(result)
            if result.duration_s is None:
                await self._work.wait()
                # Timers may fire a little early, and the step that has just ended ended at its nominal time.
                now = max(now, self._clock())
            else:
                now = await self._until(now + result.duration_s)

    def _deliver(self, result: StepResult[Choice]) -> None:
        if result.events and self._publisher is not None:
            self._publisher.publish(result.events)
        for choice in result.tokens:
            choice.generation.push(choice.index)

    async def _until(self, end: float) -> float:
        """Waits for a step's end, and returns it, so that late wake-ups do not add up; after a long delay returns the time."""
        await asyncio.sleep(max(0.0, end - self._clock()))
        now = self._clock()
        return now if now - end > _MAX_LAG_S else end
