"""The retrieval deployment: collections of documents and files in SQLite and on disk, searched with FAISS or Milvus, read in the
background."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ray import serve
from ray.serve.config import RequestRouterConfig

from cache.embedders.base import Embedder
from deployments.adding import Adding
from deployments.channel.server import ChannelServer
from deployments.direct import DirectApp, DirectCalls
from deployments.embedding import Described, RemoteEmbedder, calls_of_embedding
from deployments.handles import remote
from deployments.replicas import directory_of
from deployments.retrieval_metrics import RetrievalMetrics
from deployments.router import DirectoryRouter
from retrieval.config import RetrievalConfig
from retrieval.documents import Begun, SearchRequest, SearchResult
from retrieval.errors import BusyError, InputError, OversizeError, RetrievalError, StorageError, UnknownError
from retrieval.scopes import Caller, namespace_of
from retrieval.search import SEARCH_THREADS
from retrieval.sources import IndexSource, open_source
from retrieval.store import DocumentStore
from retrieval.tier import RetrievalTier

NAME = "Retrieval"
THREADS = 32
"""Of calls, none of which takes long."""
DRAIN_LIMIT_S = 10.0
EXPORT_S = 1.0
"""How often counters are told."""

T = TypeVar("T")

log = logging.getLogger("ray.serve")


@dataclass(frozen=True, slots=True)
class Refused:
    """What a call returns instead of raising an error that is the caller's to mend: Ray would log it as this deployment's failure."""

    error: RetrievalError


_REFUSALS = (BusyError, InputError, OversizeError, UnknownError)


class RetrievalCalls(Protocol):
    """The contract of `Retrieval`: what requests wait for. See `retrieval.service.RetrievalService`; raises `RetrievalError` and
    `CacheError`.
    """

    async def search(self, caller: Caller, request: SearchRequest) -> SearchResult: ...

    async def begin_search(self, caller: Caller, request: SearchRequest) -> Begun: ...

    async def end_search(self, namespace: str, ticket: str) -> SearchResult: ...


class Retrieval(RetrievalCalls):
    """Methods of `RetrievalTier`, off the event loop."""

    def __init__(self, config: RetrievalConfig, data_dir: Path, embedding: Any, host: str, secret: str) -> None:
        """`host`, `secret`: of its private channel, and of the embedding deployment's."""
        self._server = ChannelServer(DirectApp(RetrievalCalls, self), host, secret.encode(), grace_s=0)
        self._config = config
        self._data_dir = data_dir
        self._embedding = embedding
        self._secret = secret
        self._tier: RetrievalTier | None = None
        self._lock = asyncio.Lock()
        self._closing = asyncio.Event()
        self._threads = ThreadPoolExecutor(THREADS, "retrieval")
        self._searches = ThreadPoolExecutor(SEARCH_THREADS, "searches")  # so that they do not wait for those
        self._adding = Adding()
        self._calls: DirectCalls | None = None
        self._opening: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None

    def record_replica_metadata(self) -> dict[str, Any]:
        return {"url": self._server.url}

    async def check_health(self) -> None:
        """Serve awaits this before it sends the first request. Files that an earlier process has not finished wait for no request."""
        await self._server.start()
        if self._tier is None and (self._opening is None or self._opening.done()):
            self._opening = asyncio.ensure_future(self._open_early())

    async def _open_early(self) -> None:
        try:
            await self._opened()
        except Exception:  # the first call tries again, and says what is wrong
            if not self._closing.is_set():
                log.warning("the documents were not opened at the start", exc_info=True)

    async def _opened(self) -> RetrievalTier:
        """Not by the constructor, because only the encoder knows its name and dimension and it starts beside this process."""
        async with self._lock:
            if self._tier is None:
                described = await self._described()
                calls = self._calls = self._calls or calls_of_embedding(self._embedding, self._secret)
                embedder = RemoteEmbedder(calls, asyncio.get_running_loop(), described)
                self._tier = await asyncio.to_thread(self._open, embedder)
                self._telling = asyncio.create_task(self._tell(self._tier))
        return self._tier

    async def _described(self) -> Described:
        """Raises `StorageError` when this process is being closed: the encoder may never answer."""
        if self._closing.is_set():
            raise _closed()
        asking, closing = asyncio.ensure_future(remote(self._embedding.describe)), asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait((asking, closing), return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                described: Described = asking.result()
                return described
            raise _closed()
        finally:
            asking.cancel()
            closing.cancel()

    def _open(self, embedder: Embedder) -> RetrievalTier:
        store = DocumentStore(f"sqlite:///{self._data_dir}/documents.db", embedder.name)
        try:
            if others := store.others():
                log.warning("collections of other encoders cannot be searched", extra={"encoder": embedder.name, "others": others})
            source = self._source(embedder)
            files = self._data_dir / "files"
            tier = RetrievalTier(store, embedder, self._config, files, source, time.time)
        except BaseException:
            store.close()
            raise
        tier.start()
        return tier

    def _source(self, embedder: Embedder) -> IndexSource:
        return open_source(self._config.index, self._data_dir / "indexes", embedder)

    async def open(self) -> None:
        """Returns when documents can be searched."""
        await self._opened()

    async def call(self, method: str, *args: Any) -> Any:
        """Any call of the tier, by name: its result, or `Refused`."""
        tier = await self._opened()
        try:
            if method == "add_documents":
                return await self._adding.do(namespace_of(args[0]), partial(tier.call, method, *args))
            return await _running(self._threads, tier.call, method, *args)
        except _REFUSALS as error:
            return Refused(error)

    async def search(self, caller: Caller, request: SearchRequest) -> SearchResult:
        return await _running(self._searches, (await self._opened()).service.search, caller, request)

    async def begin_search(self, caller: Caller, request: SearchRequest) -> Begun:
        return await _running(self._searches, (await self._opened()).service.begin_search, caller, request)

    async def end_search(self, namespace: str, ticket: str) -> SearchResult:
        return await _running(self._searches, (await self._opened()).service.end_search, namespace, ticket)

    async def _tell(self, tier: RetrievalTier) -> None:
        metrics = RetrievalMetrics()
        while True:
            try:
                waiting = await asyncio.to_thread(tier.ingest.waiting)
                metrics.tell(tier.service.result_counts, tier.ingest.counts, waiting)
            except StorageError as error:
                log.warning("what waits to be read was not counted: %s", error)
            await asyncio.sleep(EXPORT_S)

    async def close(self) -> None:
        """Files that are being read go on in the next process."""
        self._closing.set()
        await self._server.drain(DRAIN_LIMIT_S)
        await self._server.stop()
        if self._opening is not None:
            await self._opening
        async with self._lock:  # a call may be opening the documents; from now on none does
            pass
        if self._telling is not None:
            self._telling.cancel()
        # In threads: what is under way may need this loop for the encoder.
        for threads in (self._searches, self._threads):
            await asyncio.to_thread(threads.shutdown, cancel_futures=True)
        await asyncio.to_thread(self._adding.stop)
        if self._tier is not None:
            await asyncio.to_thread(self._tier.close)
        if self._calls is not None:
            self._calls.close()

    async def __del__(self) -> None:
        """Serve awaits this when the replica is to stop."""
        await self.close()


async def _running(threads: ThreadPoolExecutor, work: Callable[..., T], *args: Any) -> T:
    try:
        running = asyncio.get_running_loop().run_in_executor(threads, work, *args)
    except RuntimeError as error:  # the threads are shut down
        raise _closed() from error
    return await running


def _closed() -> StorageError:
    return StorageError("the document store is being closed")


def retrieval_deployment(
    config: RetrievalConfig,
    data_dir: Path,
    embedding: serve.Application,
    host: str,
    secret: str,
    retrieval: type[Retrieval] = Retrieval,
) -> serve.Application:
    """`host`, `secret`: of its private channel, and of the embedding deployment's; `retrieval`: what is deployed."""
    return serve.deployment(
        retrieval,
        name=NAME,
        num_replicas=1,  # SQLite has one writer
        ray_actor_options={"num_cpus": 0},
        request_router_config=RequestRouterConfig(request_router_class=DirectoryRouter),
        max_ongoing_requests=100,
    ).bind(config, data_dir, embedding, host, secret)


def calls_of_retrieval(handle: Any, secret: str, limit_s: float) -> DirectCalls:
    """For the running event loop. `limit_s`: how long a call may take."""
    return DirectCalls(RetrievalCalls, directory_of(NAME), handle, secret, limit_s)
