"""The cache's owner: what it offers by name, and how it starts when its stores do not."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cache.cascade import Query
from cache.config import CacheConfig
from cache.embedders.fake import DIMENSION, HashedWordsEmbedder
from cache.entry import Entry, Vectors
from cache.errors import StoreError, VectorIndexError
from cache.policy import Policy
from cache.semantic import SemanticCache
from cache.vectors.memory import MemoryIndex
from deployments import cache_owner
from deployments.cache_owner import CALLABLE, CacheOwner
from deployments.embedding import Described, Embedded
from tests.cache.entries import make_entry
from tests.deployments.asking_encoders import requests_that_ask

QUESTION = "what is a cache"
STATIC = Policy(mode="static")


class Encoder:
    """A handle of the embedding deployment. `name` tells its vectors from another encoder's, which are turned round."""

    def __init__(self, name: str = "one", turn: int = 0) -> None:
        self._embedder = HashedWordsEmbedder()
        self._turn = turn
        self.describe = SimpleNamespace(remote=self._describe)
        self.embed = SimpleNamespace(remote=self._embed)
        self.embed_one = SimpleNamespace(remote=self._embed_one)
        self.covers = SimpleNamespace(remote=self._covers)
        self.verify = SimpleNamespace(remote=self._verify)
        self.name = name

    def vectors(self, texts: list[str]) -> Vectors:
        return self._embedder.embed(texts)[:, ::-1].copy() if self._turn else self._embedder.embed(texts)

    async def _describe(self) -> Described:
        return Described(self.name, DIMENSION, 100, "fake")

    async def _embed(self, texts: list[str]) -> list[Embedded]:
        return [Embedded(vector, 1) for vector in self.vectors(texts)]

    async def _embed_one(self, text: str, whose: str) -> Embedded:
        return (await self._embed([text]))[0]

    async def _covers(self, texts: list[str]) -> list[bool]:
        return [True] * len(texts)

    async def _verify(self, pairs: list[Any]) -> list[float | None]:
        return [0.99] * len(pairs)


class Owner(CacheOwner):
    def __del__(self) -> None:  # type: ignore[override]  # the collector does not await it
        ...


@asynccontextmanager
async def owner_of(directory: Path, encoder: Encoder) -> AsyncIterator[CacheOwner]:
    owner = Owner(CacheConfig(), directory, {}, encoder, "127.0.0.1", "secret")
    try:
        yield owner
    finally:
        await owner.close()


def kept(encoder: Encoder) -> Entry:
    now = time.time()  # the owner's clock
    return make_entry(text=QUESTION, vector=encoder.vectors([QUESTION])[0], created_at=now, expires_at=now + 100)


def query(encoder: Encoder, kept: Entry) -> Query:
    return Query(kept.namespace, kept.fingerprint, "what is the cache", encoder.vectors([QUESTION])[0])


async def answer_of(owner: CacheOwner, kept: Entry) -> bytes | None:
    """What the exact tier has for the entry's request."""
    found = (await owner.find(kept.namespace, kept.exact_key, kept.fingerprint, None)).exact
    return None if found is None else found.answer


async def eventually(condition: Callable[[], Awaitable[bool]], limit_s: float = 5.0) -> None:
    async with asyncio.timeout(limit_s):
        while not await condition():
            await asyncio.sleep(0.01)


def test_what_may_be_called_by_name_is_there_and_nothing_else_is_meant() -> None:
    assert all(callable(getattr(SemanticCache, name)) for name in CALLABLE)
    assert CALLABLE.isdisjoint({"close", "evict", "collect", "load", "apply", "reconcile", "flush_uses"})


async def test_what_was_kept_is_found_after_a_restart(tmp_path: Path) -> None:
    encoder = Encoder()
    async with owner_of(tmp_path, encoder) as owner:
        await owner.keep([first := kept(encoder)])
    async with owner_of(tmp_path, encoder) as owner:
        await owner.open()
        found = await owner.search(query(encoder, first), STATIC)
        assert found.entry is not None
        assert found.entry.answer == first.answer


async def test_a_database_that_is_down_at_the_start_is_used_once_it_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_owner, "REOPEN_S", 0.0)
    encoder = Encoder()
    (tmp_path / "cache.db").mkdir()  # no file can be opened here
    async with owner_of(tmp_path, encoder) as owner:
        with pytest.raises(StoreError):
            await owner.find("a1", "k", "f1", None)
        shutil.rmtree(tmp_path / "cache.db")
        assert (await owner.find("a1", "k", "f1", None)).exact is None
        await owner.keep([first := kept(encoder)])
        assert await answer_of(owner, first) == first.answer


async def test_a_database_that_just_failed_is_not_asked_by_each_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def failing(url: str) -> None:
        opened.append(url)
        raise StoreError("down")

    monkeypatch.setattr(cache_owner, "open_database", failing)
    async with owner_of(tmp_path, Encoder()) as owner:
        for _ in range(5):
            with pytest.raises(StoreError):
                await owner.find("a1", "k", "f1", None)
    assert len(opened) == 1


async def test_without_the_index_exact_answers_are_served_until_it_is_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Index(MemoryIndex):
        is_down = True

        def count(self) -> int:
            if self.is_down:
                raise VectorIndexError("down")
            return super().count()

    monkeypatch.setattr(cache_owner, "RETRY_S", 0.01)
    monkeypatch.setattr(cache_owner, "open_index", lambda *_: Index(DIMENSION))
    encoder = Encoder()
    async with owner_of(tmp_path, encoder) as owner:
        with pytest.raises(VectorIndexError):
            await owner.open()
        await owner.keep([first := kept(encoder)])
        assert await answer_of(owner, first) == first.answer
        Index.is_down = False
        await owner.open()


async def test_another_encoder_gets_vectors_of_its_own_in_the_background(tmp_path: Path) -> None:
    old, new = Encoder("old"), Encoder("new", turn=1)
    async with owner_of(tmp_path, old) as owner:
        await owner.keep([first := kept(old)])
    async with owner_of(tmp_path, new) as owner:

        async def is_found() -> bool:
            return (await owner.search(query(new, first), STATIC)).entry is not None

        await eventually(is_found)
        assert await answer_of(owner, first) == first.answer


async def test_the_stores_are_open_before_the_first_request_comes(tmp_path: Path) -> None:
    async with owner_of(tmp_path, Encoder()) as owner:
        await owner.check_health()
        assert owner._cache is not None


async def test_a_start_does_not_fail_with_the_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str) -> None:
        raise StoreError("down")

    with monkeypatch.context() as patch:
        patch.setattr(cache_owner, "open_database", fail)
        async with owner_of(tmp_path, Encoder()) as owner:
            await owner.check_health()
            assert owner._cache is None


async def test_an_encoder_that_does_not_come_up_holds_a_start_up_for_a_while_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_owner, "OPEN_LIMIT_S", 0.01)
    encoder = Encoder()
    encoder.describe = SimpleNamespace(remote=asyncio.Event().wait)
    async with owner_of(tmp_path, encoder) as owner:
        await owner.check_health()
        await owner.check_health()


async def test_the_encoder_is_asked_outside_of_the_request_that_comes_first(tmp_path: Path) -> None:
    encoder = Encoder()
    seen = requests_that_ask(encoder)
    async with owner_of(tmp_path, encoder) as owner:
        await owner.open()
    assert seen == [""]
