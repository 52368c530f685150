"""Calls of a contract's methods over a private channel, and by a handle where there is no channel."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import pytest

from cache.cascade import Decision, Query, Reason
from cache.decision.account import Budget
from cache.entry import Entry
from cache.errors import StoreError, VerifierError
from cache.policy import Policy
from cache.semantic import Found
from cache.stores.base import Candidate, Known
from cache.verifiers.base import Pair
from deployments.cache_owner import CacheCalls
from deployments.channel.server import ChannelServer
from deployments.direct import DirectApp, DirectCalls
from deployments.embedding import Embedded, EmbeddingCalls
from deployments.errors import PartError
from deployments.replicas import Replica, ReplicaDirectory
from retrieval.errors import IndexFileError, QueryError, UnknownStoreError
from tests.cache.entries import make_entry, unit
from tests.deployments.replica_fakes import SECRET, unused_url


class Contract(Protocol):
    async def double(self, number: int, word: str | None) -> tuple[int, str | None]: ...

    async def fail(self, name: str) -> None: ...

    async def hang(self) -> None: ...


class OwnError(UnknownStoreError):
    """The other end does not know it."""


ERRORS: dict[str, Exception] = {
    "store": StoreError("no"),
    "verifier": VerifierError("no"),
    "query": QueryError("no", "top_k"),
    "index": IndexFileError("no"),
    "own": OwnError("no"),
    "other": RuntimeError("no"),
}


@dataclass
class Target(Contract):
    """What is behind the channel."""

    factor: int = 2
    calls: int = 0

    async def double(self, number: int, word: str | None) -> tuple[int, str | None]:
        self.calls += 1
        return self.factor * number, word

    async def fail(self, name: str) -> None:
        raise ERRORS[name]

    async def hang(self) -> None:
        await asyncio.Event().wait()

    async def secret(self) -> int:
        return 7


class Handle:
    """Ray's: every method answers with its name and arguments."""

    def __getattr__(self, name: str) -> Any:
        async def remote(*args: Any) -> Any:
            return (name, *args)

        return SimpleNamespace(remote=remote)


@asynccontextmanager
async def calling(*urls: str, contract: type = Contract, limit_s: float = 5) -> AsyncIterator[DirectCalls]:
    directory = ReplicaDirectory()
    directory.replace([Replica(str(number), url) for number, url in enumerate(urls)])
    calls = DirectCalls(contract, directory, Handle(), SECRET, limit_s)
    try:
        yield calls
    finally:
        calls.close()


@asynccontextmanager
async def offered(target: Any, contract: type = Contract) -> AsyncIterator[str]:
    server = ChannelServer(DirectApp(contract, target), "127.0.0.1", SECRET.encode())
    await server.start()
    try:
        yield server.url
    finally:
        await server.stop()


async def test_a_call_gives_what_the_method_gives() -> None:
    async with offered(Target()) as url, calling(url) as calls:
        assert await calls.call("double", 3, "x") == (6, "x")
        assert await calls.call("double", 4, None) == (8, None)


KNOWN: dict[str, type[Exception]] = {
    "store": StoreError,
    "verifier": VerifierError,
    "query": QueryError,
    "index": IndexFileError,
    "own": UnknownStoreError,
}


@pytest.mark.parametrize(("name", "kind"), KNOWN.items())
async def test_an_error_of_the_tiers_is_raised_as_itself(name: str, kind: type[Exception]) -> None:
    async with offered(Target()) as url, calling(url) as calls:
        with pytest.raises(kind, match="no") as caught:
            await calls.call("fail", name)
    assert type(caught.value) is kind
    assert getattr(caught.value, "field", None) == getattr(ERRORS[name], "field", None)


async def test_any_other_error_tells_nothing() -> None:
    async with offered(Target()) as url, calling(url) as calls:
        with pytest.raises(PartError) as caught:
            await calls.call("fail", "other")
        assert "no" not in str(caught.value).split()


@pytest.mark.parametrize("name", ["secret", "__init__", "calls", "double/", ""])
async def test_only_what_the_contract_names_can_be_called(name: str) -> None:
    class Wider(Contract, Protocol):
        async def secret(self) -> int: ...

    async with offered(Target()) as url, calling(url, contract=Wider) as calls:
        with pytest.raises(PartError):
            await calls.call(name)


@pytest.mark.parametrize("args", [(), (1,), ("x", "y"), (1, "x", "y"), (1, 2)])
async def test_arguments_of_other_types_do_not_reach_the_method(args: tuple[Any, ...]) -> None:
    target = Target()
    async with offered(target) as url, calling(url) as calls:
        with pytest.raises(PartError):
            await calls.call("double", *args)
    assert target.calls == 0


async def test_replicas_take_turns() -> None:
    targets = [Target(), Target(), Target()]
    async with offered(targets[0]) as a, offered(targets[1]) as b, offered(targets[2]) as c, calling(a, b, c) as calls:
        for _ in range(9):
            await calls.call("double", 1, None)
    assert [target.calls for target in targets] == [3, 3, 3]


async def test_a_replica_that_cannot_be_reached_is_passed_over() -> None:
    async with offered(Target()) as url, calling(unused_url(), url) as calls:
        for _ in range(4):
            assert await calls.call("double", 1, None) == (2, None)


async def test_without_a_channel_the_handle_answers() -> None:
    for urls in ((), (unused_url(),)):
        async with calling(*urls) as calls:
            assert await calls.call("double", 1, None) == ("double", 1, None)


async def test_a_call_that_takes_too_long_is_given_up() -> None:
    async with offered(Target()) as url, calling(url, limit_s=0.05) as calls:
        with pytest.raises(PartError):
            await calls.call("hang")


async def test_a_part_that_goes_away_during_a_call() -> None:
    async with offered(Target()) as url, calling(url) as calls:
        hanging = asyncio.create_task(calls.call("hang"))
        await calls.call("double", 1, None)
        (await calls._connections.to(url)).close()
        with pytest.raises(PartError):
            await hanging
        assert await calls.call("double", 1, None) == (2, None)


# What travels


class Cache:
    """Gives back what it was given."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    async def find(self, namespace: str, key: str, fingerprint: str, text: str | None) -> Known:
        return Known(7, exact=make_entry(text=text), reworded=None)

    async def search(self, query: Query, policy: Policy) -> Found:
        self.got = [query, policy]
        return Found(DECISION, ENTRY)

    async def keep(self, entries: list[Entry]) -> None:
        self.got = list(entries)

    async def acquire(self, namespace: str, key: str, epoch: int, owner: str, for_s: float) -> Entry | bool:
        return ENTRY if epoch else True


ENTRY = make_entry(vector=unit(1, 2, 3), tags=("a", "b"), answer=b"\x00\xff", stale_at=3.5, text="日本 \U0001f600")
DECISION = Decision(Reason.EXPLORE, Candidate("c", "text", True), 0.5, None, "long", -3.25, 0.125, {"search": 0.001})


async def test_what_the_cache_is_given_and_gives_arrives_whole() -> None:
    cache = Cache()
    async with offered(cache, CacheCalls) as url, calling(url, contract=CacheCalls) as calls:
        known = await calls.call("find", "n", "k", "f", "text")
        assert (known.epoch, known.exact.text, known.reworded) == (7, "text", None)
        policy = Policy("shadow", Budget(0.5, "hits"), top_k=3)
        found = await calls.call("search", Query("n", "f", "q", unit(1, 1)), policy)
        assert (found.decision, found.entry) == (DECISION, ENTRY)
        assert ENTRY.vector is not None
        assert np.array_equal(found.entry.vector, ENTRY.vector)
        assert cache.got[1] == policy
        assert np.array_equal(cache.got[0].vector, unit(1, 1))
        await calls.call("keep", [ENTRY, make_entry()])
        assert cache.got[0] == ENTRY
        assert (cache.got[0].vector.dtype, cache.got[1].vector) == (np.float32, None)
        assert await calls.call("acquire", "n", "k", 1, "o", 1.0) == ENTRY
        assert await calls.call("acquire", "n", "k", 0, "o", 1.0) is True


async def test_what_the_encoder_is_given_and_gives_arrives_whole() -> None:
    class Encoder:
        async def embed_one(self, text: str, whose: str) -> Embedded:
            return Embedded(unit(3, 4), len(text), False)

        async def verify(self, pairs: list[Pair]) -> list[float | None]:
            return [None, *(pair.similarity for pair in pairs)]

    async with offered(Encoder(), EmbeddingCalls) as url, calling(url, contract=EmbeddingCalls) as calls:
        embedded = await calls.call("embed_one", "four", "ns")
        assert (embedded.tokens, embedded.covered) == (4, False)
        assert np.array_equal(embedded.vector, unit(3, 4))
        assert await calls.call("verify", [Pair("a", "b", 0.25)]) == [None, 0.25]
