"""Chats with documents: their order and their replica are chosen together, with the engines' own tokens."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from cache.prefix.router import Prompt
from deployments.config import RoutingConfig
from deployments.head_start import HeadStart
from deployments.rendering import DocumentChat
from deployments.replica_client import Call
from deployments.routing import Ranking
from retrieval.documents import Chunk, SearchHit
from retrieval.eviction.costs import LinearCost
from retrieval.eviction.hints import profile
from retrieval.order import Ranks
from retrieval.prompt import blocks, insert, labels, ranking
from tests.deployments.prefix_fleet import ENGINE, MODEL, SALT, Ingress, Node, ingress_of, nodes_of
from tests.deployments.servers import eventually

SYSTEM = {"role": "system", "content": "Answer from the documents."}


def hit(number: int, score: float) -> SearchHit:
    text = f"Document {number} tells of things that no other does. " * 12
    return SearchHit(Chunk(f"d{number}", 0, text), score)


def hits_of(*numbers: int) -> list[SearchHit]:
    """Best first."""
    return [hit(number, 0.9 - 0.1 * rank) for rank, number in enumerate(numbers)]


def chat_of(hits: list[SearchHit], question: str, bound: int = 9, whose: str = SALT) -> tuple[Call, DocumentChat]:
    def with_text(text: str) -> Call:
        messages = insert([SYSTEM, {"role": "user", "content": question}], text + ranking(hits))
        body = {"model": MODEL.name, "messages": messages, "cache_salt": SALT, "max_tokens": 4}
        return Call("POST", "/v1/chat/completions", {"content-type": "application/json"}, json.dumps(body).encode())

    chat = DocumentChat(blocks(hits), labels(hits), Ranks([each.score for each in hits], bound), with_text, whose=whose)
    return chat.ordered(tuple(range(len(hits)))), chat


def encode_otherwise(node: Node, change: Callable[[str, list[int]], list[int]]) -> list[list[str]]:
    """Its engine's tokens are changed from now on. Returns the lists of texts that it is asked for, as they come."""
    encode, asked = node.engine.encode, list[list[str]]()

    async def changed(texts: Sequence[str]) -> Any:
        asked.append(list(texts))
        encoded = await encode(texts)
        assert encoded
        return [change(text, list(tokens)) for text, tokens in zip(texts, encoded, strict=True)]

    node.engine.encode = changed  # type: ignore[method-assign]
    return asked


async def ask(
    ingress: Ingress, hits: list[SearchHit], question: str = "Why?", bound: int = 9, start: HeadStart | None = None
) -> tuple[str, Ranking, int]:
    """The replica that answered, the ranking, and what its engine found."""
    call, chat = chat_of(hits, question, bound)
    chat = replace(chat, head_start=start)
    ranking = await ingress.routing.rank(call, SALT, len(call.body), True, chat)
    try:
        answer = await ingress.client.send(ranking.call, ranking.replicas, ranking.asking)
        usage: Any = json.loads(b"".join([chunk async for chunk in answer.chunks()]))["usage"]
        ranking.answered()
        await answer.close()
    finally:
        ranking.end()
    return answer.replica, ranking, usage["prompt_tokens_details"]["cached_tokens"]


async def test_the_order_follows_what_is_held_and_the_prediction_is_exact() -> None:
    async with nodes_of("a", "b", "c") as nodes, ingress_of(*nodes) as ingress:
        replica, ranking, found = await ask(ingress, hits_of(1, 2, 3))
        assert (ranking.order, ranking.predicted, found) == ((0, 1, 2), 0, 0)
        again, ranking, found = await ask(ingress, hits_of(3, 1, 2), "And otherwise?")
        assert again == replica
        assert ranking.order == (1, 2, 0)
        assert ranking.predicted == found > 300


async def test_engines_are_told_where_documents_end_and_what_prefills_cost() -> None:
    async with nodes_of("a") as nodes, ingress_of(*nodes) as ingress:
        ends = set()
        for question in ("Why?", "And otherwise, if it is not so?"):
            cost = LinearCost(*ingress.routing.profile.coefficients[:3])
            _, ranking, _ = await ask(ingress, hits_of(1, 2), question)
            told = json.loads(ranking.call.body)["kv_transfer_params"]
            assert profile(told) == cost
            assert ranking._routed is not None
            assert 300 < told["max_offload_tokens"] < ranking._routed.prompt.tokens
            ends.add(told["max_offload_tokens"])
        assert len(ends) == 1


async def test_every_replica_is_asked_in_its_own_order() -> None:
    async with nodes_of("a", "b") as nodes, ingress_of(*nodes) as ingress:
        first, *_ = await ask(ingress, hits_of(1, 2))
        busy = ingress.router.route(Prompt([], 1_000_000), [first])  # so that the other one is chosen
        second, ranking, _ = await ask(ingress, hits_of(3, 2))
        assert (second != first, ranking.order) == (True, (1, 0))  # what was asked for more often comes first
        busy.end()
        again, ranking, found = await ask(ingress, hits_of(2, 1), "One?")
        assert (again, ranking.order) == (first, (1, 0))
        again, ranking, found = await ask(ingress, hits_of(2, 3), "Two?")
        assert (again, ranking.order) == (second, (0, 1))
        assert ranking.predicted == found > 200


async def test_a_new_replica_gets_documents_that_are_often_asked_for() -> None:
    async with nodes_of("a", "b", "c") as nodes, ingress_of(*nodes[:2]) as ingress:
        for number in range(6):
            await ask(ingress, hits_of(1, 2, 3), f"Question {number}?")
        ingress.directory.replace([node.replica for node in nodes])
        await eventually(lambda: ingress.knows(nodes[2]) and ingress.router.index.blocks_of("c") >= 10)


async def test_bounds_hold() -> None:
    async with nodes_of("a") as nodes, ingress_of(*nodes) as ingress:
        await ask(ingress, hits_of(1, 2, 3))
        _, ranking, _ = await ask(ingress, hits_of(3, 1, 2), bound=0)
        assert ranking.order == (0, 1, 2)
        assert ranking.predicted == 0


async def test_blocks_are_tokenized_once() -> None:
    async with nodes_of("a") as nodes, ingress_of(*nodes) as ingress:
        asked = encode_otherwise(nodes[0], lambda text, tokens: tokens)
        await ask(ingress, hits_of(1, 2))
        await ask(ingress, hits_of(2, 1))
        await ask(ingress, hits_of(2, 3))
        assert sum("Document" in text for texts in asked for text in texts) == 3
        kept = ingress.routing._renderer._blocks
        assert len(kept) == 3
        assert all(tokens.base is None for tokens in kept.values())
        assert all(sys.getsizeof(name) + sys.getsizeof(tokens) <= kept.getsizeof(tokens) for name, tokens in kept.items())


async def test_tokens_of_blocks_are_remembered_for_those_whose_documents_they_are() -> None:
    """Were they remembered for all, the time would tell who else has a document."""
    async with nodes_of("a") as nodes, ingress_of(*nodes) as ingress:
        asked = encode_otherwise(nodes[0], lambda text, tokens: tokens)
        for whose, tokenized in (("m", 2), ("m", 2), ("n", 4), ("m", 4)):
            _, chat = chat_of(hits_of(1, 2), "Why?", whose=whose)
            assert await ingress.routing.lengths(chat)
            assert sum("Document" in text for texts in asked for text in texts) == tokenized


async def test_a_tokenizer_that_joins_otherwise_leaves_documents_in_order(caplog: pytest.LogCaptureFixture) -> None:
    async with nodes_of("a") as nodes, ingress_of(*nodes) as ingress:
        encode_otherwise(nodes[0], lambda text, tokens: [7, *tokens] if "Document" in text else tokens)
        for numbers in ((1, 2), (2, 1)):
            _, ranking, _ = await ask(ingress, hits_of(*numbers))
            assert ranking.order is None
        assert sum("does not cut prompts" in record.message for record in caplog.records) == 1


async def test_a_tokenizer_that_begins_each_text_otherwise_is_found_out_and_documents_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """As SentencePiece does with a space that it puts before each text."""
    async with nodes_of("a") as nodes, ingress_of(*nodes) as ingress:
        _, chat = chat_of(hits_of(1, 2), "Why?")
        exact = await ingress.routing.lengths(chat)
        assert exact is not None
        ingress.routing._renderer._blocks.clear()
        asked = encode_otherwise(nodes[0], lambda text, tokens: [7, *tokens[1:]] if text.startswith("[") else tokens)
        ingress.routing._renderer._mark_tokens = None
        for _ in range(2):
            _, ranking, _ = await ask(ingress, hits_of(1, 2))
            assert ranking.order is None
        assert (len(asked), sum("does not cut prompts" in record.message for record in caplog.records)) == (1, 1)
        near = await ingress.routing.lengths(chat)
        assert near is not None
        assert near[0] == pytest.approx(exact[0], abs=2)
        assert near[1] == pytest.approx(exact[1], abs=2)


async def test_a_document_that_cannot_be_joined_turns_planning_off_for_its_own_chats_alone() -> None:
    async with nodes_of("a") as nodes, ingress_of(*nodes) as ingress:
        encode_otherwise(nodes[0], lambda text, tokens: [*tokens, 7] if "Document 2" in text else tokens)
        assert (await ask(ingress, hits_of(1, 2)))[1].order is None
        assert (await ask(ingress, hits_of(1, 3)))[1].order is not None
        lengths = await ingress.routing.lengths(chat_of(hits_of(1, 2), "Why?")[1])
        assert lengths is not None
        assert len(lengths[1]) == 2


async def test_without_tokens_documents_stay_in_order() -> None:
    async with nodes_of("a") as nodes, ingress_of(*nodes) as ingress:

        async def none(texts: Any) -> None:
            return None

        nodes[0].engine.encode = none  # type: ignore[method-assign]
        _, ranking, _ = await ask(ingress, hits_of(1, 2))
        assert ranking.order is None


async def test_other_policies_do_not_plan() -> None:
    async with nodes_of("a") as nodes, ingress_of(*nodes, config=RoutingConfig(policy="round_robin")) as ingress:
        _, ranking, _ = await ask(ingress, hits_of(1, 2))
        assert (ranking.order, ranking.predicted) == (None, None)


SLOW = ENGINE.model_copy(update={"prefill_tokens_per_s": 2000, "max_batched_tokens": 128})


def slow_searches(ingress: Ingress) -> None:
    """Past searches went on for long after their provisional results, which lasted."""
    for _ in range(8):
        ingress.routing.gate.seen(0.5, 1.0)


async def test_what_a_head_start_has_computed_is_found_by_the_request() -> None:
    async with nodes_of("a", "b", config=SLOW) as nodes, ingress_of(*nodes) as ingress:
        slow_searches(ingress)
        start = await ingress.routing.head_start(SALT, chat_of(hits_of(1, 2, 3), "Why?")[1])
        assert start is not None
        await eventually(lambda: any(len(node.feed.mirror) >= 8 for node in nodes))
        computing = next(node for node in nodes if node.engine.load().ongoing)
        replica, ranking, found = await ask(ingress, hits_of(1, 2, 3), start=start)
        assert (replica, ranking.order) == (computing.id, (0, 1, 2))
        assert found >= 8 * SLOW.block_size
        for _ in range(40):
            ranking.found((ranking.predicted or 0) + 300, 1000, 1)
        assert ingress.routing.is_trusted
        await eventually(lambda: not any(node.engine.load().ongoing for node in nodes))
        assert ingress.routing.gate.wasted == 0
        heat, keys = ingress.routing._documents._planner._heat, ingress.routing._keys
        assert keys is not None
        counts = [heat.of(keys.digest((keys.root(SALT), label))) for label in labels(hits_of(1, 2, 3))]
        assert counts == pytest.approx([1, 1, 1], abs=0.2), "a head start and its request are one"
        assert not any(ingress.router.ledger(node.id).ongoing for node in nodes)


async def test_a_head_start_for_documents_that_change_is_counted_as_wasted() -> None:
    async with nodes_of("a", config=SLOW) as nodes, ingress_of(*nodes) as ingress:
        slow_searches(ingress)
        start = await ingress.routing.head_start(SALT, chat_of(hits_of(1, 2), "Why?")[1])
        assert start is not None
        await eventually(lambda: len(nodes[0].feed.mirror) >= 8)
        await ask(ingress, hits_of(4, 5), start=start)
        assert ingress.routing.gate.wasted > 100
        for _ in range(3):
            assert await ingress.routing.head_start(SALT, chat_of(hits_of(6, 7), "Why?")[1]) is None


async def test_no_head_start_where_it_does_not_pay() -> None:
    async with nodes_of("a", config=SLOW) as nodes, ingress_of(*nodes) as ingress:
        chat = chat_of(hits_of(1, 2), "Why?")[1]
        assert await ingress.routing.head_start(SALT, chat) is None  # nothing is known of searches
        slow_searches(ingress)
        busy = ingress.router.route(Prompt([], 5000), ["a"])
        assert await ingress.routing.head_start(SALT, chat) is None  # others wait there
        busy.end()
        for _ in range(99):
            ingress.routing.gate.seen(0.0005, 1.0)
        assert await ingress.routing.head_start(SALT, chat) is None  # searches end at once


async def test_a_head_start_that_no_prefill_follows_is_wasted_and_leaves_nothing_behind() -> None:
    async with nodes_of("a", config=SLOW) as nodes, ingress_of(*nodes) as ingress:
        slow_searches(ingress)
        start = await ingress.routing.head_start(SALT, chat_of(hits_of(1, 2), "Why?")[1])
        assert start is not None
        await eventually(lambda: len(nodes[0].feed.mirror) >= 4)
        ingress.routing.leave(start)
        wasted = ingress.routing.gate.wasted
        assert wasted >= 4 * SLOW.block_size
        ingress.routing.leave(start)
        assert ingress.routing.gate.wasted == wasted
        await eventually(lambda: nodes[0].engine.load().ongoing == 0)
        assert ingress.router.ledger("a").ongoing == 0
        await eventually(lambda: not ingress.router.pending.expire() and not ingress.router.pending.masks)


async def test_a_head_start_that_is_refused_is_not_taken_for_a_fast_prefill() -> None:
    async with nodes_of("a", config=SLOW.model_copy(update={"max_model_len": 200})) as nodes, ingress_of(*nodes) as ingress:
        slow_searches(ingress)
        start = await ingress.routing.head_start(SALT, chat_of(hits_of(1, 2), "Why?")[1])
        assert start is not None
        assert len(start.plan.tokens) > 200
        assert start._task is not None
        await start._task
        assert ingress.routing.profile.samples == 0
        assert not ingress.router.pending.masks
        start.leave()
        assert start.spent(start.plan) == (0, 0)
        assert ingress.router.ledger("a").ongoing == 0
