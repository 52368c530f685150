"""Builds the Ray Serve application from its configuration: `import_path: serve_app.app:build`."""

import asyncio
import logging
import time
from typing import Any

import ray
from ray import serve
from ray.util import get_node_ip_address
from starlette.applications import Starlette

from cache.exact import AnswerLru
from deployments.cache_owner import cache_deployment
from deployments.embedding import embedding_deployment
from deployments.llm import NAME as LLM_NAME
from deployments.llm import llm_deployment
from deployments.replica_client import DirectReplicaClient
from deployments.replicas import directory_of
from deployments.retrieval import retrieval_deployment
from deployments.routing import RoundRobin
from serve_app.config import AppConfig, load_config, require_safe_exposure
from serve_app.ingress import create_app
from serve_app.keeper import Keeper
from serve_app.metrics import RayMetrics
from serve_app.pipeline import Pipeline
from serve_app.runtime import http_host, scrape
from serve_app.secrets import application_secret, derive
from serve_app.services import RemoteCache, RemoteEmbedding, RemoteRetrieval
from serve_app.tenants import Authenticator

log = logging.getLogger("ray.serve")


class Ingress:
    """The deployment that HTTP requests reach: one pipeline in each replica."""

    def __init__(self, config: AppConfig, secret: bytes, llm: Any, embedding: Any, cache: Any, retrieval: Any | None) -> None:
        require_safe_exposure(config, http_host())
        self._llm, self._embedding, self._cache = llm, embedding, cache
        self._parts_ready = False
        self._pipeline = _pipeline(config, secret, llm, embedding, cache, retrieval)
        self._waiting = asyncio.ensure_future(self._wait_for_parts())

    def __serve_build_asgi_app__(self) -> Starlette:
        return create_app(self._pipeline, lambda: self._parts_ready, scrape)

    async def _wait_for_parts(self) -> None:
        """A first call to each part; the one to the replicas also makes Ray's router tell us which there are."""
        await asyncio.gather(self._llm.ping.remote(), self._embedding.embed_one.remote("ready?"), self._cache.open.remote())
        self._parts_ready = True

    async def __del__(self) -> None:
        """Serve calls this when the running requests are finished: what was answered is still kept."""
        self._waiting.cancel()
        await self._pipeline.keeper.drain()
        await self._pipeline.keeper.stop()


def _pipeline(config: AppConfig, secret: bytes, llm: Any, embedding: Any, cache: Any, retrieval: Any | None) -> Pipeline:
    metrics, remote_cache, directory = RayMetrics(), RemoteCache(cache), directory_of(LLM_NAME)
    return Pipeline(
        config=config,
        authenticator=Authenticator(secret),
        lru=AnswerLru(config.cache.exact.max_bytes, time.time),
        cache=remote_cache,
        embedding=RemoteEmbedding(embedding),
        retrieval=RemoteRetrieval(retrieval) if retrieval else None,
        directory=directory,
        policy=RoundRobin(),
        client=DirectReplicaClient(directory, llm, derive(secret, "private-port"), config.ingress.read_timeout_s),
        keeper=Keeper(remote_cache, metrics),
        metrics=metrics,
    )


def build(args: dict[str, Any]) -> serve.Application:
    """The application that `args` describes. Raises `ConfigError` before anything starts."""
    config = load_config(args)
    require_safe_exposure(config, http_host())
    secret = application_secret(config)
    data_dir = config.data_dir.expanduser()
    # Without keys the application is for this machine only, and so are the replicas' private ports.
    private_host = "127.0.0.1" if config.auth.mode == "none" else get_node_ip_address()
    llm = llm_deployment(config.llm, private_host, derive(secret, "private-port"), ray.cluster_resources().get("GPU", 0))
    embedding = embedding_deployment(config.embedding)
    cache = cache_deployment(config.cache, data_dir, embedding)
    retrieval = retrieval_deployment(config.retrieval, data_dir, embedding) if config.retrieval.enabled else None
    return _ingress_deployment(config).bind(config, secret, llm, embedding, cache, retrieval)


def _ingress_deployment(config: AppConfig) -> serve.Deployment:
    return serve.deployment(
        serve.ingress()(Ingress),
        name="Ingress",
        num_replicas=config.ingress.replicas,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=config.ingress.max_ongoing_requests,
        graceful_shutdown_timeout_s=config.ingress.drain_timeout_s,
    )
