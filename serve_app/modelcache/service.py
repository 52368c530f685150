"""Answers ModelCache's requests from a cache."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import TypeVar

from serve_app.metrics import Metrics
from serve_app.modelcache import bodies
from serve_app.modelcache.backend import BackendError, CacheBackend, Hit, QueryRecord
from serve_app.modelcache.bodies import Response
from serve_app.modelcache.keytext import key_text, question_of
from serve_app.modelcache.protocol import Delete, Head, Insert, Query, Refusal, Register, Truncate, read_head, read_request
from serve_app.queue_writer import QueueWriter

log = logging.getLogger("ray.serve")

T = TypeVar("T")
LIMIT_S = 30.0
INSERT_LIMIT_S = 600.0
"""The rows are encoded meanwhile."""
MAX_LOGGED_CHARS = 10_000
MAX_LOGGED_TOGETHER = 100
"""Lines of the query log in one call."""
NO_MODEL = "scope.model is empty."


@dataclass(slots=True)
class _Call:
    """One request. `hit` and `query` become known on the way, for the query log."""

    tenant: str | None
    request_id: str
    started: float
    hit: Hit | None = None
    query: str = ""


class ModelCacheService:
    """One for each ingress replica. `blocked`: models that are neither looked up nor filled. `clock` gives seconds. `logs_queries`:
    each look-up, with its question, is written to the query log.

    What goes wrong is an answer too: of errors only a `BackendError`'s text is shown, the others are in the log.
    """

    def __init__(
        self,
        backend: CacheBackend,
        metrics: Metrics,
        blocked: Collection[str] = (),
        clock: Callable[[], float] = time.perf_counter,
        logs_queries: bool = True,
    ) -> None:
        self._backend = backend
        self._blocked = frozenset(blocked)
        self._clock = clock
        self._logs_queries = logs_queries
        self.query_log = QueueWriter("query_log", backend.log, metrics, MAX_LOGGED_TOGETHER)

    async def handle(self, tenant: str | None, payload: object, request_id: str = "") -> Response:
        """`payload`: a body's bytes as they came, or a JSON value. Raises nothing."""
        call = _Call(tenant, request_id, self._clock())
        head = None
        try:
            head = read_head(payload)
            response = await self._answer(call, head)
        except Refusal as refusal:
            response = refusal.response
        except Exception:
            log.exception("request failed", extra={"id": request_id})
            response = bodies.internal_error()
        if head and head.type == "query":
            self._record(call, head.model, response)
        return response

    async def close(self) -> None:
        """Writes what waits to be logged, if the store still takes it."""
        await self.query_log.drain()
        await self.query_log.stop()

    async def _answer(self, call: _Call, head: Head) -> Response:
        match read_request(head, self._blocked):
            case Query() as query:
                return await self._query(call, head, query)
            case Insert() as insert:
                return await self._insert(call, head, insert)
            case Delete() as delete:
                return await self._delete(call, head, delete)
            case Truncate():
                return await self._truncate(call, head)
            case Register():
                return await self._register(call, head)

    async def _query(self, call: _Call, head: Head, query: Query) -> Response:
        """A blank question, tenant or model holds no answer, and the backend is not asked for one."""
        call.query = key_text(query.messages)[:MAX_LOGGED_CHARS]
        try:
            if head.has_model and call.tenant != "" and not question_of(query.messages).blank:
                call.hit = await _within(LIMIT_S, self._backend.query(call.tenant, head.model, query.messages))
        except Exception as error:
            return bodies.query_failed(_words(error, call), self._elapsed(call))
        return bodies.query_answered(call.hit, self._elapsed(call))

    async def _insert(self, call: _Call, head: Head, insert: Insert) -> Response:
        if not head.has_model:
            return bodies.insert_failed(NO_MODEL)
        rows = [row for row in insert.rows if row]
        try:
            ids = iter(await _within(INSERT_LIMIT_S, self._backend.insert(call.tenant, head.model, rows)) if rows else [])
        except Exception as error:
            return bodies.insert_failed(_words(error, call))
        return bodies.inserted([next(ids, None) if row else None for row in insert.rows])

    async def _delete(self, call: _Call, head: Head, delete: Delete) -> Response:
        if not head.has_model or not delete.ids:
            return bodies.deleted(0)
        try:
            return bodies.deleted(await _within(LIMIT_S, self._backend.delete(call.tenant, head.model, delete.ids)))
        except Exception as error:
            return bodies.remove_failed(_shown(error, call))

    async def _truncate(self, call: _Call, head: Head) -> Response:
        if not head.has_model:
            return bodies.truncated(None)
        try:
            return bodies.truncated(await _within(LIMIT_S, self._backend.truncate(call.tenant, head.model)))
        except Exception as error:
            return bodies.remove_failed(_shown(error, call))

    async def _register(self, call: _Call, head: Head) -> Response:
        if not head.has_model:
            return bodies.register_failed(NO_MODEL)
        try:
            return bodies.registered(created=await _within(LIMIT_S, self._backend.register(call.tenant, head.model)))
        except Exception as error:
            return bodies.register_failed(_words(error, call))

    def _elapsed(self, call: _Call) -> float:
        return self._clock() - call.started

    def _record(self, call: _Call, model: str, response: Response) -> None:
        if not self._logs_queries:
            return
        body = response[1]
        self.query_log.add(QueryRecord(call.tenant, model, body["errorCode"], body["errorDesc"], call.hit, self._elapsed(call), call.query))


async def _within(limit_s: float, work: Awaitable[T]) -> T:
    async with asyncio.timeout(limit_s):
        return await work


def _shown(error: Exception, call: _Call) -> str:
    """What a client may read of an error: a `BackendError`'s own text. The rest is in the log, under the request's id."""
    if isinstance(error, BackendError):
        log.warning("the cache refused", extra={"id": call.request_id})
        return str(error)
    log.error("the cache failed", exc_info=error, extra={"id": call.request_id})
    return ""


def _words(error: Exception, call: _Call) -> str:
    """The same, where there must be a text."""
    if shown := _shown(error, call):
        return shown
    if isinstance(error, TimeoutError):
        return "The cache did not answer in time."
    return "The cache had an error. The request id names it in the logs."
