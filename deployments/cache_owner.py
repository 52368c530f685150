"""The owner of the stores, which every ingress asks: one process where SQLite and FAISS live in it, or several before servers."""

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ray import serve
from ray.serve.config import RequestRouterConfig

from cache.cascade import Decision, Query
from cache.config import CacheConfig
from cache.entry import Entry
from cache.errors import CacheError, StoreError
from cache.judge import AnswerJudge, answer_text
from cache.policy import Policy
from cache.semantic import Found, Parts, SemanticCache
from cache.stores.base import Known, Quota
from cache.stores.sql import open_database
from cache.vectors.factory import open_index
from deployments.channel.server import ChannelServer
from deployments.direct import DirectApp, DirectCalls
from deployments.embedding import Described, RemoteEmbedder, RemoteVerifier, calls_of_embedding
from deployments.handles import remote
from deployments.replicas import directory_of
from deployments.router import DirectoryRouter

NAME = "CacheOwner"
CALLABLE = frozenset({"page", "get", "get_all", "delete", "invalidate", "deny", "stats", "audits", "log", "used"})
"""Methods of the cache that ingresses may call by name, for tenants' own requests."""

OPEN_LIMIT_S = 30.0
"""How long a start waits for stores and encoder. Requests are answered without them."""
CLOSE_LIMIT_S = 10.0
"""How long requests that are under way, and then upkeep, may take to end."""
GATHER_S = 0.25
"""How long upkeep waits for more once there is something to do: until the index has a vector, the overlay does."""
REOPEN_S = 1.0
RETRY_S = 10.0
THREADS = 32
"""Of requests: most wait for the verifier, or for a database server, and those that come together are judged together."""

ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}
"""Of the process: with an arena for each thread it takes a tenth more memory, and is no faster."""

T = TypeVar("T")

log = logging.getLogger("ray.serve")


class CacheCalls(Protocol):
    """The contract of `CacheOwner`: what requests wait for. See `cache.semantic.SemanticCache`; raises `CacheError`."""

    async def find(self, namespace: str, key: str, fingerprint: str, text: str | None) -> Known: ...

    async def epoch(self, namespace: str) -> int: ...

    async def search(self, query: Query, policy: Policy) -> Found: ...

    async def keep(self, entries: list[Entry]) -> None:
        """All of them, or none."""

    async def learn(self, namespace: str, decision: Decision, answer: bytes, served: bool) -> bool | None:
        """See `cache.judge.AnswerJudge.same`."""

    async def acquire(self, namespace: str, key: str, epoch: int, owner: str, for_s: float) -> Entry | bool:
        """See `serve_app.flights_lease.LeaseService`."""

    async def release(self, namespace: str, key: str, epoch: int, owner: str) -> None: ...


class CacheOwner(CacheCalls):
    """Calls of `SemanticCache`, off the event loop. Times are this machine's."""

    def __init__(self, config: CacheConfig, data_dir: Path, quotas: Mapping[str, Quota], embedding: Any, host: str, secret: str) -> None:
        """`quotas`: by namespace, where it is not that of all. `embedding`: a handle. `host`, `secret`: of the private channel."""
        self._config = config
        self._secret = secret
        self._server = ChannelServer(DirectApp(CacheCalls, self), host, secret.encode(), grace_s=0)
        self._calls: DirectCalls | None = None
        self._quotas = quotas
        self._url = config.database_url.get_secret_value() if config.database_url else f"sqlite:///{data_dir}/cache.db"
        self._embedding = embedding
        self._cache: SemanticCache | None = None
        self._judge: AnswerJudge | None = None
        self._embedder: RemoteEmbedder | None = None
        self._opening: asyncio.Task[SemanticCache] | None = None
        self._filling = asyncio.Lock()
        self._closed_until = 0.0
        """On the event loop's clock: when the stores, which failed to open, are tried again."""
        self._is_started = self._is_filled = False
        self._upkeep: list[asyncio.Task[None]] = []
        self._threads = ThreadPoolExecutor(THREADS, "requests")
        self._working: set[asyncio.Task[Any]] = set()
        self._changed = asyncio.Event()

    async def check_health(self) -> None:
        """Serve awaits this before it sends the first request: by then the stores are open, if they can be opened at all."""
        if not self._is_started:
            self._is_started = True
            await self._server.start()
            opening = asyncio.ensure_future(self._opened())
            await asyncio.wait([opening], timeout=OPEN_LIMIT_S)
            error = opening.exception() if opening.done() else TimeoutError()
            if error:
                log.warning("the cache was not opened at the start", extra={"error": repr(error)[:500]})

    async def _opened(self) -> SemanticCache:
        """Not opened by the constructor, because only the encoder knows the dimension and it starts beside this process.

        A caller that is gone does not end the opening: what a thread has opened would be lost, and opened once more.
        """
        if self._cache is not None:
            return self._cache
        if self._opening is None or self._opening.done():
            self._opening = asyncio.ensure_future(self._open_once())
            self._opening.add_done_callback(lambda opening: opening.cancelled() or opening.exception())  # all callers may be gone
        return await asyncio.shield(self._opening)

    async def _open_once(self) -> SemanticCache:
        self._cache = await self._try_to_open()
        self._upkeep = [asyncio.create_task(each) for each in self._jobs(self._cache)]
        return self._cache

    async def _try_to_open(self) -> SemanticCache:
        """Raises `StoreError`, without asking the database again right after it failed: requests wait for this."""
        clock = asyncio.get_running_loop().time
        if clock() < self._closed_until:
            raise StoreError("the database could not be opened a moment ago")
        try:
            encoder = await remote(self._embedding.describe)
            calls = self._calls = self._calls or calls_of_embedding(self._embedding, self._secret)
            loop = asyncio.get_running_loop()
            embedder, verifier = RemoteEmbedder(calls, loop, encoder), RemoteVerifier(calls, loop, encoder)
            return await asyncio.to_thread(self._open, encoder, embedder, verifier)
        except CacheError:
            self._closed_until = clock() + REOPEN_S
            raise

    def _open(self, encoder: Described, embedder: RemoteEmbedder, verifier: RemoteVerifier) -> SemanticCache:
        database = open_database(self._url)
        try:
            index = open_index(self._config.vector_url.get_secret_value(), collection_name(encoder), encoder.dimension)
            parts = Parts.on(database, index, verifier, encoder.name)
            cache = SemanticCache(parts, time.time, self._config.quota.quota(), self._quotas)
            cache.evict(self._config.max_entries)
        except BaseException:
            database.close()
            raise
        self._embedder = embedder
        self._judge = AnswerJudge(self._embedder)
        return cache

    async def _fill(self, cache: SemanticCache) -> None:
        """Once: the vectors that the index lacks after a start. May raise `CacheError`; what is not there yet is a miss."""
        async with self._filling:
            if not self._is_filled:
                vectors = await self._work(lambda: cache.load() + cache.apply())
                self._is_filled = True
                log.info("semantic cache opened", extra={"vectors": vectors})

    async def _catch_up(self, cache: SemanticCache) -> None:
        """Fills the index, then gives what an earlier embedder has seen a vector of today's. Until both are done."""
        while True:
            try:
                await self._fill(cache)
                if self._embedder and (number := await asyncio.to_thread(cache.embed_again, self._embedder)):
                    log.info("entries embedded anew", extra={"entries": number})
                    self._changed.set()
                return
            except CacheError as error:
                log.warning("the vector index is not complete yet", extra={"error": repr(error)[:500]})
                await asyncio.sleep(RETRY_S)

    def _jobs(self, cache: SemanticCache) -> list[Any]:
        limit = self._config.max_entries
        return [
            self._catch_up(cache),
            self._repeat(cache.apply, 1.0, self._changed),
            self._repeat(cache.flush_uses, 2.0),
            self._repeat(cache.collect, 10.0),
            self._repeat(cache.enforce_quotas, 5.0),
            self._repeat(lambda: cache.evict(limit), 30.0),
            self._repeat(cache.reconcile, 600.0),
        ]

    async def _repeat(self, work: Callable[[], object], every_s: float, wake: asyncio.Event | None = None) -> None:
        """Until the process ends. What fails is tried again at the next turn."""
        while True:
            try:
                async with asyncio.timeout(every_s):
                    await (wake or asyncio.Event()).wait()
                    await asyncio.sleep(GATHER_S)
            except TimeoutError:
                pass
            if wake:
                wake.clear()
            try:
                await self._work(work)
            except CacheError as error:
                log.warning("upkeep of the cache failed", extra={"error": repr(error)[:500]})
            except Exception:  # a defect must not end the upkeep for good
                log.exception("upkeep of the cache failed")

    async def _work(self, work: Callable[[], T]) -> T:
        """Upkeep in a thread, which `close` waits for: a change that was claimed and not confirmed would be nobody's for a while."""
        running = asyncio.ensure_future(asyncio.to_thread(work))
        self._working.add(running)
        running.add_done_callback(self._working.discard)
        return await asyncio.shield(running)

    async def open(self) -> None:
        """Returns when the cache knows all that it has kept. Raises `CacheError`."""
        await self._fill(await self._opened())

    async def _in_thread(self, work: Callable[..., T], *args: Any) -> T:
        try:
            running = asyncio.get_running_loop().run_in_executor(self._threads, work, *args)
        except RuntimeError as error:  # the threads are shut down
            raise StoreError("the cache is being closed") from error
        return await running

    async def find(self, namespace: str, key: str, fingerprint: str, text: str | None) -> Known:
        return await self._in_thread((await self._opened()).find, namespace, key, fingerprint, text)

    async def epoch(self, namespace: str) -> int:
        return await self._in_thread((await self._opened()).epoch, namespace)

    async def search(self, query: Query, policy: Policy) -> Found:
        return await self._in_thread((await self._opened()).search, query, policy)

    async def keep(self, entries: list[Entry]) -> None:
        await self._in_thread((await self._opened()).insert_all, entries)
        self._changed.set()

    async def call(self, method: str, *args: Any) -> Any:
        if method not in CALLABLE:
            raise ValueError("this method is not for callers by name")
        return await self._in_thread(getattr(await self._opened(), method), *args)

    async def learn(self, namespace: str, decision: Decision, answer: bytes, served: bool) -> bool | None:
        """Whether a fresh answer says what the decision's candidate says; None: it cannot be told. See `SemanticCache.learn`."""
        return await self._in_thread(self._learn, await self._opened(), namespace, decision, answer, served)

    def _learn(self, cache: SemanticCache, namespace: str, decision: Decision, answer: bytes, served: bool) -> bool | None:
        kept = cache.get(namespace, decision.candidate.id) if decision.candidate else None
        texts = (answer_text(kept.answer) if kept else None, answer_text(answer))
        if self._judge is None or texts[0] is None or texts[1] is None:
            return None
        correct = self._judge.same(texts[0], texts[1])
        if correct is not None:
            cache.learn(namespace, decision, correct, served=served)
        return correct

    async def acquire(self, namespace: str, key: str, epoch: int, owner: str, for_s: float) -> Entry | bool:
        return await self._in_thread(_acquire, await self._opened(), namespace, key, epoch, owner, for_s)

    async def release(self, namespace: str, key: str, epoch: int, owner: str) -> None:
        await self._in_thread((await self._opened()).release, namespace, lease_name(key, epoch), owner)

    async def __del__(self) -> None:
        """Serve awaits this."""
        await self.close()

    async def close(self) -> None:
        for task in (*self._upkeep, *([self._opening] if self._opening else [])):
            task.cancel()
        await self._server.drain(CLOSE_LIMIT_S)
        await self._server.stop()
        if self._working:
            await asyncio.wait(self._working, timeout=CLOSE_LIMIT_S)
        self._threads.shutdown(wait=False, cancel_futures=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_LIMIT_S):  # for what runs: it must not find its database closed
                await asyncio.to_thread(self._threads.shutdown)
        if self._cache is not None:
            await asyncio.to_thread(self._cache.close)
        if self._calls is not None:
            self._calls.close()

    def record_replica_metadata(self) -> dict[str, Any]:
        return {"url": self._server.url}


def _acquire(cache: SemanticCache, namespace: str, key: str, epoch: int, owner: str, for_s: float) -> Entry | bool:
    acquired = cache.acquire(namespace, lease_name(key, epoch), owner, for_s)
    entry = cache.find_exact(namespace, key)  # not sooner: whoever released the lease has written first
    if entry is None:
        return acquired
    if acquired:
        cache.release(namespace, lease_name(key, epoch), owner)
    return entry


def lease_name(key: str, epoch: int) -> str:
    """Work that began before an invalidation holds up none that begins after it."""
    return hashlib.sha256(f"{key}/{epoch}".encode()).hexdigest()


def collection_name(encoder: Described) -> str:
    """Each encoder, and each revision of one, has an index of its own: vectors of two must never be compared."""
    return f"mygo_{hashlib.sha256(encoder.name.encode()).hexdigest()[:16]}_{encoder.dimension}"


def cache_deployment(
    config: CacheConfig, data_dir: Path, quotas: Mapping[str, Quota], embedding: serve.Application, host: str, secret: str
) -> serve.Application:
    """`host`, `secret`: of its private channel, and of the embedding deployment's."""
    return serve.deployment(
        CacheOwner,
        name=NAME,
        num_replicas=config.replicas,
        ray_actor_options={"num_cpus": 0, "runtime_env": {"env_vars": ENVIRONMENT}},
        request_router_config=RequestRouterConfig(request_router_class=DirectoryRouter),
        max_ongoing_requests=1000,
    ).bind(config, data_dir, quotas, embedding, host, secret)


def calls_of_cache(handle: Any, secret: str, limit_s: float) -> DirectCalls:
    """For the running event loop. `limit_s`: how long a call may take."""
    return DirectCalls(CacheCalls, directory_of(NAME), handle, secret, limit_s)
