"""Damaged bytes over sockets of their own."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx

from benchmarks.fuzz import damage, sockets
from benchmarks.fuzz.oracle import faults
from benchmarks.fuzz.requests import Tenant, draw
from benchmarks.fuzz.wire import Exchange, exchange, is_whole_request
from benchmarks.fuzz.world import World

AT_ONCE = 24
CANARY_S = 0.05
MAX_SHOWN = 40
LOST_TRIES = 3


@dataclass
class Case:
    """One connection. `owners`: whose each answer is; `methods`: of the requests, as the answers' lengths depend on them."""

    kind: str
    pieces: list[bytes]
    owners: list[str]
    methods: list[bytes]

    @property
    def is_due(self) -> bool:
        """All that was sent must be answered."""
        return self.kind in ("plain", "pipelined") or (self.kind == "damaged" and is_whole_request(b"".join(self.pieces)))


@dataclass
class Outcome:
    """What all cases together gave."""

    requests: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    canaries: int = 0

    def add(self, label: str, found: list[str]) -> None:
        self.faults += [f"{label}: {each}" for each in found]


def make_case(world: World, seed: int, number: int) -> Case:
    """The same for the same seed and number, but for the tenants' keys, secrets and ids."""
    rng = random.Random(f"{seed}.{number}")
    everyone = [*world.tenants, *world.tenants, *world.tenants, *world.tenants, world.ops]
    tenant = rng.choice(everyone)
    drawn = rng.random()
    if drawn < 0.06:
        request = draw(tenant, rng)
        return Case("plain", [request.raw()], [tenant.name], [request.method.encode()])
    if drawn < 0.12:
        pieces, requests = damage.pipelined(world.tenants, rng)
        owners = {tenant.key: tenant.name for tenant in world.tenants}
        keys = [
            next(value for name, value in each.headers if name in ("authorization", "x-api-key")).removeprefix("Bearer ")
            for each in requests
        ]
        return Case("pipelined", pieces, [owners[key] for key in keys], [each.method.encode() for each in requests])
    if drawn < 0.19:
        return Case("smuggled", damage.smuggled(draw(tenant, rng), rng), [tenant.name], [b"POST", b"POST"])
    if drawn < 0.27:
        return Case("socket", sockets.conversation(tenant, rng), [tenant.name], [b"GET"])
    pieces = damage.damaged(draw(tenant, rng), rng)
    return Case("damaged", pieces, [tenant.name], [b"".join(pieces).partition(b" ")[0]])


async def run_case(world: World, case: Case) -> tuple[Exchange, list[str]]:
    result = await exchange(world.app.port, case.pieces, case.methods, is_due=case.is_due)
    for _ in range(LOST_TRIES):
        if result.answers or result.hung or not case.is_due:
            break
        # The proxy refuses a damaged head at once, and what the client still sends then ends the connection, refusal and all.
        result = await exchange(world.app.port, [b"".join(case.pieces)], case.methods, is_due=True)
    return result, faults(result, case.owners, world.secrets, is_due=case.is_due)


async def run(world: World, seed: int, numbers: range, outcome: Outcome) -> None:
    """All of them, several at once, with canaries between them."""
    canaries = [asyncio.ensure_future(_canary(world, tenant, outcome)) for tenant in world.tenants]
    waiting = iter(numbers)
    try:
        await asyncio.gather(*(_worker(world, seed, waiting, outcome) for _ in range(AT_ONCE)))
    finally:
        for each in canaries:
            each.cancel()
        for end in await asyncio.gather(*canaries, return_exceptions=True):
            if isinstance(end, Exception):
                outcome.add("canary", [repr(end)])


async def _worker(world: World, seed: int, waiting: Iterator[int], outcome: Outcome) -> None:
    for number in waiting:
        case = make_case(world, seed, number)
        result, found = await run_case(world, case)
        outcome.requests += 1
        outcome.statuses[str(result.answers[0].status) if result.answers else "hung" if result.hung else "closed"] += 1
        outcome.slowest_s = max(outcome.slowest_s, result.seconds)
        outcome.add(f"bytes --seed {seed} --first {number} ({case.kind})", found)


async def _canary(world: World, tenant: Tenant, outcome: Outcome) -> None:
    """A client that does nothing wrong: whatever others do to connections, it gets its own answers."""
    path, wanted = f"/v1/vector_stores/{tenant.ids['canary']}", tenant.secrets["store"]
    async with httpx.AsyncClient(base_url=world.app.url, headers=world.headers(tenant), timeout=10) as client:
        while True:
            answer = await client.get(path)
            outcome.canaries += 1
            with contextlib.suppress(ValueError, KeyError):
                if answer.status_code == 200 and answer.json()["name"] == wanted:
                    await asyncio.sleep(CANARY_S)
                    continue
            outcome.add("canary", [f"status {answer.status_code}: {answer.text[:200]}"])
