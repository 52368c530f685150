"""Builds the Ray Serve application from its configuration: `import_path: serve_app.app:build`."""

import asyncio
import time
from functools import partial
from typing import Any

import ray
from ray import serve
from starlette.applications import Starlette

from cache.config import is_server
from cache.exact import AnswerLru
from deployments.cache_owner import cache_deployment, calls_of_cache
from deployments.embedding import calls_of_embedding, embedding_deployment
from deployments.fleet_watch import FleetWatch
from deployments.handles import remote
from deployments.kept_prefixes import KeptPrefixes
from deployments.llm import NAME as LLM_NAME
from deployments.llm import llm_deployment
from deployments.replica_client import DirectReplicaClient
from deployments.replicas import ReplicaDirectory, directory_of
from deployments.reports import prefix_seed
from deployments.retrieval import Retrieval, calls_of_retrieval, retrieval_deployment
from deployments.routing import Routing
from serve_app.access_log import beside_serve_log
from serve_app.admission.gate import Admission
from serve_app.admission.limiter import Limiter
from serve_app.admission.shared import TOPIC as LIMITS
from serve_app.config import AppConfig, is_loopback, load_config, require_safe_exposure
from serve_app.content.factory import make_content
from serve_app.content.modelcache import RuledBackend
from serve_app.contexts.service import Contexts
from serve_app.contexts.store import contexts_url, open_contexts
from serve_app.door import door_of
from serve_app.exchanges import Exchanges, log_each
from serve_app.flights import Flights, SingleFlight
from serve_app.front import ENVIRONMENT, Front, HitPath
from serve_app.grpc.service import METHODS, LLMService
from serve_app.identity import model_identity
from serve_app.ingress import PARSERS, create_app
from serve_app.keeper import Keeper
from serve_app.keyring.store import keyring_url, open_keyring
from serve_app.keyring.watch import Keyring
from serve_app.learning import Learner
from serve_app.metrics import RayMetrics
from serve_app.modelcache.backend import CacheBackend
from serve_app.modelcache.cache_backend import SharedCacheBackend
from serve_app.modelcache.service import ModelCacheService
from serve_app.parts import Parts
from serve_app.pipeline import Pipeline
from serve_app.renewal import Renewals
from serve_app.runtime import http_host, scrape
from serve_app.secrets import application_secret, derive
from serve_app.services import CALL_TIMEOUT_S, RemoteCache, RemoteDocuments, RemoteEmbedding
from serve_app.tenants import Namespaces
from serve_app.tiers import CacheTiers
from serve_app.uses import Uses

PRIVATE_PORT = "private-port"
ENGINE_CALL_TIMEOUT_S = 600.0
"""Silence of a replica that is asked for something else than an answer to a client: a prefix is computed without a word."""


class Ingress:
    """The deployment that HTTP requests reach: one pipeline in each replica."""

    def __init__(self, config: AppConfig, secret: bytes, model: str, llm: Any, embedding: Any, cache: Any, retrieval: Any | None) -> None:
        """`model`: the served model's identity; `llm` and those behind it: handles."""
        require_safe_exposure(config, http_host())
        self._metrics = metrics = RayMetrics()
        channel = derive(secret, PRIVATE_PORT)
        directory = directory_of(LLM_NAME)
        directory.require(model)
        directory.circuits.opened = metrics.opened
        metrics.circuits = directory.circuit_states
        self._calls = [calls_of_cache(cache, channel, CALL_TIMEOUT_S), calls_of_embedding(embedding, channel)]
        documents = None
        if retrieval:
            self._calls.append(calls_of_retrieval(retrieval, channel, CALL_TIMEOUT_S))
            documents = RemoteDocuments(self._calls[-1], retrieval)
        remote_cache, encoder = RemoteCache(self._calls[0], cache), RemoteEmbedding(self._calls[1])
        lru = AnswerLru(config.cache.exact.max_bytes, time.time)
        self._keeper = Keeper(remote_cache, metrics)
        self._learner = Learner(remote_cache, metrics)
        self._renewals = Renewals(remote_cache, metrics)
        self._flights = Flights(remote_cache, metrics, single_flight(config))
        self._uses = Uses(remote_cache)
        self._client = DirectReplicaClient(directory, llm, channel, ENGINE_CALL_TIMEOUT_S)
        replica = serve.get_replica_context().replica_tag
        self._routing = Routing(config.routing, directory, self._client, prefix_seed(channel), replica, time.monotonic, metrics)
        self._content = make_content(config.content, metrics)
        limiter = Limiter(config.limits.limits(), secret=derive(secret, LIMITS).encode())
        self._routing.gossip.add(LIMITS, limiter.counts)
        self._contexts = self._open_contexts(config, directory, metrics)
        self._pipeline = Pipeline(
            config=config,
            namespaces=Namespaces(secret, config.environment, config.retrieval.groups),
            tiers=CacheTiers(
                config.cache, model, lru, remote_cache, encoder, self._keeper, self._learner, metrics, self._flights, self._uses
            ),
            embedding=encoder,
            documents=documents,
            directory=directory,
            routing=self._routing,
            client=self._client,
            metrics=metrics,
            learner=self._learner,
            renewals=self._renewals,
            admission=Admission(limiter),
            content=self._content,
            contexts=self._contexts,
        )
        backend: CacheBackend = SharedCacheBackend(remote_cache, encoder, self._pipeline.namespaces, config.cache)
        backend = RuledBackend(backend, self._content) if self._content else backend
        modelcache = config.modelcache
        self._modelcache = (
            ModelCacheService(backend, metrics, modelcache.blocked_models, logs_queries=modelcache.query_log)
            if modelcache.enabled
            else None
        )
        self._access_log = beside_serve_log(replica)
        self._exchanges = Exchanges(metrics, self._access_log or log_each, client_timeout_s=config.ingress.client_timeout_s)
        self._keyring = Keyring(open_keyring(keyring_url(config)), config.auth.grace_s) if config.auth.mode == "keys" else None
        door = door_of(self._keyring)
        Front.hit_path = HitPath(self._pipeline, self._exchanges, PARSERS, door)
        service = LLMService(self._pipeline, self._exchanges, door, is_local=is_loopback(http_host()))
        vars(self).update({name: getattr(service, name) for name in METHODS})  # where Ray looks for what an RPC names
        # Ray's router tells which replicas there are once it has been asked for one.
        asking = {"llm": llm.ping, "embedding": embedding.describe, "cache": cache.open}
        asking |= {"retrieval": retrieval.open} if retrieval else {}
        self._parts = Parts({name: partial(remote, method) for name, method in asking.items()})
        watch = FleetWatch(
            directory, self._client, self._routing.router, self._routing.warmer, self._routing.turnstile, self._routing.gossip, replica
        )
        self._tasks = [asyncio.ensure_future(self._parts.ask_all()), asyncio.ensure_future(watch.run())]
        self._tasks += [asyncio.ensure_future(each.run()) for each in (self._keyring, self._contexts) if each]

    def _open_contexts(self, config: AppConfig, directory: ReplicaDirectory, metrics: RayMetrics) -> Contexts | None:
        if not config.contexts.enabled or not config.llm.kept_share:
            return None
        kept = KeptPrefixes(self._client, directory, self._routing, time.monotonic, metrics)
        adapters = config.llm.model.adapters
        return Contexts(partial(open_contexts, contexts_url(config)), kept, config.contexts.tokens, adapters=adapters)

    def __serve_build_asgi_app__(self) -> Starlette:
        return create_app(self._pipeline, self._parts, scrape, self._modelcache, self._exchanges, self._keyring)

    async def __del__(self) -> None:
        """Serve awaits this when the running requests are finished. Answers that wait to be kept are, if the store is still there."""
        Front.hit_path = None  # what comes now is counted by the application
        for task in self._tasks:
            task.cancel()
        if self._modelcache:
            await self._modelcache.close()
        await self._learner.stop()
        await self._renewals.stop()
        await self._keeper.drain()
        await self._keeper.stop()
        await self._uses.stop()
        await self._flights.stop()
        await self._client.close()
        for calls in self._calls:
            calls.close()
        if self._keyring:
            await self._keyring.close()
        if self._content:
            await self._content.close()
        if self._contexts:
            await self._contexts.close()
        self._metrics.flush()
        if self._access_log:
            self._access_log.flush()


def single_flight(config: AppConfig) -> SingleFlight:
    """As configured; but a lease, which is a write before each answer that is computed, is of no use to a process that shares with none."""
    is_alone = config.ingress.replicas == 1 and not is_server(config.cache.database_url)
    return "process" if config.cache.single_flight == "cluster" and is_alone else config.cache.single_flight


def build(args: dict[str, Any]) -> serve.Application:
    """The application that `args` describes. Raises `ConfigError` before anything starts."""
    return application(load_config(args))


def application(config: AppConfig, documents: type[Retrieval] = Retrieval) -> serve.Application:
    """`documents`: what is deployed for their search. Raises `ConfigError` before anything starts."""
    require_safe_exposure(config, http_host())
    secret = application_secret(config)
    data_dir = config.data_dir.expanduser()
    # What is for this machine only has its private ports there, too; otherwise each process listens on its node's address.
    channel = "127.0.0.1" if is_loopback(http_host()) else "", derive(secret, PRIVATE_PORT)
    model = model_identity(config.llm)
    llm = llm_deployment(config.llm, *channel, model, ray.cluster_resources().get("GPU", 0))
    embedding = embedding_deployment(config.embedding, config.cache.semantic.verifier, *channel)
    namespace = Namespaces(secret, config.environment).of
    quotas = {namespace(name): config.cache.of(name).quota.quota() for name in config.cache.tenants}
    cache = cache_deployment(config.cache, data_dir, quotas, embedding, *channel)
    retrieval = retrieval_deployment(config.retrieval, data_dir, embedding, *channel, documents) if config.retrieval.enabled else None
    return _ingress_deployment(config).bind(config, secret, model, llm, embedding, cache, retrieval)


def _ingress_deployment(config: AppConfig) -> serve.Deployment:
    return serve.deployment(
        serve.ingress()(Ingress),
        name="Ingress",
        num_replicas=config.ingress.replicas,
        ray_actor_options={"num_cpus": 0, "runtime_env": {"env_vars": ENVIRONMENT}},
        max_ongoing_requests=config.ingress.max_ongoing_requests,
        graceful_shutdown_timeout_s=config.ingress.drain_timeout_s,
    )
