"""Whether a model cites the right document, by the order of the documents before the question.

    python -m benchmarks.rag_quality [--k 3] [--model DIR] [--orders retrieval,planner,random,id_sorted]

A collection of short documents, each with a question that it answers (`--documents`, JSON lines of id, text and question). Hits come
from the packaged encoder over the whole collection, prompts from `retrieval/prompt.py`, answers from the model in transformers at
temperature 0. `cited`: of the questions whose document is among the hits, the share whose answer cites it and no other; `cited_other`: it
cites another one; `uncited`: none. `displaced_N`: requests in which the document that moved most is N places from its rank.
"""

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.report import Row, parser, say, show
from cache.embedders.factory import load_embedder
from cache.embedders.sources import PACKAGED
from deployments.demo_model import DOCUMENTS, MODEL_DIR
from deployments.demo_model.evaluate import Answerer
from retrieval.documents import Chunk, SearchHit
from retrieval.order import Ranks, displacement
from retrieval.prompt import ALPHABET, assemble, labels


class Answers(Protocol):
    """A model at temperature 0."""

    def answers(self, conversations: list[list[dict[str, Any]]]) -> list[str]: ...


Order = Callable[[Sequence[SearchHit]], list[SearchHit]]
"""From hits, best first, to the order in which they stand in the prompt."""

CITED = re.compile(rf"\[([{ALPHABET}]+)\]")
QUICK_QUESTIONS = 20


@dataclass(frozen=True, slots=True)
class Item:
    id: str
    text: str
    question: str


def main(arguments: Sequence[str] | None = None, orders: Mapping[str, Order] | None = None) -> None:
    """`orders` adds to those that there are, or replaces them."""
    options = _options(arguments)
    items = [Item(**json.loads(line)) for line in options.documents.read_text().splitlines()]
    asked = items[:QUICK_QUESTIONS] if options.quick else items
    found = search(items, [item.question for item in asked], options.k)
    say(f"{len(items)} documents, {len(asked)} questions")
    answerer = Answerer(options.model)
    known = known_orders(options.seed, options.displacement) | dict(orders or {})
    show("rag_quality", options, [measure(name, known[name], answerer, asked, found) for name in options.orders.split(",")])


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser("rag_quality", __doc__.splitlines()[0] if __doc__ else "")
    made.add_argument("--k", type=int, default=3, help="documents in a prompt")
    made.add_argument("--model", type=Path, default=MODEL_DIR)
    made.add_argument("--documents", type=Path, default=DOCUMENTS)
    made.add_argument("--displacement", type=int, default=2, help="the planner's bound")
    made.add_argument("--orders", default="retrieval,planner,random,id_sorted")
    return made.parse_args(arguments)


def known_orders(seed: int, max_displacement: int) -> dict[str, Order]:
    rng = random.Random(seed)
    return {
        "retrieval": list,
        "planner": _planned(max_displacement),
        "random": lambda hits: rng.sample(hits, len(hits)),
        "id_sorted": lambda hits: sorted(hits, key=lambda hit: hit.chunk.id),
    }


def _planned(max_displacement: int) -> Order:
    """The planner's order where no replica holds anything: within the bound on ranks, what was asked for often comes first."""
    asked = Counter[str]()

    def order(hits: Sequence[SearchHit]) -> list[SearchHit]:
        asked.update(hit.chunk.id for hit in hits)
        ranks = Ranks([hit.score for hit in hits], max_displacement)
        return [hits[place] for place in ranks.completed((), [asked[hit.chunk.id] for hit in hits])]

    return order


def search(items: Sequence[Item], questions: Sequence[str], k: int) -> list[list[SearchHit]]:
    """The `k` nearest documents of each question, best first."""
    encoder = load_embedder(PACKAGED, 1)
    scores = encoder.embed(questions) @ encoder.embed([item.text for item in items]).T
    chunks = [Chunk(item.id, 0, item.text) for item in items]
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return [[SearchHit(chunks[place], float(row[place])) for place in places] for row, places in zip(scores, best, strict=True)]


def measure(name: str, order: Order, answerer: Answers, items: Sequence[Item], found: Sequence[Sequence[SearchHit]]) -> Row:
    placed = [order(hits) for hits in found]
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
