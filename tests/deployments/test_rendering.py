"""What a prompt's tokens are when engines refuse it, and when they do not answer."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from deployments.errors import NoReplicaError, RenderError
from deployments.private_app import NO_PROMPT
from deployments.rendering import LIMIT_S, USUAL_S, Renderer
from deployments.replica_client import Call, WholeAnswer
from deployments.replicas import Replica

CALL = Call("POST", "/v1/chat/completions", {}, b"{}")
REPLICAS = [Replica("a", "tcp://127.0.0.1:1", 100, 16)]


class Engine:
    """A client of one that answers so, after so many seconds."""

    def __init__(self, answer: WholeAnswer | Exception, takes_s: float = 0.0) -> None:
        self.now = 0.0
        self._answer = answer
        self._takes_s = takes_s

    async def probe(self, call: Call, replica: Replica) -> WholeAnswer:
        self.now += self._takes_s
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def renderer_of(engine: Any) -> Renderer:
    return Renderer(engine, lambda: engine.now)


def answer(status: int, tokens: list[int] | None = None) -> WholeAnswer:
    return WholeAnswer("a", status, np.array(tokens or [], np.uint32).tobytes())


async def test_a_prompt_has_tokens() -> None:
    tokens = await renderer_of(Engine(answer(200, [1, 2]))).tokens(REPLICAS, CALL)
    assert tokens is not None
    assert tokens.tolist() == [1, 2]


async def test_what_an_engine_refuses_is_no_prompt() -> None:
    assert await renderer_of(Engine(answer(NO_PROMPT))).tokens(REPLICAS, CALL) is None


@pytest.mark.parametrize("failed", [TimeoutError(), NoReplicaError("gone"), answer(500), WholeAnswer("a", 200, b"123")])
async def test_what_cannot_be_had_is_not_refused(failed: WholeAnswer | Exception) -> None:
    renderer = renderer_of(Engine(failed))
    with pytest.raises(RenderError):
        await renderer.tokens(REPLICAS, CALL)
    assert await renderer.prompt(REPLICAS, CALL) is None  # where it does not matter why


async def test_a_timeout_counts_once() -> None:
    renderer = renderer_of(Engine(TimeoutError(), takes_s=LIMIT_S))
    assert await renderer.prompt(REPLICAS, CALL) is None
    assert renderer.typical_s == pytest.approx(USUAL_S + 0.05 * (LIMIT_S - USUAL_S))


async def test_long_prompts_do_not_count_for_short_ones() -> None:
    renderer = renderer_of(Engine(answer(200, [1]), takes_s=0.5))
    long = replace(CALL, body=b"x" * 5_000_000)
    for _ in range(100):
        await renderer.prompt(REPLICAS, long)
    assert renderer.typical_s == USUAL_S
    assert renderer.expected_s(5_000_000) == pytest.approx(0.5, rel=0.05)
    assert renderer.expected_s(1000) == USUAL_S
