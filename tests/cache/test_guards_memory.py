"""Parsed texts are remembered for the tenant whose they are: the time must not tell others what was asked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cache import cascade, semantic
from cache.guards import normal, text
from tests.cache.worlds import STATIC, CacheWorld


@pytest.mark.parametrize(("module", "call", "work"), [(normal, "normal_form", "_formed"), (text, "parse", "_parsed")])
def test_each_tenants_texts_are_worked_out_once(monkeypatch: pytest.MonkeyPatch, module: Any, call: str, work: str) -> None:
    worked: list[str] = []
    plain: Callable[[str], Any] = getattr(module, work)

    def counted(given: str) -> Any:
        worked.append(given)
        return plain(given)

    monkeypatch.setattr(module, work, counted)
    module._remembered.cache_clear()
    read: Callable[..., Any] = getattr(module, call)
    results = [read("What is a cache?", whose) for whose in ("a", "a", "b", "b", "", "")]
    assert len(worked) == 4  # of a and of b once; of nobody each time
    assert all(each == results[0] for each in results)
    read("long " * 100, "a")
    read("long " * 100, "a")
    assert len(worked) == 6


def test_a_look_up_says_whose_its_texts_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, ...]] = []
    for module, name in ((cascade, "parse"), (cascade, "normal_key"), (semantic, "normal_key")):
        plain = getattr(module, name)

        def told(given: str, *whose: str, plain: Callable[..., Any] = plain) -> Any:
            seen.append(whose)
            return plain(given, *whose)

        monkeypatch.setattr(module, name, told)
    world = CacheWorld(tmp_path)
    world.keep()
    world.cache.find("a1", "key", "f1", "Explain what a cache is")
    assert world.cache.search(world.query(), STATIC).entry is not None
    assert len(seen) >= 5
    assert set(seen) == {("a1",)}
    assert [pair.whose for pair in world.verifier.asked] == ["a1"]
    world.cache.close()
