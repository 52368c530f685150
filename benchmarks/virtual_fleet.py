"""Ingresses and replicas in one process, in virtual time: the application's own turnstiles, routing, watchers and accounts over simulated
engines, without HTTP and Ray. Messages between them take a moment, in order on each connection.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from deployments.channel.asgi import AppCall
from deployments.channel.frames import Request, Start
from deployments.config import RoutingConfig, SimulatedEngineConfig
from deployments.engines.base import Load, Message, Receive, Send
from deployments.engines.simulated import scheduler
from deployments.engines.simulated.blocks import TokenSequence
from deployments.engines.simulated.scheduler import Scheduler
from deployments.errors import QueueFullError
from deployments.fleet_watch import FleetWatch
from deployments.private_app import PrivateApp
from deployments.replica_client import Asking, Call
from deployments.replicas import Replica, ReplicaDirectory
from deployments.routing import Routing
from deployments.turns import Flow

PATH = "/v1/chat/completions"


class _Asked(msgspec.Struct, array_like=True):
    number: int
    prompt: int
    answer: int

    def tokens(self) -> list[int]:
        """Of the prompt, whose beginning nobody has sent before."""
        return [self.number, *range(self.prompt - 1)]


@dataclass(eq=False, slots=True)
class _Running(scheduler.Request):
    pieces: asyncio.Queue[bool] = field(default_factory=asyncio.Queue)
    """Whether it was the last, of each token."""


class VirtualEngine:
    """An `Engine` as far as `PrivateApp` needs one."""

    def __init__(self, config: SimulatedEngineConfig) -> None:
        self._config = config
        self._scheduler = Scheduler[_Running](config)
        self._work = asyncio.Event()

    def load(self) -> Load:
        return self._scheduler.load()

    async def check_health(self) -> None: ...

    async def render(self, path: str, body: bytes) -> Sequence[int]:
        return msgspec.json.decode(body, type=_Asked).tokens()

    async def encode(self, texts: Sequence[str]) -> None: ...

    async def app(self, scope: Message, receive: Receive, send: Send) -> None:
        asked = msgspec.json.decode((await receive())["body"], type=_Asked)
        sequence = TokenSequence(asked.tokens() + [0] * asked.answer, self._config.block_size)
        running = _Running(sequence, asked.prompt, asked.answer)
        self._scheduler.add(running)
        self._work.set()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        is_last = False
        while not is_last:
            is_last = await running.pieces.get()
            await send({"type": "http.response.body", "body": b".", "more_body": not is_last})

    async def run(self) -> None:
        loop, ends_at = asyncio.get_running_loop(), 0.0
        while True:
            self._work.clear()
            now = max(ends_at, loop.time())  # timers may fire a little early
            result = self._scheduler.step(now)
            ends_at = now + (result.duration_s or 0.0)
            for each in result.tokens:
                each.pieces.put_nowait(each in result.finished)
            if result.duration_s is None:
                await self._work.wait()
            else:
                await asyncio.sleep(result.duration_s)


class _Line:
    """One direction of a connection."""

    def __init__(self, delay: Callable[[], float]) -> None:
        self._delay = delay
        self._free_at = 0.0

    def carry(self, then: Callable[[], object]) -> None:
        loop = asyncio.get_running_loop()
        self._free_at = max(self._free_at + 1e-6, loop.time() + self._delay())  # what comes at once has no order
        loop.call_at(self._free_at, then)


class _Answer:
    """An exchange: a `Sink` at the replica's end, an `Answer` at the ingress's."""

    def __init__(self, replica: str, there: _Line, back: _Line) -> None:
        self.replica = replica
        self.status = 0
        self.began = asyncio.Event()
        self.call: AppCall | None = None
        self._there = there
        self._back = back
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()

    def start(self, start: Start) -> None:
        self.status = start.status
        self._back.carry(self.began.set)

    async def data(self, data: bytes) -> None:
        self._back.carry(lambda: self._pieces.put_nowait(data))

    def end(self) -> None:
        self._back.carry(lambda: self._pieces.put_nowait(None))

    def failed(self) -> None:
        self.end()

    async def chunks(self) -> AsyncIterator[bytes]:
        while (piece := await self._pieces.get()) is not None:
            yield piece

    async def close(self) -> None:
        if self.call:
            self._there.carry(self.call.leave)


class Wires:
    """A `ReplicaClient`: one ingress's connections."""

    def __init__(self, apps: dict[str, PrivateApp], delay: Callable[[], float]) -> None:
        self._apps = apps
        self._lines = {name: (_Line(delay), _Line(delay)) for name in apps}
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, call: Call, ranked: Sequence[Replica], asking: Asking = lambda replica: {}) -> _Answer:
        return await self.probe(replace(call, headers={**call.headers, **asking(ranked[0].id)}), ranked[0])

    async def probe(self, call: Call, replica: Replica) -> _Answer:
        there, back = self._lines[replica.id]
        answer = _Answer(replica.id, there, back)
        headers = [(name.encode(), value.encode("latin-1")) for name, value in call.headers.items()]
        answer.call = AppCall(self._apps[replica.id], Request(call.method, call.path, headers, call.body), answer)
        there.carry(lambda: self._begin(answer.call))
        await answer.began.wait()
        return answer

    def _begin(self, call: AppCall | None) -> None:
        if call:
            task = asyncio.create_task(call.run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None: ...


@dataclass(slots=True)
class Served:
    """What became of one request. Times are seconds."""

    tenant: str
    ingress: int
    at_s: float
    waited_s: float = 0.0
    """Until it was sent to an engine."""
    first_s: float = 0.0
    """To the first token; 0: it was refused."""
    end_s: float = 0.0


class VirtualFleet:
    """To be made in a `VirtualLoop`."""

    def __init__(self, engine: SimulatedEngineConfig, replicas: int, ingresses: int, routing: RoutingConfig, seed: int) -> None:
        self._random = random.Random(seed)
        self._clock = asyncio.get_running_loop().time
        engines = [VirtualEngine(engine) for _ in range(replicas)]
        apps = {f"r{place}": PrivateApp(each) for place, each in enumerate(engines)}  # type: ignore[arg-type]  # as far as it is needed
        for app in apps.values():
            app._accounts._clock = self._clock
        known = [Replica(name, "", engine.max_model_len, engine.block_size, max_running=engine.max_running) for name in apps]
        self.ingresses: list[tuple[Routing, Wires]] = []
        runs: list[Awaitable[None]] = [each.run() for each in engines]
        for place in range(ingresses):
            directory = ReplicaDirectory(self._clock)
            directory.replace(known)
            wires, name = Wires(apps, self._delay), f"i{place}"
            made = Routing(routing, directory, wires, b"seed", name, self._clock)
            self.ingresses.append((made, wires))
            runs.append(FleetWatch(directory, wires, made.router, made.warmer, made.turnstile, made.gossip, name).run())
        self._tasks = [asyncio.ensure_future(each) for each in runs]
        self._numbers = 0
        self._open = [0] * ingresses

    def _delay(self) -> float:
        """Of a message between two processes of a machine that has other things to do, too."""
        return 0.0003 + self._random.expovariate(1 / 0.0007)

    async def ask(self, tenant: str, prompt: int, answer: int, weight: float = 1.0, ingress: int | None = None) -> Served:
        place = self._least_open() if ingress is None else ingress
        self._open[place] += 1
        try:
            return await self._asked(place, Served(tenant, place, self._clock()), prompt, answer, weight)
        finally:
            self._open[place] -= 1

    def _least_open(self) -> int:
        """As HAProxy chooses here."""
        return min(range(len(self._open)), key=lambda place: (self._open[place], self._random.random()))

    async def _asked(self, place: int, served: Served, prompt: int, answer: int, weight: float) -> Served:
        routing, wires = self.ingresses[place]
        self._numbers += 1
        call = Call("POST", PATH, {}, msgspec.json.encode(_Asked(self._numbers, prompt, answer)))
        try:
            ranking = await routing.rank(call, served.tenant, 4 * prompt, False, None, Flow(served.tenant, weight, output_tokens=answer))
        except QueueFullError:
            return served
        served.waited_s = self._clock() - served.at_s
        try:
            got = await wires.send(ranking.call, ranking.replicas, ranking.asking)
            async for _ in got.chunks():
                if not served.first_s:
                    served.first_s = self._clock() - served.at_s
                    ranking.answered()
            ranking.found(0, prompt, answer)
        finally:
            ranking.end()
        served.end_s = self._clock() - served.at_s
        return served

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
