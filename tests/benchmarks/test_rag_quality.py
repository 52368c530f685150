"""The benchmark of citations by order: what it counts, with models that cite as told."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.rag_quality import Item, known_orders, measure
from deployments.demo_model import DOCUMENTS
from deployments.demo_model.data import load_facts
from retrieval.documents import Chunk, SearchHit
from retrieval.prompt import labels

ITEMS = [Item(f"d{number}", f"Text {number}.", f"Question {number}?") for number in range(9)]


def hit(number: int, score: float) -> SearchHit:
    return SearchHit(Chunk(f"d{number}", 0, f"Text {number}."), score)


FOUND = [[hit(number, 0.9), hit((number + 1) % 9, 0.8), hit((number + 2) % 9, 0.7)] for number in range(9)]


def test_the_collection_is_large_and_not_what_the_model_knows_by_heart() -> None:
    listed = [Item(**json.loads(line)) for line in DOCUMENTS.read_text().splitlines()]
    assert len(listed) >= 200
    assert (
        len({item.id for item in listed}) == len({item.question for item in listed}) == len({item.text for item in listed}) == len(listed)
    )
    facts = load_facts()
    assert not {item.question for item in listed} & {question for fact in facts for question in (*fact.questions, fact.held_out)}
    assert not any(fact.answer in item.text or item.text in fact.answer for fact in facts for item in listed)


class Characters:
    """A tokenizer."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [ord(letter) for letter in text]


class Told:
    """Answers with the labels that a function makes of those in the prompt, in the order of the blocks."""

    def __init__(self, choose: Callable[[list[str]], list[str]]) -> None:
        self._choose = choose

    def answers(self, conversations: list[list[dict[str, Any]]]) -> list[str]:
        shown = [re.findall(r"^\[([a-z0-9]{6})\]$", chat[-1]["content"], re.MULTILINE) for chat in conversations]
        return [" ".join(["It is so.", *(f"[{name}]" for name in self._choose(names))]) for names in shown]


def row(order: str, choose: Callable[[list[str]], list[str]], found: list[list[SearchHit]] = FOUND) -> dict[str, Any]:
    return measure(order, known_orders(1, 2, Characters())[order], Told(choose), ITEMS, found)


def test_the_first_is_the_right_one_in_retrieval_order() -> None:
    found = row("retrieval", lambda names: names[:1])
    assert (found["cited"], found["cited_other"], found["uncited"], found["retrieved"]) == (1.0, 0.0, 0.0, 1.0)
    assert (found["displaced_0"], found["displaced_1"], found["displaced_2"]) == (9, 0, 0)


@pytest.mark.parametrize("order", ["retrieval", "planner", "random", "id_sorted"])
def test_a_model_that_reads_is_right_in_every_order(order: str) -> None:
    right = {labels([hits[0]])[0] for hits in FOUND}
    assert row(order, lambda names: [name for name in names if name in right][:1])["requests"] == 9
    every = row(order, lambda names: names)
    assert every["cited"] == 0.0
    assert every["cited_other"] == 1.0
    assert sum(every[f"displaced_{places}"] for places in range(3)) == 9


def test_an_answer_without_a_label_is_uncited() -> None:
    assert row("random", lambda names: [])["uncited"] == 1.0


def test_questions_whose_document_was_not_found_do_not_count() -> None:
    found = row("retrieval", lambda names: names[:1], [hits if number else [hit(5, 0.9)] for number, hits in enumerate(FOUND)])
    assert found["retrieved"] == pytest.approx(8 / 9)
    assert found["cited"] == 1.0


def test_the_planner_stays_within_its_bound() -> None:
    orders = known_orders(1, 1, Characters())["planner"](FOUND)
    assert len(orders) == len(FOUND)
    for hits, shown in zip(FOUND, orders, strict=True):
        assert sorted(shown, key=lambda each: -each.score) == hits
        assert all(abs(shown.index(each) - rank) <= 1 for rank, each in enumerate(hits))


def test_the_planner_moves_documents_where_that_saves_prefill() -> None:
    orders = known_orders(1, 2, Characters())["planner"](FOUND)
    assert any(shown != hits for hits, shown in zip(FOUND, orders, strict=True))
