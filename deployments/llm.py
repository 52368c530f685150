"""The LLM deployment: one engine in each replica, behind a private channel that the ingress relays from."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig

from cache.prefix.keys import BlockKeys
from deployments.autoscaling import BUSY, KV, QUEUED, QueueingPolicy
from deployments.channel.asgi import relayed
from deployments.channel.frames import Request
from deployments.channel.server import ChannelServer
from deployments.config import LlmConfig, SimulatedEngineConfig
from deployments.engines.base import Engine
from deployments.kv_feed import KvFeed
from deployments.prefix_keeper import PrefixKeeper
from deployments.private_app import PrivateApp
from deployments.reports import prefix_seed
from deployments.router import DirectoryRouter

NAME = "LlmReplica"
HEALTH_CHECK_PERIOD_S = 2
HEALTH_CHECK_TIMEOUT_S = 30
DRAIN_POLL_S = 0.1
STOP_MARGIN_S = 30
"""For the engine's own end, after the drain."""

log = logging.getLogger("ray.serve")


LOOPBACK = "127.0.0.1"
"""Where engines publish their KV events, which hold tenants' tokens: only the replica itself reads them."""


def create_engine(config: LlmConfig, host: str) -> Engine:
    """The engine that the configuration names. Heavy imports happen here, and only those that are needed."""
    if isinstance(config.engine, SimulatedEngineConfig):
        from deployments.engines.simulated import SimulatedEngine

        return SimulatedEngine(config.engine, config.model, host=host)
    from deployments.engines.vllm import VllmEngine

    return VllmEngine(config.engine, config.model, host)


class LlmReplica:
    """Starts its engine, announces its private channel in its metadata, and reports its load."""

    async def __init__(self, config: LlmConfig, host: str, secret: str, model: str) -> None:  # type: ignore[misc]  # Serve awaits it
        """`model`: the identity of what it serves."""
        self._config = config
        self._model = model
        self._engine = create_engine(config, LOOPBACK)
        await self._engine.start()
        self._feed = KvFeed(self._engine, prefix_seed(secret))
        self._feed.start()
        keys = BlockKeys(prefix_seed(secret), self._engine.block_size)
        self._keeper = PrefixKeeper(self._engine.app, self._engine.load, self._feed, keys, self._engine.kv_blocks, config.kept_share)
        self._keeping = asyncio.create_task(self._keeper.run())
        self._gate = PrivateApp(self._engine, self._feed, self._keeper)
        self._server = ChannelServer(self._gate, host, secret.encode())
        await self._server.start()
        log.info("engine ready", extra={"engine": config.engine.type, "url": self._server.url})

    def record_replica_metadata(self) -> dict[str, Any]:
        return {
            "url": self._server.url,
            "max_model_len": self._engine.max_model_len,
            "block_size": self._engine.block_size,
            "reuses_tokens": self._engine.reuses_tokens,
            "model": self._model,
            "control_tokens": tuple(self._engine.control_tokens),
            "max_running": self._engine.max_running,
        }

    async def record_autoscaling_stats(self) -> dict[str, float]:
        queued_s, busy = self._gate.prefills()
        return {QUEUED: queued_s, BUSY: busy, KV: self._engine.load().kv_usage}

    async def check_health(self) -> None:
        await self._engine.check_health()

    async def ping(self) -> None:
        """Answers once there is a replica: the ingress's router learns of replicas by being asked for one."""

    async def relay(self, method: str, path: str, headers: dict[str, str], body: bytes) -> AsyncIterator[Any]:
        """The same answer as over the private channel, for when that fails: (status, headers), then the body's chunks."""
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        async with relayed(self._gate, Request(method, path, raw, body)) as (start, chunks):
            yield start.status, {name.decode("latin-1"): value.decode("latin-1") for name, value in start.headers}
            async for chunk in chunks:
                yield chunk

    async def __del__(self) -> None:
        """Serve awaits this when the replica is to stop."""
        if hasattr(self, "_server"):  # else the engine did not start
            await self.drain_and_stop()

    async def drain_and_stop(self) -> None:
        """Takes no new requests, finishes the running ones, ends the engine."""
        self._gate.draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.drain_timeout_s):
                while self._gate.open:
                    await asyncio.sleep(DRAIN_POLL_S)
        self._keeping.cancel()
        await self._server.stop()
        await self._feed.stop()
        await self._engine.stop()


def llm_deployment(config: LlmConfig, host: str, secret: str, model: str, gpus_in_cluster: float) -> serve.Application:
    """The bound deployment. `host` is the address of the private channels, `secret` what their callers must prove to know, `model` the
    identity of what is served.
    """
    replicas = config.replicas
    return serve.deployment(
        LlmReplica,
        name=NAME,
        ray_actor_options={"num_cpus": config.num_cpus, "num_gpus": config.gpus_of_one_replica(gpus_in_cluster)},
        autoscaling_config=AutoscalingConfig(
            min_replicas=replicas.min,
            max_replicas=replicas.max,
            upscale_delay_s=replicas.upscale_delay_s,
            downscale_delay_s=replicas.downscale_delay_s,
            policy=AutoscalingPolicy(
                policy_function=QueueingPolicy,
                policy_kwargs={"queue_s": replicas.target_queue_s, "busy": replicas.target_busy, "kv_usage": replicas.target_kv_usage},
            ),
        ),
        request_router_config=RequestRouterConfig(request_router_class=DirectoryRouter),
        max_ongoing_requests=10_000,  # the engine has its own queue; Ray's must not hold back the fallback
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
        health_check_timeout_s=HEALTH_CHECK_TIMEOUT_S,
        graceful_shutdown_timeout_s=config.drain_timeout_s + STOP_MARGIN_S,
    ).bind(config, host, secret, model)
