"""ModelCache's backend on the real cache."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cache.cascade import Decision, Query
from cache.embedders.fake import HashedWordsEmbedder
from cache.entry import Entry
from cache.policy import Mode, Policy
from cache.semantic import Found, Known
from cache.vectors.memory import MemoryIndex
from deployments.embedding import Embedded
from serve_app.modelcache.backend import QueryRecord
from serve_app.modelcache.cache_backend import SharedCacheBackend
from serve_app.tenants import Authenticator
from tests.cache.worlds import CacheWorld
from tests.serve_app.fakes import SECRET

EMBEDDER = HashedWordsEmbedder()
AUTHENTICATOR = Authenticator(SECRET)


class LocalCache:
    """The cache service without Ray."""

    def __init__(self, world: CacheWorld) -> None:
        self._cache = world.cache

    async def find(self, namespace: str, key: str, fingerprint: str, text: str | None) -> Known:
        return self._cache.find(namespace, key, fingerprint, text)

    async def epoch(self, namespace: str) -> int:
        return self._cache.epoch(namespace)

    async def search(self, query: Query, mode: Mode | None = None) -> Found | Decision:
        return self._cache.search(query, replace(Policy(min_similarity=0.3), mode=mode or "verified"))

    async def keep(self, entry: Entry) -> None:
        self._cache.insert(entry)

    async def call(self, method: str, *args: Any) -> Any:
        return getattr(self._cache, method)(*args)

    async def learn(self, namespace: str, decision: Decision, answer: bytes, served: bool) -> bool | None:
        raise AssertionError

    async def acquire(self, namespace: str, key: str, epoch: int, owner: str, for_s: float) -> Entry | bool:
        raise AssertionError

    async def release(self, namespace: str, key: str, epoch: int, owner: str) -> None:
        raise AssertionError


class LocalEmbedding:
    async def embed_one(self, text: str) -> Embedded:
        return (await self.embed([text]))[0]

    async def embed(self, texts: list[str]) -> list[Embedded]:
        return [Embedded(vector, 1) for vector in EMBEDDER.embed(texts)]


@pytest.fixture
def world(tmp_path: Path) -> CacheWorld:
    return CacheWorld(tmp_path, index=MemoryIndex(EMBEDDER.dimension))


@pytest.fixture
def backend(world: CacheWorld) -> SharedCacheBackend:
    return SharedCacheBackend(LocalCache(world), LocalEmbedding(), AUTHENTICATOR, 1000, world.clock)


def asks(text: str, system: str | None = None) -> list[dict[str, Any]]:
    return [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": text}]


async def answer(
    backend: SharedCacheBackend, text: str, model: str = "m", tenant: str | None = None, system: str | None = None
) -> str | None:
    hit = await backend.query(tenant, model, asks(text, system))
    return hit.answer if hit else None


async def test_what_is_inserted_is_found_by_its_words_and_by_words_like_them(backend: SharedCacheBackend) -> None:
    (entry_id,) = await backend.insert(None, "m", [(asks("Who are you?"), "A cache.")])
    hit = await backend.query(None, "m", asks("Who are you?"))
    assert hit is not None
    assert (hit.id, hit.query, hit.answer, hit.similarity) == (entry_id, "user: Who are you?", "A cache.", 1.0)
    assert await answer(backend, "please, who are you") == "A cache."
    assert await answer(backend, "Who is it that you are?") == "A cache."
    assert await answer(backend, "Completely different words") is None


async def test_models_tenants_and_dialogs_are_walls(backend: SharedCacheBackend) -> None:
    await backend.insert("ada", "gpt-4.1", [(asks("Who are you?", "Be brief."), "A cache.")])
    assert await answer(backend, "Who are you?", "gpt-4.1", "ada", "Be brief.") == "A cache."
    for model, tenant, system in (
        ("gpt_4_1", "ada", "Be brief."),
        ("gpt-4.1", "bob", "Be brief."),
        ("gpt-4.1", None, "Be brief."),
        ("gpt-4.1", "ada", "Be long."),
        ("gpt-4.1", "ada", None),
    ):
        assert await answer(backend, "Who are you?", model, tenant, system) is None


async def test_entries_are_deleted_by_the_ids_of_their_model(backend: SharedCacheBackend) -> None:
    ids = await backend.insert(None, "m", [(asks("One?"), "1"), (asks("Two?"), "2")])
    assert len(set(ids)) == 2
    assert await backend.delete(None, "other", ids) == 0
    assert await backend.delete(None, "m", [ids[0], "unknown"]) == 1
    assert [await answer(backend, text) for text in ("One?", "Two?")] == [None, "2"]


async def test_a_model_is_truncated_and_stays_known(backend: SharedCacheBackend) -> None:
    assert await backend.truncate(None, "m") is None
    await backend.insert(None, "m", [(asks("One?"), "1"), (asks("Two?"), "2")])
    await backend.insert(None, "other", [(asks("One?"), "other")])
    assert await backend.truncate(None, "m") == 2
    assert await answer(backend, "One?") is None
    assert await answer(backend, "One?", "other") == "other"
    assert await backend.truncate(None, "m") == 0
    await backend.insert(None, "m", [(asks("One?"), "anew")])
    assert await answer(backend, "One?") == "anew"


async def test_a_model_is_registered_once(backend: SharedCacheBackend) -> None:
    assert [await backend.register(None, "m"), await backend.register(None, "m"), await backend.register("ada", "m")] == [True, False, True]
    assert await backend.truncate(None, "m") == 0


async def test_blank_questions_are_misses(backend: SharedCacheBackend) -> None:
    assert await answer(backend, "\n    ") is None
    assert await backend.query(None, "m", []) is None


async def test_queries_are_logged(backend: SharedCacheBackend, world: CacheWorld) -> None:
    await backend.log(QueryRecord(None, "m", 103, "x", None, 0.25, "user: Why?"))
    ((line,), _) = world.cache._parts.queries.page(AUTHENTICATOR.namespace(None), 0, 9)
    assert (line.outcome, line.query, line.seconds) == ("103", "user: Why?", 0.25)
