"""Kept contexts, as one ingress sees them: what chats begin with, and what their marks ask for."""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Concatenate, ParamSpec, TypeVar

import msgspec
from cachetools import LRUCache

from deployments.errors import RenderError
from deployments.kept_prefix import Chain, KeptPrefix, State
from deployments.kept_prefixes import KeptPrefixes, changed
from deployments.replica_client import Call
from serve_app.contexts.asked import Mark, Reference
from serve_app.contexts.beginnings import BEHIND, client_body, has_media, named
from serve_app.contexts.store import PURGED, Context, ContextStore, no_context
from serve_app.errors import AppError, ContextStoreError, InvalidRequestError
from serve_app.openai.requests import Generation
from serve_app.relay import engine_request
from serve_app.tenants import Caller, Principal

log = logging.getLogger("ray.serve")

P = ParamSpec("P")
T = TypeVar("T")
POLL_S = 1.0
PURGE_S = 60.0
AGAIN_S = 10.0
CALL_LIMIT_S = 4.0
THREADS = 4
PLACE_LIMIT_S = 2.0
"""Until a context that was just made has its place, it is waited for so long."""
MAX_REMEMBERED = 4096
"""Marks whose prefixes are known without rendering them."""
MAX_BYTES = 64 * 1024 * 1024
"""Of contexts' messages in memory."""
MAX_AT_ONCE = 32
"""Marked requests whose prefixes are being found out."""
HEADER = "x-mygo-context"


class Contexts:
    """Belongs to an event loop, in which `run` must run. `clock` gives seconds since the epoch."""

    def __init__(
        self,
        open_store: Callable[[], ContextStore],
        kept: KeptPrefixes,
        tokens_of_tenant: int | None,
        clock: Callable[[], float] = time.time,
        adapters: Collection[str] = (),
    ) -> None:
        """`open_store`: may raise `ContextStoreError`, and is called again then. `tokens_of_tenant`: that a tenant may have kept of whom
        nothing else is said. `adapters`: models that have KV of their own.
        """
        self.kept = kept
        self._open_store = open_store
        self._store: ContextStore | None = None
        self._opening = threading.Lock()
        self._tokens_of_tenant = tokens_of_tenant
        self._clock = clock
        self._adapters = adapters
        self._threads = ThreadPoolExecutor(THREADS, "contexts")
        self._read: LRUCache[str, Context] = LRUCache(MAX_BYTES, getsizeof=_size)
        """By id. What a context says never changes; whether it lives, `_ends` says."""
        self._ends: dict[str, float] = {}
        self._keys: dict[str, int] = {}
        """Of live contexts, as far as their prefixes have been found out."""
        self._marks: LRUCache[bytes, int | str] = LRUCache(MAX_REMEMBERED)
        """What became of a mark: its prefix's key, or why it is not kept."""
        self._not_before: dict[str, float] = {}
        """When contexts are looked at again whose prefixes could not be found out."""
        self._put_off: dict[str, tuple[str, float]] = {}
        """Namespaces and new ends of contexts that were put off by use, and are not noted yet."""
        self._tasks: set[asyncio.Task[None]] = set()
        """Which find out marks."""
        self._taking_over: asyncio.Task[None] | None = None
        self._purged_at = clock()

    def limit(self, principal: Principal) -> int | None:
        own = principal.shared.context_tokens
        return self._tokens_of_tenant if own is None else own

    async def run(self) -> None:
        """Looks after what is kept until it is cancelled."""
        keeping = asyncio.ensure_future(self.kept.run())
        try:
            while True:
                await _tried(self.look())
                await asyncio.sleep(POLL_S)
        finally:
            for task in (keeping, *self._tasks, *([self._taking_over] if self._taking_over else ())):
                task.cancel()

    async def look(self) -> None:
        """Takes over what other ingresses have changed and deleted, and begins with what they have made. Raises `ContextStoreError`."""
        now = self._clock()
        if now - self._purged_at >= PURGE_S:
            self._purged_at = now
            while await self.call(ContextStore.purge, now) == PURGED:
                pass
        await self._note()
        known = set(self._ends)  # what is made meanwhile is not in what is read
        live = await self.call(ContextStore.live, now)
        for gone in known - live.keys():
            self.forget(gone)
        for context_id, end in live.items():
            self._lives_until(context_id, end)
            if context_id in self._keys and self.kept.get(self._keys[context_id], context_id) is None:  # its end has been put off elsewhere
                del self._keys[context_id]
        self._not_before = {name: at for name, at in self._not_before.items() if name in live and at > now}
        missing = [name for name in live if name not in self._keys and name not in self._not_before]
        if missing and (self._taking_over is None or self._taking_over.done()):  # it may take minutes where engines are slow
            self._taking_over = asyncio.create_task(_tried(self._take_over(missing[:PURGED])))

    async def call(self, work: Callable[Concatenate[ContextStore, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a method of the store gives. Raises what it raises, and `ContextStoreError` if it takes too long."""
        try:
            async with asyncio.timeout(CALL_LIMIT_S):
                return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(self._opened(), *args, **kwargs))
        except TimeoutError:
            raise ContextStoreError("the database did not answer in time") from None

    def _opened(self) -> ContextStore:
        """In a thread. While the database is away, requests that ask nothing of it are answered: so it is opened when it is needed."""
        with self._opening:
            self._store = self._store or self._open_store()
            return self._store

    async def close(self) -> None:
        self._threads.shutdown(wait=False)
        if self._store:
            self._store.close()

    def is_held(self, context_id: str) -> bool:
        """A replica keeps it, as far as is known here."""
        prefix = self.kept.get(self._keys.get(context_id, -1), context_id)
        return prefix is not None and prefix.state == "kept"

    async def measured(self, context: Context) -> Chain | None:
        """Its prefix. None: it cannot be told, or is shorter than a block. Raises `RenderError`."""
        return await self.measure(context.model, context.messages, context.tools, context.namespace)

    async def measure(self, model: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, namespace: str) -> Chain | None:
        """See `measured`."""
        if has_media(messages):
            return None
        body = {"model": model, "messages": [*messages, BEHIND], **({"tools": tools} if tools is not None else {})}
        whole = Call("POST", "/v1/chat/completions", {}, msgspec.json.encode(body))
        beginning = changed(whole, messages=messages, add_generation_prompt=False)
        found = await self.kept.measure(whole, [beginning])
        if found is None:  # a template that wants user and assistant to take turns
            found = await self.kept.measure(changed(whole, messages=messages), [beginning])
        return self.kept.whole_blocks(found[0], namespace, model if model in self._adapters else None) if found else None

    async def made(self, context: Context, chain: Chain) -> State:
        """It has just been stored here, and computed. What its place is after a moment."""
        self._read[context.id] = context
        self._ends[context.id] = context.expires_at
        return await self.kept.placed(self._keep(context, chain), PLACE_LIMIT_S)

    def changed(self, context: Context) -> None:
        self._lives_until(context.id, context.expires_at)

    def forget(self, context_id: str) -> None:
        """It is not to be kept any longer."""
        self._ends.pop(context_id, None)
        self._read.pop(context_id, None)
        key = self._keys.pop(context_id, None)
        if key is not None:
            self.kept.drop(key, context_id)

    async def begun(self, request: Generation, namespace: str) -> Generation:
        """The request with the messages of the context that it begins with. Raises `NotFoundError`, `InvalidRequestError`."""
        reference = request.context
        if reference is None:
            return request
        context = await self._find(reference, namespace)
        if request.model != context.model:
            raise InvalidRequestError(f"This context is for the model {context.model}.", param="model", code="invalid_value")
        end = self._ends.get(context.id, context.expires_at)
        if reference.reset_ttl_s is not None:
            end = self._clock() + reference.reset_ttl_s
            self._extend(context, end)
        tools = {} if context.tools is None else {"tools": context.tools}
        body = {**request.body, **tools, "messages": [*context.messages, *request.body["messages"]]}
        marks = tuple(replace(mark, message=mark.message + len(context.messages)) for mark in request.marks if mark.field == "messages")
        headers = {"msh-context-cache-id": context.id, "msh-context-cache-token-exp": str(int(end))}
        return replace(request, body=body, marks=marks, context=None, context_headers=headers)

    def marked(self, request: Generation, namespace: str) -> Generation:
        """The request with headers that say what is known of its marks. What is kept lives on from now."""
        if not request.marks:
            return request
        request = replace(request, marks=named(request, namespace))
        for mark in request.marks:
            if prefix := self._known(mark, namespace):
                self.kept.keep(namespace, self._holder(namespace), prefix.chain, mark.ttl_s)
        states = {self._state(mark, namespace) for mark in request.marks}
        state = next(each for each in ("full", "over_quota", "media", "too_short", "new", "kept") if each in states)
        return replace(request, context_headers={**request.context_headers, HEADER: state})

    def _state(self, mark: Mark, namespace: str) -> str:
        found = "media" if mark.has_media else self._marks.get(mark.name)
        if isinstance(found, str):
            return found
        prefix = self._known(mark, namespace)
        return prefix.state if prefix else "new"

    def keeping(self, request: Generation, caller: Caller, namespace: str) -> Callable[[str], None] | None:
        """What is to be called when an engine holds the prompt of a request that is `marked`. None: nothing of it is to be kept."""
        return (lambda replica: self._mark(request, caller, namespace)) if request.marks else None

    def _mark(self, request: Generation, caller: Caller, namespace: str) -> None:
        unknown = [mark for mark in request.marks if self._is_to_be_found_out(mark, namespace)]
        if unknown and len(self._tasks) < MAX_AT_ONCE:
            task = asyncio.ensure_future(self._find_out(request, unknown, caller, namespace))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _is_to_be_found_out(self, mark: Mark, namespace: str) -> bool:
        return not mark.has_media and self._marks.get(mark.name) != "too_short" and self._known(mark, namespace) is None

    def _known(self, mark: Mark, namespace: str) -> KeptPrefix | None:
        found = self._marks.get(mark.name)
        return self.kept.get(found, self._holder(namespace)) if isinstance(found, int) else None

    def _holder(self, namespace: str) -> str:
        """Of a tenant's marks, which this ingress alone has seen. No use of a mark brings an end forward, so one for all will do."""
        return f"{namespace}/{self.kept.ingress}"

    async def _find_out(self, request: Generation, marks: Sequence[Mark], caller: Caller, namespace: str) -> None:
        whole, salt, _ = engine_request(request, caller, namespace)
        body, ends = client_body(request), {"add_generation_prompt": False} if request.kind == "chat" else {}
        try:
            found = await self.kept.measure(whole, [changed(whole, **mark.beginning(body, BEHIND), **ends) for mark in marks])
        except RenderError:  # the next request with these marks finds them out
            return
        for mark, tokens in zip(marks, found or (), strict=False):
            self._marks[mark.name] = self._outcome(mark, self.kept.whole_blocks(tokens, salt, request.adapter), caller, namespace)

    def _outcome(self, mark: Mark, chain: Chain | None, caller: Caller, namespace: str) -> int | str:
        """What becomes of it: see `_marks`."""
        if chain is None:
            return "too_short"
        if self._is_over(namespace, chain.keys, self.limit(caller.principal)):
            return "over_quota"
        return self.kept.keep(namespace, self._holder(namespace), chain, mark.ttl_s).key

    def _is_over(self, namespace: str, keys: Sequence[int], most: int | None) -> bool:
        return self.kept.is_full(namespace, keys[-1]) or self.is_too_much(namespace, keys, most)

    def is_too_much(self, namespace: str, keys: Sequence[int], most: int | None) -> bool:
        """A tenant that may have `most` tokens kept would have more, with a prefix that has these keys."""
        return most is not None and self.kept.tokens_of(namespace) + self.kept.more_tokens(namespace, keys) > most

    async def _find(self, reference: Reference, namespace: str) -> Context:
        context_id = reference.id
        if reference.tag:
            context_id = (await self.call(ContextStore.tag, namespace, reference.tag)).context_id
        context, now = self._read.get(context_id), self._clock()
        if context is None or context_id not in self._ends:
            context = await self.call(ContextStore.get, namespace, context_id, now)
            self._remember(context)
        if context.namespace != namespace or self._ends.get(context_id, context.expires_at) <= now:
            raise no_context()
        return context

    def _extend(self, context: Context, end: float) -> None:
        """This ingress knows it at once, the others after the next look."""
        self._lives_until(context.id, end)
        self._put_off[context.id] = context.namespace, end

    async def _note(self) -> None:
        """Raises `ContextStoreError`; what could not be noted then is noted later."""
        while self._put_off:
            context_id, (namespace, end) = next(iter(self._put_off.items()))
            await self.call(ContextStore.put_off, namespace, context_id, end, self._clock())
            if self._put_off.get(context_id) == (namespace, end):
                del self._put_off[context_id]

    def _lives_until(self, context_id: str, end: float) -> None:
        self._ends[context_id] = end
        if prefix := self.kept.get(self._keys.get(context_id, -1), context_id):
            self.kept.set_end(prefix, context_id, end - self._clock())

    def _remember(self, context: Context) -> None:
        if _size(context) <= MAX_BYTES:
            self._read[context.id] = context

    async def _take_over(self, ids: Sequence[str]) -> None:
        """Raises `ContextStoreError`."""
        for context in await self.call(ContextStore.read, ids):
            if context.id in self._ends and context.id not in self._keys:
                await self._take(context)

    async def _take(self, context: Context) -> None:
        try:
            chain = await self.measured(context)
        except RenderError:
            chain = None
        if context.id not in self._ends:  # it was deleted meanwhile
            return
        if chain is None:  # there may be no replica yet, or it is too long for this model
            self._not_before[context.id] = self._clock() + AGAIN_S
        else:
            self._keep(context, chain)

    def _keep(self, context: Context, chain: Chain) -> KeptPrefix:
        self._keys[context.id] = chain.keys[-1]
        for_s = self._ends.get(context.id, context.expires_at) - self._clock()
        return self.kept.keep(context.namespace, context.id, chain, for_s)


async def _tried(work: Awaitable[None]) -> None:
    """What is kept stays so without it."""
    try:
        await work
    except AppError as error:
        log.warning("the database of kept contexts did not answer", extra={"error": str(error)})
    except Exception:
        log.exception("kept contexts could not be looked for")


def _size(context: Context) -> int:
    return len(msgspec.json.encode([context.messages, context.tools])) + 1000
