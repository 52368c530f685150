"""LoRA adapters on the simulated engine: other answers, KV of their own, and events that say whose it is."""

from collections.abc import AsyncIterator

import httpx
import pytest

from cache.prefix.events import KVEventBatch
from cache.prefix.keys import BlockKeys
from cache.prefix.mirror import Change, EngineMirror
from deployments.config import ModelConfig, SimulatedEngineConfig
from deployments.engines.simulated import SimulatedEngine
from deployments.engines.simulated.blocks import BlockCache, TokenSequence

CONFIG = SimulatedEngineConfig(prefill_tokens_per_s=1e6, decode_step_s=1e-4, decode_step_per_request_s=0, default_max_tokens=24)
TEXT = "Where does the cache tier keep its answers? " * 8


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    engine = SimulatedEngine(CONFIG, ModelConfig(name="base", adapters={"loud": "x", "quiet": "y"}), host="127.0.0.1")
    await engine.start()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(engine.app), base_url="http://engine") as client:
        yield client
    await engine.stop()


async def test_each_adapter_has_answers_and_kv_of_its_own(http: httpx.AsyncClient) -> None:
    assert [model["id"] for model in (await http.get("/v1/models")).json()["data"]] == ["base", "loud", "quiet"]
    texts, cached = [], []
    for model in ("base", "loud", "quiet") * 2:
        asked = {"model": model, "messages": [{"role": "user", "content": TEXT}]}
        body = (await http.post("/v1/chat/completions", json=asked)).json()
        assert body["model"] == model
        texts.append(body["choices"][0]["message"]["content"])
        cached.append(body["usage"]["prompt_tokens_details"]["cached_tokens"])
    assert texts[:3] == texts[3:]
    assert len(set(texts)) == 3
    assert cached[:3] == [0, 0, 0]
    assert all(found > 0 for found in cached[3:])


@pytest.mark.parametrize("salt", [None, "tenant"])
@pytest.mark.parametrize("adapter", [None, "loud"])
def test_events_lead_to_the_keys_that_are_looked_for(salt: str | None, adapter: str | None) -> None:
    cache, keys, told = BlockCache(8, 4), BlockKeys(b"seed", 4), list[Change]()
    mirror = EngineMirror(keys, told.append)
    sequence = TokenSequence(list(range(12)), 4, salt, adapter)
    cache.acquire(sequence, 12)
    for length in (4, 12):  # the second event begins in the middle
        cache.commit(sequence, length)
    mirror.apply(KVEventBatch(0.0, cache.take_events()))
    assert [key for change in told for key in change.keys] == keys.chain(keys.root(salt, adapter), list(range(12)))
