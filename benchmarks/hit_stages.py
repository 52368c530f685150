"""What an exact hit costs the ingress process, stage by stage: the production code, without sockets and without Ray."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from benchmarks.report import Row
from cache.exact import AnswerLru
from cache.stores.base import Known
from deployments.engines.base import Message
from deployments.replicas import Replica, ReplicaDirectory
from deployments.routing import Routing
from serve_app.access_log import BatchedAccessLog
from serve_app.admission.gate import Admission
from serve_app.admission.limiter import Limiter
from serve_app.config import load_config
from serve_app.door import OpenDoor
from serve_app.exchanges import Exchange, Exchanges
from serve_app.flights import Flights
from serve_app.front import HitPath
from serve_app.ingress import PARSERS
from serve_app.keeper import Keeper
from serve_app.keyring.settings import Limits
from serve_app.learning import Learner
from serve_app.openai import answers
from serve_app.openai.requests import parse_chat
from serve_app.pipeline import Pipeline
from serve_app.renewal import Renewals
from serve_app.tenants import Caller, Namespaces, Principal
from serve_app.tiers import CacheTiers
from serve_app.uses import Uses

PATH = "/v1/chat/completions"
BODY = json.dumps(
    {"model": "m", "messages": [{"role": "user", "content": "What is the KV cache, and why does it matter?"}], "temperature": 0}
).encode()
HEADERS = [
    (b"host", b"127.0.0.1:8000"),
    (b"content-type", b"application/json"),
    (b"content-length", b"%d" % len(BODY)),
    (b"x-forwarded-for", b"127.0.0.1"),
    (b"x-forwarded-proto", b"http"),
]
REPEATS = 5


class _Silent:
    """Stands for metrics and for the cache, which a hit does not call."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **named: None

    async def find(self, *args: Any) -> Known:
        return Known(0)

    async def epoch(self, namespace: str) -> int:
        return 0

    async def keep(self, entries: Any) -> None: ...


def stages(*, quick: bool) -> list[Row]:
    """A row for each: microseconds of one core, the least of several runs."""
    return asyncio.run(_stages(500 if quick else 20_000))


async def _stages(number: int) -> list[Row]:
    silent: Any = _Silent()
    pipeline = _pipeline(silent)
    lines: list[str] = []
    exchanges = Exchanges(silent, BatchedAccessLog(lambda text: lines.clear(), "r"))
    path = HitPath(pipeline, exchanges, PARSERS, OpenDoor())
    await _fill(pipeline)
    scope: Message = {"type": "http", "method": "POST", "path": PATH, "headers": HEADERS}
    assert await path.answer(dict(scope), _receive, _send) is None  # noqa: S101
    arrival = pipeline.arrive(parse_chat(BODY), Caller("r-1"))
    asked = arrival.asked
    assert asked is not None  # noqa: S101
    timed: dict[str, Callable[[], Any]] = {
        "recognise": lambda: path._ready(scope, dict(HEADERS), Principal(), BODY, "r" * 32, 0.0),
        "look_up_and_render": lambda: pipeline.at_hand(asked, "r" * 32),
        "parse": lambda: parse_chat(BODY),
        "parse_and_key": lambda: pipeline.arrive(parse_chat(BODY), Caller("r-1")),
        "count_and_log": lambda: exchanges.ended(f"POST {PATH}", Exchange("r" * 32, 0.0, 200, cache="exact")),
    }
    rows = [_row("whole_hit", await _awaited(lambda: path.answer(dict(scope), _receive, _send), number))]
    return rows + [_row(name, _called(call, number)) for name, call in timed.items()]


def _row(stage: str, cpu_us: float) -> Row:
    return {"system": "ours", "stage": stage, "cpu_us": cpu_us}


async def _awaited(call: Callable[[], Any], number: int) -> float:
    best = float("inf")
    for _ in range(REPEATS):
        began = time.process_time()
        for _ in range(number):
            await call()
        best = min(best, time.process_time() - began)
    return best / number * 1e6


def _called(call: Callable[[], Any], number: int) -> float:
    best = float("inf")
    for _ in range(REPEATS):
        began = time.process_time()
        for _ in range(number):
            call()
        best = min(best, time.process_time() - began)
    return best / number * 1e6


async def _receive() -> Message:
    return {"type": "http.request", "body": BODY, "more_body": False}


async def _send(message: Message) -> None: ...


def _pipeline(silent: Any) -> Pipeline:
    config = load_config({"llm": {"model": {"name": "m"}}})
    directory = ReplicaDirectory()
    directory.replace([Replica("r", "tcp://127.0.0.1:1", 8192, 32)])
    keeper, learner = Keeper(silent, silent), Learner(silent, silent)
    lru = AnswerLru(config.cache.exact.max_bytes, time.time)
    flights, now = Flights(silent, silent, "off"), time.time()
    still = Uses(silent, 1e6), lambda: now  # nothing grows old
    tiers = CacheTiers(config.cache, "m", lru, silent, silent, keeper, learner, silent, flights, *still)
    return Pipeline(
        config=config,
        namespaces=Namespaces(b"secret", "production"),
        tiers=tiers,
        embedding=silent,
        documents=None,
        directory=directory,
        routing=Routing(config.routing, directory, silent, b"", "ingress", time.monotonic),
        client=silent,
        metrics=silent,
        learner=learner,
        renewals=Renewals(silent, silent),
        admission=Admission(Limiter(Limits())),
    )


async def _fill(pipeline: Pipeline) -> None:
    """As if the answer had been computed."""
    lookup = pipeline.arrive(parse_chat(BODY), Caller("r-0")).lookup
    assert lookup is not None  # noqa: S101
    await pipeline.tiers.exact(lookup)
    answer = answers.of_text("It holds what attention needs of earlier tokens. " * 8, "m")
    pipeline.tiers.keep(lookup, answers.from_json, json.dumps(answer).encode())
