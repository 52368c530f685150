"""Requests of several tenants, sent at given times whether or not earlier ones are answered, and what became of each."""

import asyncio
import heapq
import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import aiohttp

from benchmarks.report import Row

LIMIT_S = 120.0
_WORD = " token"
_EVENT = b'data: {"'


@dataclass(frozen=True, slots=True)
class Offer:
    """What a tenant sends: so many requests a second, by chance (Poisson), each of so many tokens."""

    tenant: str
    per_s: float
    prompt_tokens: int
    answer_tokens: int
    max_wait_s: float | None = None
    """For an engine, as the request says; None: as is configured."""


@dataclass(slots=True)
class Sent:
    """One request. Times are seconds from its sending."""

    tenant: str
    at_s: float
    """From the beginning."""
    status: int = 0
    """0: no answer, or one that was broken off."""
    first_s: float = 0.0
    """To the first token, or to the refusal."""
    end_s: float = 0.0
    retry_after: str = ""
    tokens: int = 0
    """Of prompt and answer."""

    @property
    def is_answered(self) -> bool:
        return self.status == 200

    @property
    def is_refused(self) -> bool:
        return self.status in (429, 503)


def arrivals(offer: Offer, seconds: float, seed: int) -> Iterator[tuple[float, Offer]]:
    rng, at_s = random.Random(f"{offer.tenant} {seed}"), 0.0
    while (at_s := at_s + rng.expovariate(offer.per_s)) < seconds:
        yield at_s, offer


def body_of(model: str, offer: Offer, number: int) -> bytes:
    """A streamed chat whose beginning nobody has sent before."""
    content = f"{number} {offer.tenant}" + _WORD * max(offer.prompt_tokens - 16, 0)
    sampling = {"max_tokens": offer.answer_tokens, "min_tokens": offer.answer_tokens, "ignore_eos": True, "temperature": 0}
    messages = [{"role": "user", "content": content}]
    return json.dumps({"model": model, "messages": messages, "stream": True, "cache": {"mode": "off"}, **sampling}).encode()


async def send_all(url: str, model: str, offers: Sequence[Offer], seconds: float, seed: int) -> list[Sent]:
    """All of them, over as many connections as are needed, to 127.0.0.1."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=LIMIT_S)
    async with aiohttp.ClientSession(url, connector=connector, timeout=timeout) as session:
        began, tasks = time.perf_counter(), []
        for number, (at_s, offer) in enumerate(
            heapq.merge(*(arrivals(offer, seconds, seed) for offer in offers), key=lambda each: each[0])
        ):
            await asyncio.sleep(at_s - (time.perf_counter() - began))
            tasks.append(asyncio.create_task(_send(session, body_of(model, offer, number + seed * 10**6), offer, began)))
        return await asyncio.gather(*tasks)


async def _send(session: aiohttp.ClientSession, body: bytes, offer: Offer, began: float) -> Sent:
    started = time.perf_counter()
    sent = Sent(offer.tenant, started - began)
    headers = {"x-mygo-tenant": offer.tenant, "content-type": "application/json"}
    if offer.max_wait_s is not None:
        headers["x-mygo-max-wait"] = str(offer.max_wait_s)
    try:
        async with session.post("/v1/chat/completions", data=body, headers=headers) as answer:
            async for chunk in answer.content.iter_any():
                if not sent.first_s and (answer.status != 200 or chunk.count(_EVENT) > chunk.count(b'"role"')):
                    sent.first_s = time.perf_counter() - started
            sent.retry_after = answer.headers.get("retry-after", "")
            sent.status = answer.status
            sent.tokens = offer.prompt_tokens + offer.answer_tokens if sent.is_answered else 0
    except (aiohttp.ClientError, TimeoutError, OSError):
        sent.status = 0
    sent.end_s = time.perf_counter() - started
    return sent


def capacity(url: str, model: str, offer: Offer, number: int, first: int = 10**9) -> float:
    """Requests a second that are completed when so many come at once. `first`: of their numbers, which must be new to the engines."""

    async def all_at_once() -> float:
        async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as session:
            began = time.perf_counter()
            done = await asyncio.gather(*(_send(session, body_of(model, offer, first + each), offer, began) for each in range(number)))
            return sum(each.is_answered for each in done) / max(each.at_s + each.end_s for each in done)

    return asyncio.run(all_at_once())


def counts(sent: Sequence[Sent]) -> Row:
    return {
        "requests": len(sent),
        "rejected": sum(each.is_refused for each in sent),
        "errors": sum(not (each.is_answered or each.is_refused) for each in sent),
    }


def jain(shares: Mapping[str, float]) -> float:
    """Jain's index of fairness: 1 where all are equal, 1/n where one has all."""
    values = list(shares.values())
    squares = sum(each * each for each in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 0.0
