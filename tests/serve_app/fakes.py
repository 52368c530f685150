"""What stands in for the cluster: the services that the pipeline calls, and a client whose replicas answer what a test says."""

import asyncio
import base64
import itertools
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from cache.cascade import Decision, Query, Reason
from cache.entry import Entry, Vector
from cache.exact import AnswerLru
from cache.policy import Policy
from cache.semantic import Found, SemanticCache
from cache.stores.base import Known
from deployments.embedding import Embedded
from deployments.private_app import NO_PROMPT
from deployments.replica_client import Answer, Asking, Call
from deployments.replicas import Replica, ReplicaDirectory
from deployments.reports import ENCODE_PATH, RENDER_PATH
from deployments.routing import Routing
from retrieval.documents import Begun, Chunk, SearchHit, SearchRequest, SearchResult
from retrieval.errors import UnknownTicketError
from retrieval.scopes import Caller, namespace_of
from retrieval.tier import RetrievalTier
from serve_app.admission.gate import Admission
from serve_app.admission.limiter import Limiter
from serve_app.config import AppConfig, load_config
from serve_app.content.base import Moderator
from serve_app.content.factory import make_content
from serve_app.flights import Flights
from serve_app.keeper import Keeper
from serve_app.learning import Learner
from serve_app.openai import sse
from serve_app.pipeline import Pipeline
from serve_app.renewal import Renewals
from serve_app.tenants import Namespaces
from serve_app.tiers import CacheTiers
from serve_app.uses import Uses
from tests.serve_app.recorded import RecordedMetrics

CANARY = "canary_7f3a9"
MODEL = "m"
MODEL_IDENTITY = "m as configured"
SECRET = b"a secret of the tests"
CONTEXT = 100
NOW = 1_700_000_000.0
TEXT = "A cache keeps answers."
USAGE = {"prompt_tokens": 5, "total_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 0}}


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class Fault:
    """What a fake service does instead of its work."""

    error: Exception | None = None
    hangs: bool = False

    async def strike(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.error:
            raise self.error


@dataclass
class FakeCache:
    """The cache owner: exact keys, and a search that finds the entry with the equal vector."""

    steps: list[str]
    clock: Clock
    entries: list[Entry] = field(default_factory=list)
    epochs: dict[str, int] = field(default_factory=dict)
    real: SemanticCache | None = None
    """What answers calls by name; `finds` and `writes` strike it too."""
    learnt: list[tuple[str, Decision, bytes, bool]] = field(default_factory=list)
    finds: Fault = field(default_factory=Fault)
    searches: Fault = field(default_factory=Fault)
    writes: Fault = field(default_factory=Fault)
    used: Counter[str] = field(default_factory=Counter)
    """Hits of which it was told, by entry."""

    @property
    def live(self) -> list[Entry]:
        """The last first, as it took the place of those before."""
        return [entry for entry in reversed(self.entries) if entry.live(self.clock())]

    async def find(self, namespace: str, key: str, fingerprint: str, text: str | None) -> Known:
        self.steps.append("exact")
        await self.finds.strike()
        if self.real is not None:
            return self.real.find(namespace, key, fingerprint, text)
        exact = next((entry for entry in self.live if (entry.namespace, entry.exact_key) == (namespace, key)), None)
        return Known(self.epochs.get(namespace, 0), exact)

    async def epoch(self, namespace: str) -> int:
        self.steps.append("epoch")
        await self.finds.strike()
        return self.real.epoch(namespace) if self.real is not None else self.epochs.get(namespace, 0)

    async def search(self, query: Query, policy: Policy) -> Found:
        self.steps.append("search")
        await self.searches.strike()
        if self.real is not None:
            return self.real.search(query, policy)
        for entry in self.live:
            same_partition = (entry.namespace, entry.fingerprint) == (query.namespace, query.fingerprint)
            if same_partition and entry.vector is not None and np.array_equal(entry.vector, query.vector):
                return Found(Decision(Reason.HIT, similarity=0.97), entry)
        return Found(Decision(Reason.EMPTY))

    async def call(self, method: str, *args: Any) -> Any:
        if self.real is None and method == "used":
            self.used.update(*args)
            return None
        if self.real is None:
            raise RuntimeError("this fake has no cache of its own")
        return getattr(self.real, method)(*args)

    async def learn(self, namespace: str, decision: Decision, answer: bytes, served: bool) -> bool | None:
        self.learnt.append((namespace, decision, answer, served))
        return True

    async def acquire(self, namespace: str, key: str, epoch: int, owner: str, for_s: float) -> Entry | bool:
        await self.finds.strike()
        return next((entry for entry in self.live if (entry.namespace, entry.exact_key) == (namespace, key)), True)

    async def release(self, namespace: str, key: str, epoch: int, owner: str) -> None: ...

    async def keep(self, entries: list[Entry]) -> None:
        await self.writes.strike()
        if self.real is not None:
            self.real.insert_all(entries)
        else:
            self.entries += entries


@dataclass
class FakeEmbedding:
    """Texts that `means` maps to one meaning get one vector."""

    steps: list[str]
    means: dict[str, str] = field(default_factory=dict)
    fault: Fault = field(default_factory=Fault)

    async def embed_one(self, text: str, whose: str) -> Embedded:
        self.steps.append("embed")
        return (await self.embed([text]))[0]

    async def embed(self, texts: list[str]) -> list[Embedded]:
        await self.fault.strike()
        return [Embedded(self._vector(self.means.get(text, text)), len(text.split())) for text in texts]

    def _vector(self, meaning: str) -> Vector:
        vector = np.random.default_rng(list(meaning.encode())).standard_normal(8)
        return (vector / np.linalg.norm(vector)).astype(np.float32)


@dataclass
class FakeRetrieval:
    """The same documents for every question; other methods are recorded."""

    steps: list[str]
    texts: list[str] = field(default_factory=lambda: ["A replica is a copy."])
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    async def search(self, caller: Caller, request: SearchRequest) -> SearchResult:
        self.steps.append("retrieve")
        self.calls.append((caller, request))
        hits = [SearchHit(Chunk(f"doc_{i}", 0, text), 0.9) for i, text in enumerate(self.texts)]
        return SearchResult(hits, dict.fromkeys(request.store_ids, 1), dict.fromkeys(request.store_ids, namespace_of(caller)))

    async def begin_search(self, caller: Caller, request: SearchRequest) -> Begun:
        return Begun(await self.search(caller, request))

    async def end_search(self, namespace: str, ticket: str) -> SearchResult:
        raise UnknownTicketError("this fake's searches are final at once")

    async def call(self, method: str, *args: Any) -> Any:
        self.calls.append((method, *args))
        return []


class LocalRetrieval:
    """The real retrieval tier, in this process."""

    def __init__(self, tier: RetrievalTier) -> None:
        self.tier = tier

    async def search(self, caller: Caller, request: SearchRequest) -> SearchResult:
        return self.tier.service.search(caller, request)

    async def begin_search(self, caller: Caller, request: SearchRequest) -> Begun:
        return self.tier.service.begin_search(caller, request)

    async def end_search(self, namespace: str, ticket: str) -> SearchResult:
        return self.tier.service.end_search(namespace, ticket)

    async def call(self, method: str, *args: Any) -> Any:
        return self.tier.call(method, *args)


class FakeAnswer:
    """A body in pieces; an exception among them is raised in its turn, `None` waits for ever."""

    def __init__(self, pieces: Sequence[bytes | Exception | None], status: int = 200, replica: str = "r1") -> None:
        self.status = status
        self.replica = replica
        self.closed = 0
        self._pieces = pieces

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if piece is None:
                await asyncio.Event().wait()
            elif isinstance(piece, Exception):
                raise piece
            else:
                yield piece

    async def close(self) -> None:
        self.closed += 1


class FakeReplicas:
    """A `ReplicaClient`. Answers as an engine that always says `TEXT`, after what a test puts into `script`."""

    def __init__(self, steps: list[str]) -> None:
        self.script: deque[FakeAnswer | Exception] = deque()
        self.calls: list[Call] = []
        self.answers: list[FakeAnswer] = []
        self._steps = steps

    @property
    def bodies(self) -> list[Any]:
        """The JSON that each call carried."""
        return [msgspec.json.decode(call.body) for call in self.calls]

    async def send(self, call: Call, ranked: Sequence[Replica], asking: Asking = lambda replica: {}) -> Answer:
        if ranked:
            asking(ranked[0].id)
        self._steps.append("engine")
        self.calls.append(call)
        answer = self.script.popleft() if self.script else _engine_answer(call)
        if isinstance(answer, Exception):
            raise answer
        self.answers.append(answer)
        return answer

    async def probe(self, call: Call, replica: Replica) -> Answer:
        if call.path in (RENDER_PATH, ENCODE_PATH):
            return FakeAnswer([], status=NO_PROMPT)
        return await self.send(call, [replica])

    async def close(self) -> None: ...


def _engine_answer(call: Call) -> FakeAnswer:
    if call.path == "/v1/models":
        return FakeAnswer([msgspec.json.encode({"object": "list", "data": [{"id": MODEL, "object": "model", "root": "/secret/path"}]})])
    if call.path == "/mygo/load":
        return FakeAnswer([b'{"running": 0, "waiting": 0, "kv_usage": 0.0, "draining": false}'])
    body = msgspec.json.decode(call.body)
    chat = "messages" in body
    return FakeAnswer(streamed(TEXT, chat=chat) if body.get("stream") else [whole(TEXT, chat=chat)])


def whole(text: str, *, chat: bool = True, finish_reason: str | None = "stop") -> bytes:
    """A non-streamed answer as vLLM writes it."""
    says: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    choice = {"index": 0, **says, "logprobs": None, "finish_reason": finish_reason, "stop_reason": None}
    head = {"id": "engine-1", "object": "chat.completion" if chat else "text_completion", "created": 1, "model": MODEL}
    return msgspec.json.encode({**head, "choices": [choice], "usage": USAGE, "prompt_logprobs": None})


def streamed(text: str, *, chat: bool = True, done: bool = True) -> list[bytes]:
    """The events of the same answer as a stream with usage, a word at a time."""
    head = {"id": "engine-1", "object": "chat.completion.chunk" if chat else "text_completion", "created": 1, "model": MODEL}
    says: list[dict[str, Any]] = [{"delta": {"role": "assistant", "content": ""}}] if chat else []
    says += [{"delta": {"content": word}} if chat else {"text": word} for word in text.replace(" ", " \0").split("\0")]
    choices = [{"index": 0, **each, "logprobs": None, "finish_reason": None} for each in says]
    choices[-1] |= {"finish_reason": "stop", "stop_reason": None}
    events = [sse.event({**head, "choices": [choice], "usage": None}) for choice in choices]
    return [*events, sse.event({**head, "choices": [], "usage": USAGE}), *([sse.DONE] if done else [])]


@dataclass
class World:
    """A pipeline, and everything around it that a test looks at or breaks."""

    config: AppConfig
    clock: Clock = field(default_factory=Clock)
    steps: list[str] = field(default_factory=list)
    """The parts that were called, in order."""
    moderator: Moderator | None = None
    metrics: RecordedMetrics = field(default_factory=RecordedMetrics)

    def __post_init__(self) -> None:
        self.cache = FakeCache(self.steps, self.clock)
        self.embedding = FakeEmbedding(self.steps)
        self.retrieval = FakeRetrieval(self.steps)
        self.replicas = FakeReplicas(self.steps)
        self.directory = ReplicaDirectory(self.clock)
        self.directory.replace([Replica("r1", "http://r1", CONTEXT, 16)])
        self.keeper = Keeper(self.cache, self.metrics)
        self.lru = AnswerLru(self.config.cache.exact.max_bytes, self.clock)
        self.learner = Learner(self.cache, self.metrics)
        self.renewals = Renewals(self.cache, self.metrics, self.clock)
        self.flights = Flights(self.cache, self.metrics, self.config.cache.single_flight)
        self.uses = Uses(self.cache)
        tiers = CacheTiers(
            self.config.cache,
            MODEL_IDENTITY,
            self.lru,
            self.cache,
            self.embedding,
            self.keeper,
            self.learner,
            self.metrics,
            self.flights,
            self.uses,
            self.clock,
        )
        self.pipeline = Pipeline(
            config=self.config,
            namespaces=Namespaces(SECRET, self.config.environment, self.config.retrieval.groups),
            tiers=tiers,
            embedding=self.embedding,
            documents=self.retrieval if self.config.retrieval.enabled else None,
            directory=self.directory,
            routing=Routing(self.config.routing, self.directory, self.replicas, b"seed", "ingress", self.clock, self.metrics),
            client=self.replicas,
            metrics=self.metrics,
            learner=self.learner,
            renewals=self.renewals,
            admission=Admission(Limiter(self.config.limits.limits(), self.clock)),
            clock=self.clock,
            content=make_content(self.config.content, self.metrics, self.moderator),
        )


def make_world(moderator: Moderator | None = None, **changes: Any) -> World:
    """`changes`: sections of the configuration."""
    return World(load_config({"llm": {"model": {"name": MODEL}}, **changes}), moderator=moderator)


async def eventually(condition: Callable[[], bool], limit_s: float = 5.0) -> None:
    """Returns when the condition holds. Polls, because what it is about happens in another task or process."""
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.005)


def floats_of(encoded: str) -> list[float]:
    """The numbers in a base64 embedding."""
    numbers: list[float] = np.frombuffer(base64.b64decode(encoded), "<f4").tolist()
    return numbers


_numbers = itertools.count()


def new_text() -> str:
    """A question that no test has asked."""
    return f"What is a cache? ({next(_numbers)})"
