"""Which parts of the application have answered."""

import asyncio

import pytest

from serve_app import parts as module
from serve_app.parts import Parts
from tests.serve_app.fakes import eventually


class Part:
    def __init__(self, failures: int = 0) -> None:
        self._failures = failures
        self.answering = asyncio.Event()

    async def ask(self) -> None:
        if self._failures:
            self._failures -= 1
            raise ConnectionError("not yet")
        await self.answering.wait()


async def test_a_part_is_starting_until_it_answers() -> None:
    part = Part()
    parts = Parts({"cache": part.ask})
    asking = asyncio.create_task(parts.ask_all())
    await asyncio.sleep(0)
    assert (parts.states, parts.settled) == ({"cache": "starting"}, False)
    part.answering.set()
    await asking
    assert (parts.states, parts.settled) == ({"cache": "ready"}, True)


async def test_a_part_that_fails_holds_nothing_back_and_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.05)
    part = Part(failures=2)
    parts = Parts({"cache": part.ask})
    asking = asyncio.create_task(parts.ask_all())
    await eventually(lambda: parts.states == {"cache": "failed"})
    assert parts.settled
    part.answering.set()
    await asyncio.wait_for(asking, 5)
    assert parts.states == {"cache": "ready"}
