"""Whether a model cites the right document, by the order of the documents before the question.

    python -m benchmarks.rag_quality [--k 3] [--model DIR] [--orders retrieval,planner,random,id_sorted]

A collection of short documents, each with a question that it answers (`--documents`, JSON lines of id, text and question). Hits come
from the packaged encoder over the whole collection, prompts from `retrieval/prompt.py`, answers from the model in transformers at
temperature 0. `planner` is the order that the production planner chooses for two simulated engines in virtual time, which hold a part of
the documents and have been asked everything once before. `cited`: of the questions whose document is among the hits, the share whose
answer cites it and no other; `cited_other`: it cites another one; `uncited`: none. `displaced_N`: requests in which the document that
moved most is N places from its rank.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from transformers import AutoTokenizer

from benchmarks.fleet import Arrival, Clock, Fleet
from benchmarks.report import Row, parser, say, several, show
from benchmarks.systems import Ours
from cache.embedders.factory import load_embedder
from cache.embedders.sources import PACKAGED
from cache.prefix.keys import Tokens
from cache.prefix.router import LeastCost
from deployments.config import SimulatedEngineConfig
from deployments.demo_model import DOCUMENTS, MODEL_DIR
from deployments.demo_model.evaluate import Answerer
from retrieval.documents import Chunk, SearchHit
from retrieval.order import Ranks, displacement
from retrieval.planner import Pieces, Planner
from retrieval.prompt import ALPHABET, assemble, blocks, labels, ranking


class Answers(Protocol):
    """A model at temperature 0."""

    def answers(self, conversations: list[list[dict[str, Any]]]) -> list[str]: ...


Orders = Callable[[Sequence[Sequence[SearchHit]]], list[list[SearchHit]]]
"""From each request's hits, best first, to the order in which they stand in its prompt."""

CITED = re.compile(rf"\[([{ALPHABET}]+)\]")
ORDERS = ("retrieval", "planner", "random", "id_sorted")
QUICK_QUESTIONS = 20
REPLICAS, BLOCK, KV_BLOCKS = 2, 16, 256
GAP_S, ANSWER_TOKENS = 0.05, 20


@dataclass(frozen=True, slots=True)
class Item:
    id: str
    text: str
    question: str


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    items = [Item(**json.loads(line)) for line in options.documents.read_text().splitlines()]
    asked = items[:QUICK_QUESTIONS] if options.quick else items
    found = search(items, [item.question for item in asked], options.k)
    say(f"{len(items)} documents, {len(asked)} questions")
    answerer = Answerer(options.model)
    known = known_orders(options.seed, options.displacement, AutoTokenizer.from_pretrained(options.model))
    show("rag_quality", options, [measure(name, known[name], answerer, asked, found) for name in options.orders.split(",")])


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser("rag_quality", __doc__.splitlines()[0] if __doc__ else "")
    made.add_argument("--k", type=int, default=3, help="documents in a prompt")
    made.add_argument("--model", type=Path, default=MODEL_DIR, help="directory of the model that answers")
    made.add_argument("--documents", type=Path, default=DOCUMENTS, help="JSON lines of id, text and question")
    made.add_argument("--displacement", type=int, default=4, help="the planner's bound, in places")
    made.add_argument("--orders", type=several(ORDERS), default=",".join(ORDERS), help="of the documents in a prompt, comma-separated")
    return made.parse_args(arguments)


def known_orders(seed: int, max_displacement: int, tokenizer: Any) -> dict[str, Orders]:
    rng = random.Random(seed)
    return {
        "retrieval": lambda found: [list(hits) for hits in found],
        "planner": lambda found: planned(found, max_displacement, tokenizer),
        "random": lambda found: [rng.sample(hits, len(hits)) for hits in found],
        "id_sorted": lambda found: [sorted(hits, key=lambda hit: hit.chunk.id) for hits in found],
    }


@dataclass(frozen=True, slots=True)
class Retrieved(Arrival):
    hits: Sequence[SearchHit]


@dataclass(slots=True, kw_only=True)
class PlannedFleet(Fleet):
    """Engines whose requests the production planner puts in order and sends."""

    ours: Ours
    planner: Planner
    tokenizer: Any
    max_displacement: int
    orders: list[list[SearchHit]] = field(default_factory=list)
    """One for each request that has come."""

    def _choose(self, number: int, arrival: Arrival) -> tuple[int, array[int]]:
        assert isinstance(arrival, Retrieved)  # noqa: S101
        hits = arrival.hits
        pieces = Pieces(self._tokens(""), [*map(self._tokens, blocks(hits))], self._tokens(ranking(hits)), [hit.chunk.id for hit in hits])
        ranks = Ranks([hit.score for hit in hits], self.max_displacement)
        plan = self.planner.plan(self.ours.keys, self.ours.root, pieces, ranks, [str(number) for number in range(self.size)])
        self.ours.routed[number] = plan.routed
        self.orders.append([hits[place] for place in plan.order])
        return int(plan.routed.replicas[0]), array("I", plan.tokens.astype(np.uint32).tobytes())

    def _tokens(self, text: str) -> Tokens:
        return np.array(self.tokenizer.encode(text, add_special_tokens=False), np.uint32)


def planned(found: Sequence[Sequence[SearchHit]], max_displacement: int, tokenizer: Any) -> list[list[SearchHit]]:
    """The second of two rounds, whose requests come in another order, so that what is cached is what others left."""
    clock = Clock()
    config = SimulatedEngineConfig(block_size=BLOCK, kv_blocks=KV_BLOCKS, max_model_len=KV_BLOCKS * BLOCK)
    ours = Ours(config, REPLICAS, clock, LeastCost)
    fleet = PlannedFleet(
        config,
        REPLICAS,
        ours,
        clock,
        ours=ours,
        planner=Planner(ours.router, clock),
        tokenizer=tokenizer,
        max_displacement=max_displacement,
    )
    rounds = [*random.Random(0).sample(found, len(found)), *found]
    fleet.run(Retrieved(number * GAP_S, array("I"), ANSWER_TOKENS, hits) for number, hits in enumerate(rounds))
    return fleet.orders[len(found) :]


def search(items: Sequence[Item], questions: Sequence[str], k: int) -> list[list[SearchHit]]:
    """The `k` nearest documents of each question, best first."""
    encoder = load_embedder(PACKAGED, 1)
    scores = encoder.embed(questions) @ encoder.embed([item.text for item in items]).T
    chunks = [Chunk(item.id, 0, item.text) for item in items]
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return [[SearchHit(chunks[place], float(row[place])) for place in places] for row, places in zip(scores, best, strict=True)]


def measure(name: str, orders: Orders, answerer: Answers, items: Sequence[Item], found: Sequence[Sequence[SearchHit]]) -> Row:
    placed = orders(found)
    prompts = [assemble([{"role": "user", "content": item.question}], hits) for item, hits in zip(items, placed, strict=True)]
    say(f"{name}: {len(prompts)} prompts")
    answers = answerer.answers(prompts)
    cited = [_verdict(item, hits, answer) for item, hits, answer in zip(items, placed, answers, strict=True)]
    retrieved = [verdict for verdict in cited if verdict]
    moved = Counter(_displacement(hits, shown) for hits, shown in zip(found, placed, strict=True))
    shares = {verdict: retrieved.count(verdict) / max(1, len(retrieved)) for verdict in ("cited", "cited_other", "uncited")}
    return {"system": name, "requests": len(items), "retrieved": len(retrieved) / len(items)} | shares | {
        f"displaced_{places}": moved[places] for places in range(len(found[0]))
    }  # fmt: skip


def _verdict(item: Item, hits: Sequence[SearchHit], answer: str) -> str | None:
    """None if the right document is not among the hits."""
    right = {label for label, hit in zip(labels(hits), hits, strict=True) if hit.chunk.document_id == item.id}
    if not right:
        return None
    named = set(CITED.findall(answer))
    return "cited" if named == right else "cited_other" if named else "uncited"


def _displacement(hits: Sequence[SearchHit], shown: Sequence[SearchHit]) -> int:
    return displacement(tuple(hits.index(hit) for hit in shown))


if __name__ == "__main__":
    main()
