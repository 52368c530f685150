"""ModelCache's backend on the real cache."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from cache.cascade import Decision, Query
from cache.config import CacheConfig
from cache.embedders.fake import HashedWordsEmbedder
from cache.entry import Entry
from cache.policy import Policy
from cache.semantic import Found
from cache.stores.base import Filter, Known
from cache.vectors.memory import MemoryIndex
from deployments.embedding import Embedded
from serve_app.ingress import create_app
from serve_app.modelcache.backend import BackendError, Hit, QueryRecord
from serve_app.modelcache.cache_backend import SharedCacheBackend
from serve_app.modelcache.service import ModelCacheService
from serve_app.parts import Parts
from serve_app.tenants import Namespaces
from tests.cache.databases import empty_mariadb, sqlite_store
from tests.cache.worlds import CacheWorld
from tests.serve_app.fakes import SECRET, make_world
from tests.serve_app.modelcache.asking import ANSWER, insert, query

EMBEDDER = HashedWordsEmbedder()
NAMESPACES = Namespaces(SECRET, "production")


class LocalCache:
    """The cache service without Ray."""

    def __init__(self, world: CacheWorld) -> None:
        self._cache = world.cache

    async def find(self, namespace: str, key: str, fingerprint: str, text: str | None) -> Known:
        return self._cache.find(namespace, key, fingerprint, text)

    async def epoch(self, namespace: str) -> int:
        return self._cache.epoch(namespace)

    async def search(self, query: Query, policy: Policy) -> Found:
        return self._cache.search(query, replace(policy, min_similarity=0.3))

    async def keep(self, entries: list[Entry]) -> None:
        self._cache.insert_all(entries)

    async def call(self, method: str, *args: Any) -> Any:
        return getattr(self._cache, method)(*args)

    async def learn(self, namespace: str, decision: Decision, answer: bytes, served: bool) -> bool | None:
        raise AssertionError

    async def acquire(self, namespace: str, key: str, epoch: int, owner: str, for_s: float) -> Entry | bool:
        raise AssertionError

    async def release(self, namespace: str, key: str, epoch: int, owner: str) -> None:
        raise AssertionError


class LocalEmbedding:
    async def embed_one(self, text: str, whose: str) -> Embedded:
        return (await self.embed([text]))[0]

    async def embed(self, texts: list[str]) -> list[Embedded]:
        return [Embedded(vector, 1) for vector in EMBEDDER.embed(texts)]


@pytest.fixture
def world(tmp_path: Path) -> CacheWorld:
    return CacheWorld(tmp_path, index=MemoryIndex(EMBEDDER.dimension))


@pytest.fixture
def backend(world: CacheWorld) -> SharedCacheBackend:
    tenants = {mode: {"mode": mode} for mode in ("off", "shadow")}
    config = CacheConfig.model_validate({"ttl_s": 1000, "max_answer_bytes": 1000, "semantic": {"max_text_chars": 100}, "tenants": tenants})
    return SharedCacheBackend(LocalCache(world), LocalEmbedding(), NAMESPACES, config, world.clock)


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


@pytest.mark.parametrize("tenant", ["off", "shadow"])
async def test_in_these_modes_nothing_is_answered_in_other_words(backend: SharedCacheBackend, world: CacheWorld, tenant: str) -> None:
    await backend.insert(tenant, "m", [(asks("Who are you?"), "A cache.")])
    assert await answer(backend, "Who are you?", tenant=tenant) == "A cache."
    assert await answer(backend, "please, who are you", tenant=tenant) is None
    assert await answer(backend, "Who is it that you are?", tenant=tenant) is None
    world.cache.apply()
    assert world.index.count() == (tenant == "shadow")


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
    hit = Hit("id-1", "user: Why?", "Because.", 0.9)
    record = QueryRecord(None, "m", 103, "x", None, 0.25, "user: Why?")
    await backend.log([record, replace(record, tenant="ada"), replace(record, model="m" * 1000, error_code=0, hit=hit)])
    lines, _ = world.cache._parts.queries.page(NAMESPACES.of("default"), 0, 9)
    assert [(line.outcome, line.query, line.seconds, line.entry_id, line.similarity) for line in lines] == [
        ("103", "user: Why?", 0.25, None, None),
        ("hit", "user: Why?", 0.25, "id-1", 0.9),
    ]
    assert [line.model for line in lines] == ["m", "m" * 255]


NAMES = ["m", "m ", "M", "#m", "", "m" * 245, "m" * 246, "m" * 1000, "m" * 999 + "n", "\u7f13\u5b58" * 120, "\U0001f642" * 250, "m\x00"]


async def test_every_name_is_a_partition(named: SharedCacheBackend) -> None:
    for name in NAMES:
        assert await named.truncate(None, name) is None
        assert await named.insert(None, name, [(asks("Why?"), name)])
    assert [await answer(named, "Why?", name) for name in NAMES] == NAMES
    for number, name in enumerate(NAMES):
        assert await named.truncate(None, name) == 1
        assert [await answer(named, "Why?", each) for each in NAMES] == [None] * (number + 1) + NAMES[number + 1 :]


@pytest.fixture(params=["sqlite", "mariadb"])
def named(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SharedCacheBackend]:
    store = sqlite_store(tmp_path) if request.param == "sqlite" else empty_mariadb()
    world = CacheWorld(tmp_path, MemoryIndex(EMBEDDER.dimension), store=store)
    yield SharedCacheBackend(LocalCache(world), LocalEmbedding(), NAMESPACES, CacheConfig(), world.clock)
    store.close()


async def test_a_model_is_known_as_long_as_it_is_used(backend: SharedCacheBackend, world: CacheWorld) -> None:
    await backend.insert(None, "m", [(asks("One?"), "1")])
    world.clock.now += 900
    (later,) = await backend.insert(None, "m", [(asks("Two?"), "2")])
    world.clock.now += 200
    world.cache.collect()
    assert [await answer(backend, text) for text in ("One?", "Two?")] == [None, "2"]
    namespace = NAMESPACES.of("default")
    world.cache.delete(namespace, [each.id for each in world.cache.page(namespace, Filter(), "", 9) if each.id != later])
    assert await backend.truncate(None, "m") == 1
    assert await backend.truncate(None, "m") == 0


async def test_a_model_that_was_used_need_not_be_registered(backend: SharedCacheBackend) -> None:
    await backend.insert(None, "m", [(asks("One?"), "1")])
    assert not await backend.register(None, "m")


@pytest.mark.parametrize("text", ["What is the weather today?", "Why? " * 21])
async def test_questions_that_are_not_eligible_are_found_by_their_own_words(backend: SharedCacheBackend, text: str) -> None:
    (entry_id,) = await backend.insert(None, "m", [(asks(text), "x")])
    assert await answer(backend, text) == "x"
    assert await answer(backend, f"please, {text}") is None
    assert await backend.delete(None, "m", [entry_id]) == 1


async def test_an_answer_that_is_too_long_is_named_and_nothing_kept(backend: SharedCacheBackend) -> None:
    with pytest.raises(BackendError, match="longer than 1000 bytes"):
        await backend.insert(None, "m", [(asks("One?"), "1"), (asks("Two?"), "x" * 1000)])
    assert await answer(backend, "One?") is None


async def test_a_request_without_a_canonical_form_is_refused(backend: SharedCacheBackend) -> None:
    message = {"role": "user", "content": "Why?", "n": 10**1000}
    with pytest.raises(BackendError, match="cannot be kept"):
        await backend.query(None, "m", [message])


async def test_the_last_answer_to_a_question_counts(backend: SharedCacheBackend) -> None:
    await backend.insert(None, "m", [(asks("Why?"), "1"), (asks("Why?"), "2")])
    await backend.insert(None, "m", [(asks("Why?"), "3")])
    assert await answer(backend, "Why?") == "3"


async def test_a_damaged_answer_is_a_miss(backend: SharedCacheBackend, world: CacheWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    await backend.insert(None, "m", [(asks("Why?"), "1")])
    find = world.cache.find

    def damaged(namespace: str, key: str, fingerprint: str, text: str | None) -> Known:
        known = find(namespace, key, fingerprint, text)
        assert known.exact is not None
        return replace(known, exact=replace(known.exact, answer=b"{"))

    monkeypatch.setattr(world.cache, "find", damaged)
    assert await answer(backend, "Why?") is None


@pytest.mark.parametrize("enabled", [True, False])
async def test_the_application_answers_from_it(backend: SharedCacheBackend, enabled: bool) -> None:
    world = make_world()

    async def scrape() -> bytes:
        return b""

    service = ModelCacheService(backend, world.metrics, ("blocked",)) if enabled else None
    app = create_app(world.pipeline, Parts({}), scrape, service)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers={"x-mygo-tenant": "ada"}) as http:
        inserted = await http.post("/modelcache", json=insert("Who are you?"))
        asked = await http.post("/modelcache", json=query("please, who are you"))
        refused = await http.post("/modelcache", json=query(model="blocked"))
        of_bob = await http.post("/modelcache", json=query("Who are you?"), headers={"x-mygo-tenant": "bob"})
    assert [each.status_code for each in (inserted, asked, refused, of_bob)] == [200 if enabled else 404] * 4
    if service:
        assert [each.json()["errorCode"] for each in (inserted, asked, refused, of_bob)] == [0, 0, 105, 0]
        assert (asked.json()["answer"], of_bob.json()["cacheHit"]) == (ANSWER, False)
        await service.close()
    await world.keeper.stop()
