"""A router, and the replicas that it listens to, with simulated engines behind real channels: no Ray."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from cache.prefix.keys import BlockKeys
from deployments.channel.server import ChannelServer
from deployments.config import ModelConfig, RoutingConfig, SimulatedEngineConfig
from deployments.engines.simulated import SimulatedEngine
from deployments.fleet_watch import FleetWatch
from deployments.kv_feed import KvFeed
from deployments.prefix_keeper import PrefixKeeper
from deployments.private_app import PrivateApp
from deployments.replica_client import Call, DirectReplicaClient
from deployments.replicas import Replica, ReplicaDirectory
from deployments.reports import prefix_seed
from deployments.routing import Ranking, Routing
from deployments.watchers import NoWatcher
from tests.deployments.replica_fakes import FakeHandle
from tests.deployments.servers import eventually

SECRET = "between us"
ADAPTER = "loud"
MODEL = ModelConfig(name="m", adapters={ADAPTER: "of no weight"})
ENGINE = SimulatedEngineConfig(decode_step_s=0.001, decode_step_per_request_s=0.0, kv_blocks=1024)
SALT = "tenant"
TEXT = "The cache of keys and values is shared by all who ask the same. " * 20


@dataclass
class Node:
    """One replica: an engine, what follows its events, and its channel."""

    id: str
    config: SimulatedEngineConfig = ENGINE
    engine: SimulatedEngine = field(init=False)
    feed: KvFeed = field(init=False)
    keeper: PrefixKeeper = field(init=False)
    app: PrivateApp = field(init=False)

    async def start(self) -> "Node":
        self.engine = SimulatedEngine(self.config, MODEL, host="127.0.0.1")
        await self.engine.start()
        self.feed = KvFeed(self.engine, prefix_seed(SECRET))
        self.feed.start()
        keys = BlockKeys(prefix_seed(SECRET), self.config.block_size)
        self.keeper = PrefixKeeper(self.engine.app, self.engine.load, self.feed, keys, self.engine.kv_blocks, 0.5)
        self.keeping = asyncio.create_task(self.keeper.run())
        self.app = PrivateApp(self.engine, self.feed, self.keeper)
        self.server = ChannelServer(self.app, "127.0.0.1", SECRET.encode())
        await self.server.start()
        await eventually(lambda: self.feed.is_connected)
        return self

    async def stop(self) -> None:
        self.keeping.cancel()
        await self.server.stop()
        await self.feed.stop()
        await self.engine.stop()

    @property
    def replica(self) -> Replica:
        return Replica(self.id, self.server.url, self.config.max_model_len, self.config.block_size)


@dataclass
class Ingress:
    """What an ingress process has of routing."""

    name: str
    directory: ReplicaDirectory
    client: DirectReplicaClient
    routing: Routing
    watching: asyncio.Task[None]
    observed: list[tuple[int, int, int]]

    @property
    def router(self) -> Any:
        return self.routing.router

    def knows(self, node: Node) -> bool:
        """Exactly what the replica's engine holds, and that the replica is there."""
        mirrored = {key for change in node.feed.snapshot() for key in change.keys}
        slot = self.router.index._slots.get(node.id)
        known = set().union(*self.router.index._held[slot]) if slot is not None else set()
        is_mirrored = set(node.feed.mirror._blocks) == set(node.engine._scheduler.cache) if node.feed.is_connected else True
        return slot is not None and known == mirrored and is_mirrored and node.id in {replica.id for replica in self.directory.replicas}

    def forget_pending(self) -> None:
        """As if the grace were over in which a prompt counts as cached before the engine says so."""
        for _, expected in tuple(self.router.pending._ends):
            self.router.pending.drop(expected)

    async def rank(self, text: str = TEXT, salt: str = SALT, adapter: str | None = None, **fields: Any) -> Ranking:
        body = {
            "model": adapter or MODEL.name,
            "messages": [{"role": "user", "content": text}],
            "cache_salt": salt,
            "max_tokens": 4,
            **fields,
        }
        call = Call("POST", "/v1/chat/completions", {"content-type": "application/json"}, json.dumps(body).encode())
        return await self.routing.rank(call, salt, len(text), not fields.get("stream"), adapter=adapter)

    async def ask(self, text: str = TEXT, salt: str = SALT, adapter: str | None = None) -> tuple[str, int | None, int]:
        """The replica that answered, the prediction, and what its engine found."""
        ranking = await self.rank(text, salt, adapter)
        try:
            answer = await self.client.send(ranking.call, ranking.replicas, ranking.asking)
            raw = b"".join([chunk async for chunk in answer.chunks()])
            ranking.answered()
            await answer.close()
        finally:
            ranking.end()
        usage = json.loads(raw)["usage"]
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        ranking.found(cached, usage["prompt_tokens"], usage["completion_tokens"])
        return answer.replica, ranking.predicted, cached


class Seen(NoWatcher):
    """Keeps the predictions."""

    def __init__(self, observed: list[tuple[int, int, int]]) -> None:
        self._observed = observed

    def prediction(self, predicted: int, cached: int, prompt_tokens: int) -> None:
        self._observed.append((predicted, cached, prompt_tokens))


@asynccontextmanager
async def ingress_of(*nodes: Node, name: str = "one", config: RoutingConfig | None = None) -> AsyncIterator[Ingress]:
    directory = ReplicaDirectory()
    directory.replace([node.replica for node in nodes])
    client = DirectReplicaClient(directory, FakeHandle(RuntimeError("no handle here")), SECRET, 5)
    observed: list[tuple[int, int, int]] = []
    routing = Routing(config or RoutingConfig(), directory, client, prefix_seed(SECRET), name, time.monotonic, Seen(observed))
    watch = FleetWatch(directory, client, routing.router, routing.warmer, routing.turnstile, routing.gossip, name)
    watching = asyncio.create_task(watch.run())
    ingress = Ingress(name, directory, client, routing, watching, observed)
    try:
        await eventually(lambda: all(ingress.knows(node) for node in nodes))
        yield ingress
    finally:
        watching.cancel()
        await client.close()


@asynccontextmanager
async def nodes_of(*ids: str, config: SimulatedEngineConfig = ENGINE) -> AsyncIterator[list[Node]]:
    nodes = [await Node(name, config).start() for name in ids]
    try:
        yield nodes
    finally:
        for node in nodes:
            await node.stop()
