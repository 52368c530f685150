"""The clients of `benchmarks.soak`: requests of every kind, and whether each answer is right.

The simulated engine's answer is a function of the prompt, and each tenant's prompts name it; so a wrong answer, another request's or
another tenant's, is seen at once.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from benchmarks.fairness import MODEL
from deployments.config import SimulatedEngineConfig
from deployments.engines.simulated.protocol import ChatMessage, ChatRequest
from deployments.engines.simulated.text import compose

LIMIT_S = 90.0
QUESTIONS = 400
"""That each tenant asks again and again."""
DOCUMENTS = 40
MAX_TOKENS = 24
KINDS = {"chat": 40, "stream": 25, "new": 10, "embeddings": 8, "search": 8, "documents": 4, "entry": 5}
"""Kinds of requests, and how often each is made. `new` is never asked again, `documents` is a chat with retrieval, `entry` asks the store
for an entry that answered before."""
REFUSALS = frozenset({429, 502, 503, 504})


def expected(config: SimulatedEngineConfig, content: str) -> str:
    """What the simulated engine answers, in any process."""
    request = ChatRequest(messages=[ChatMessage("user", content)], max_tokens=MAX_TOKENS, temperature=0)
    ((prompt, limits),) = request.task(config).prompts
    return "".join(compose(prompt, limits).pieces)


@dataclass
class Tenant:
    """One, and what is known to be kept for it."""

    name: str
    headers: dict[str, str]
    store: str = ""
    """Id of its vector store."""
    hits: dict[str, str] = field(default_factory=dict)
    """Entries that have answered: the question of each."""
    stored: dict[str, str] = field(default_factory=dict)
    """Those of them that the store has shown: they must be there to the end."""
    embedded: dict[str, list[float]] = field(default_factory=dict)

    def question(self, number: int) -> str:
        return f"What does {self.name} know about subject {number}?"


@dataclass
class Tally:
    """What became of the requests."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """`answered`, `refused`, `broken` (a stream that ended with an error event), `improper`, `wrong`."""
    kinds: Counter[str] = field(default_factory=Counter)
    caches: Counter[str] = field(default_factory=Counter)
    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """That requests took, by kind."""
    examples: list[str] = field(default_factory=list)
    """Of what should not have been."""

    def add(self, kind: str, outcome: str, example: str = "") -> None:
        self.outcomes[outcome] += 1
        self.kinds[f"{kind} {outcome}"] += 1
        if example and len(self.examples) < 20:
            self.examples.append(f"{time.strftime('%H:%M:%S')} {kind}: {example[:300]}")


class Load:
    """Asks `per_s` requests a second in all, at most `at_once`, until it is stopped."""

    def __init__(self, url: str, engine: Mapping[str, Any], tenants: list[Tenant], per_s: float, seed: int, at_once: int = 64) -> None:
        self._url = url
        self.config = SimulatedEngineConfig(**engine)
        self._tenants = tenants
        self._per_s = per_s
        self._rng = random.Random(seed)
        self._places = asyncio.Semaphore(at_once)
        self._number = 0
        self.tally = Tally()

    async def run(self, stop: asyncio.Event) -> None:
        connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=LIMIT_S)
        async with aiohttp.ClientSession(self._url, connector=connector, timeout=timeout) as self._http:
            tasks: set[asyncio.Task[None]] = set()
            while not stop.is_set():
                await self._places.acquire()
                task = asyncio.create_task(self._one())
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                await asyncio.sleep(self._rng.expovariate(self._per_s))
            await asyncio.gather(*tasks)

    async def _one(self) -> None:
        tenant = self._rng.choice(self._tenants)
        kind = self._rng.choices(list(KINDS), list(KINDS.values()))[0]
        began = time.perf_counter()
        try:
            await getattr(self, f"_{kind}")(tenant)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.tally.add(kind, "improper", repr(error))
        except (ValueError, LookupError, TypeError) as error:  # an answer of another shape
            self.tally.add(kind, "improper", repr(error))
        finally:
            self.tally.seconds[kind].append(time.perf_counter() - began)
            self._places.release()

    def _some_question(self, tenant: Tenant) -> str:
        return tenant.question(int(QUESTIONS * self._rng.random() ** 2))

    async def _chat(self, tenant: Tenant) -> None:
        await self._ask("chat", tenant, self._some_question(tenant))

    async def _stream(self, tenant: Tenant) -> None:
        await self._ask("stream", tenant, self._some_question(tenant), stream=True)

    async def _new(self, tenant: Tenant) -> None:
        self._number += 1
        await self._ask("new", tenant, f"{tenant.name} asks once, for the {self._number}th time", cache={"mode": "off"})

    async def _ask(self, kind: str, tenant: Tenant, content: str, **fields: Any) -> None:
        body = {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": MAX_TOKENS, "temperature": 0, **fields}
        async with self._http.post("/v1/chat/completions", json=body, headers=tenant.headers) as answer:
            raw = await answer.read()
            if answer.status != 200:
                return self._refused(kind, answer, raw)
        text = streamed_text(raw) if fields.get("stream") else json.loads(raw)["choices"][0]["message"]["content"]
        if text is None:
            return self.tally.add(kind, "broken")
        cache = answer.headers["x-mygo-cache"]
        self.tally.caches[cache] += 1
        if text != expected(self.config, content):
            return self.tally.add(kind, "wrong", f"{tenant.name} {cache} {content!r}: {text!r}")
        if cache == "exact" and (entry := answer.headers.get("x-mygo-entry")):
            tenant.hits[entry] = content
        return self.tally.add(kind, "answered")

    def _refused(self, kind: str, answer: aiohttp.ClientResponse, raw: bytes) -> None:
        """Properly, if it says so as OpenAI does, and when to come again where that is known."""
        error = json.loads(raw)["error"]
        is_proper = answer.status in REFUSALS and {"message", "type", "param", "code"} == error.keys()
        if answer.status in (429, 503):
            is_proper = is_proper and "retry-after" in answer.headers
        self.tally.add(kind, "refused" if is_proper else "improper", "" if is_proper else f"{answer.status} {raw[:200]!r}")

    async def _embeddings(self, tenant: Tenant) -> None:
        text = self._some_question(tenant)
        async with self._http.post("/v1/embeddings", json={"model": "all-MiniLM-L6-v2", "input": text}, headers=tenant.headers) as answer:
            raw = await answer.read()
            if answer.status != 200:
                return self._refused("embeddings", answer, raw)
        vector = json.loads(raw)["data"][0]["embedding"]
        before = tenant.embedded.setdefault(text, vector)
        is_equal = max(abs(a - b) for a, b in zip(before, vector, strict=True)) < 1e-3
        return self.tally.add("embeddings", "answered" if is_equal else "wrong", "" if is_equal else f"{text!r} has another vector")

    async def _search(self, tenant: Tenant) -> None:
        number = self._rng.randrange(DOCUMENTS)
        path, body = f"/v1/vector_stores/{tenant.store}/search", {"query": document(tenant.name, number)}
        async with self._http.post(path, json=body, headers=tenant.headers) as answer:
            raw = await answer.read()
            if answer.status != 200:
                return self._refused("search", answer, raw)
        found = [each["content"][0]["text"] for each in json.loads(raw)["data"]]
        is_right = found[0] == document(tenant.name, number) and all(tenant.name in text for text in found)
        return self.tally.add("search", "answered" if is_right else "wrong", "" if is_right else f"{body['query']!r}: {found}")

    async def _documents(self, tenant: Tenant) -> None:
        """Which documents an answer is made of is all that can be told of it."""
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": document(tenant.name, self._rng.randrange(DOCUMENTS))}],
            "max_tokens": MAX_TOKENS,
            "retrieval": {"vector_store_ids": [tenant.store], "top_k": 3},
        }
        async with self._http.post("/v1/chat/completions", json=body, headers=tenant.headers) as answer:
            raw = await answer.read()
            if answer.status != 200:
                return self._refused("documents", answer, raw)
        ids = answer.headers["x-mygo-documents"].split(",")
        is_right = bool(json.loads(raw)["choices"][0]["message"]["content"]) and all(each.startswith(tenant.name) for each in ids)
        return self.tally.add("documents", "answered" if is_right else "wrong", "" if is_right else f"{tenant.name}: {ids}")

    async def _entry(self, tenant: Tenant) -> None:
        waiting = tenant.hits.keys() - tenant.stored.keys()
        if not waiting:
            return None
        entry = self._rng.choice(sorted(waiting))
        async with self._http.get(f"/v1/cache/entries/{entry}", headers=tenant.headers) as answer:
            raw = await answer.read()
            if answer.status == 404:  # kept by the ingress, and not by the store: it was down then
                return self.tally.add("entry", "answered")
            if answer.status != 200:
                return self._refused("entry", answer, raw)
        tenant.stored[entry] = tenant.hits[entry]
        return self.tally.add("entry", "answered")


def document(tenant: str, number: int) -> str:
    return f"{tenant} keeps its {number}th paper in drawer {number * 7 + 3}, beside the lamp number {number * 13}."


def streamed_text(raw: bytes) -> str | None:
    """The text of a stream. None: it ended with an error event, as it may when its engine is killed. Raises `ValueError` for a stream that
    just ends."""
    events = [event[len(b"data: ") :] for event in raw.split(b"\n\n")[:-1]]
    parsed = [json.loads(event) for event in events if event != b"[DONE]"]
    if parsed and "error" in parsed[-1]:
        return None
    if not events or events[-1] != b"[DONE]":
        raise ValueError("a stream that just ended")
    return "".join(choice["delta"].get("content") or "" for chunk in parsed for choice in chunk["choices"])
