"""Content rules for ModelCache's clients."""

from typing import Any

import pytest

from serve_app.config import load_config
from serve_app.content import modelcache
from serve_app.content.factory import make_content
from serve_app.content.modelcache import RuledBackend
from serve_app.modelcache.backend import BackendError, QueryRecord
from serve_app.modelcache.fake import MemoryBackend
from tests.serve_app.clients import CANARY
from tests.serve_app.content.worlds import BLOCK, MASK
from tests.serve_app.recorded import RecordedMetrics

ANSWERS = {"name": "rivals", "where": "answer", "words": ["Initech"]}


def messages(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def ruled(*rules: dict[str, Any]) -> tuple[RuledBackend, MemoryBackend, RecordedMetrics]:
    backend, metrics = MemoryBackend(), RecordedMetrics()
    content = make_content(load_config({"content": {"tenants": {"ada": {"rules": list(rules)}}}}).content, metrics)
    assert content
    return RuledBackend(backend, content), backend, metrics


@pytest.mark.parametrize("long_bytes", [16 * 1024, 1])
async def test_what_is_masked_is_kept_and_found_so(monkeypatch: pytest.MonkeyPatch, long_bytes: int) -> None:
    monkeypatch.setattr(modelcache, "LONG_BYTES", long_bytes)
    cache, backend, metrics = ruled(MASK)
    await cache.insert("ada", "m", [(messages("Who is Bob?"), "Bob is here."), (messages([{"text": "Bob?"}]), "Yes.")])
    assert "Bob" not in str(backend.models)
    hit = await cache.query("ada", "m", messages("Who is Bob?"))
    assert hit
    assert (hit.answer, hit.query) == ("*** is here.", "user: Who is ***?")
    assert await cache.query("ada", "m", messages([{"text": "Bob?"}]))
    assert metrics.content_matches[0] == ("names", "mask")


@pytest.mark.parametrize("item", [(messages(CANARY), "x"), (messages([{"type": "text", "text": CANARY}]), "x"), (messages("x"), CANARY)])
async def test_what_is_blocked_is_not_kept(item: Any) -> None:
    cache, backend, _ = ruled(BLOCK)
    with pytest.raises(BackendError, match="against the content rule banned"):
        await cache.insert("ada", "m", [(messages("good"), "good"), item])
    assert backend.models == {}
    assert await cache.insert("eve", "m", [item]) == ["id-1"]  # another tenant has no such rule


async def test_what_was_kept_before_the_rules_is_given_as_they_say() -> None:
    cache, backend, metrics = ruled(ANSWERS, BLOCK)
    await backend.insert("ada", "m", [(messages("a"), "Ask Initech."), (messages("b"), "Ask us."), (messages(CANARY), "x")])
    assert await cache.query("ada", "m", messages("a")) is None
    assert await cache.query("ada", "m", messages(CANARY)) is None
    hit = await cache.query("ada", "m", messages("b"))
    assert hit
    assert hit.answer == "Ask us."
    assert metrics.content_matches == [("rivals", "block"), ("banned", "block")]


async def test_questions_are_logged_as_rules_leave_them() -> None:
    cache, backend, _ = ruled(MASK, BLOCK)
    records = [QueryRecord("ada", "m", 0, "", None, 0.1, text) for text in ("user: Bob?", f"user: {CANARY}", "user: so")]
    await cache.log(records)
    assert [record.query for record in backend.records] == ["user: ***?", "", "user: so"]


async def test_the_rest_is_the_caches() -> None:
    cache, backend, _ = ruled(MASK)
    assert await cache.register("ada", "m")
    ids = await cache.insert("ada", "m", [(messages("a"), "b")])
    assert await cache.delete("ada", "m", ids) == 1
    assert await cache.truncate("ada", "m") == 0
    assert backend.models == {("ada", "m"): {}}
