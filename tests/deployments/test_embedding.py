"""The embedding deployment as a plain object."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest

from cache.errors import EmbedderError
from cache.verifiers.base import Pair
from deployments import embedding
from deployments.config import EmbeddingConfig
from deployments.embedding import BATCH_TEXTS, Embedding, RemoteEmbedder


class Plain(Embedding):
    """Serve awaits `__del__`, Python's own collector does not."""

    def __del__(self) -> None: ...  # type: ignore[override]


@pytest.fixture
async def deployed(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Embedding]:
    made = Plain(EmbeddingConfig(source="fake"), "none", "127.0.0.1", "secret")
    await made.check_health()
    await made.check_health()
    yield made
    await made._server.stop()


def counting(monkeypatch: pytest.MonkeyPatch, target: Any, name: str) -> list[list[Any]]:
    """What a method was called with from now on."""
    calls: list[list[Any]] = []
    plain = getattr(target, name)

    def counted(items: Sequence[Any]) -> Any:
        calls.append(list(items))
        return plain(items)

    monkeypatch.setattr(target, name, counted)
    return calls


async def test_a_text_is_embedded_once_for_each_tenant(deployed: Embedding, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were it remembered for all, the time would tell what others have asked."""
    calls = counting(monkeypatch, deployed._embedder, "embed")
    first, second = [await deployed.embed_one("a text", "a") for _ in range(2)]
    await deployed.embed_one("a text", "b")
    assert calls == [["a text"], ["a text"]]
    for _ in range(2):
        await deployed.embed_one("a text", "")
    assert calls == [["a text"]] * 4
    calls.clear()
    assert np.array_equal(first.vector, second.vector)
    (alone,) = await deployed.embed(["a text"])
    assert np.array_equal(first.vector, alone.vector)
    assert calls == [["a text"]]  # the one caller's own texts are not looked for


async def test_an_error_is_not_remembered(deployed: Embedding, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(texts: Sequence[str]) -> None:
        raise EmbedderError("no")

    with monkeypatch.context() as patched:
        patched.setattr(deployed._embedder, "embed", fail)
        with pytest.raises(EmbedderError):
            await deployed.embed_one("a text", "a")
    assert (await deployed.embed_one("a text", "a")).tokens == 2


async def test_a_pair_is_judged_once_with_its_similarity(deployed: Embedding, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counting(monkeypatch, deployed._verifier, "probabilities")
    one, other, closer = Pair("a", "b", 0.5, "ns"), Pair("b", "a", 0.5, "ns"), Pair("a", "b", 0.75, "ns")
    judged = await deployed.verify([one, other])
    assert await deployed.verify([closer, one]) == [(await deployed.verify([closer]))[0], judged[0]]
    assert calls == [[one, other], [closer]]
    await deployed.verify([Pair("a", "b", 0.5, "another")])
    assert len(calls) == 3


async def test_pairs_of_callers_that_wait_at_the_same_time_are_judged_together(
    deployed: Embedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counting(monkeypatch, deployed._verifier, "probabilities")
    one, other = Pair("a", "b", 0.5, "m"), Pair("c", "d", 0.9, "n")
    together = list(await asyncio.gather(deployed.verify([one]), deployed.verify([other])))
    assert calls == [[one, other]]
    assert together == [await deployed.verify([one]), await deployed.verify([other])]


async def test_no_more_is_remembered_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "REMEMBERED", 2)
    made = Plain(EmbeddingConfig(source="fake"), "none", "127.0.0.1", "secret")
    pairs = [Pair(str(number), "x", 0.5, "ns") for number in range(5)]
    assert len(await made.verify(pairs)) == 5
    for number in range(5):
        await made.embed_one(str(number), "ns")
    assert (len(made._pairs.known), len(made._texts.known)) == (2, 2)
    await made._server.stop()


class InProcess:
    """Calls that go straight to the deployment."""

    def __init__(self, target: Embedding) -> None:
        self._target = target

    async def call(self, name: str, *args: Any) -> Any:
        return await getattr(self._target, name)(*args)


async def test_what_library_code_has_embedded(deployed: Embedding, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counting(monkeypatch, deployed._embedder, "embed")
    remote = RemoteEmbedder(InProcess(deployed), asyncio.get_running_loop(), deployed.describe())  # type: ignore[arg-type]
    documents = [f"text {number}" for number in range(BATCH_TEXTS + 2)]
    vectors = await asyncio.to_thread(remote.embed, documents)
    for _ in range(2):
        question = await asyncio.to_thread(remote.embed, ["a question"])
    assert calls == [documents[:BATCH_TEXTS], documents[BATCH_TEXTS:], ["a question"], ["a question"]]  # nobody said whose
    assert vectors.shape == (BATCH_TEXTS + 2, remote.dimension)
    assert np.array_equal(question[0], (await deployed.embed_one("a question", "")).vector)
    assert await asyncio.to_thread(remote.count_tokens, ["one two"]) == [2]
    assert await asyncio.to_thread(remote.covers, ["one two"]) == [True]
