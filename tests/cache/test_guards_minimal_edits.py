"""Guards alone on the minimal edits, and how long they take."""

import time
from collections import Counter

import pytest

from cache.guards.cascade import first_refusal
from cache.guards.text import normal_form, parse
from tests.cache.minimal_edits import HALVES, load


def share(values: list[bool]) -> float:
    return sum(values) / len(values)


def test_the_suite_is_what_it_says() -> None:
    edits = load()
    different = [edit for edit in edits if not edit.same]
    same = [edit for edit in edits if edit.same]
    assert len(different) >= 350
    assert len(same) >= 350
    assert len({edit.kind for edit in different}) >= 12
    assert share([edit.lang == "zh" for edit in different]) >= 0.25
    assert share([edit.lang == "zh" for edit in same]) >= 0.2
    assert max(Counter((edit.a, edit.b) for edit in edits).values()) == 1
    assert all(edit.a != edit.b for edit in edits)


@pytest.mark.parametrize("half", HALVES)
def test_edits_that_change_the_answer_are_refused(half: str) -> None:
    assert share([first_refusal(parse(edit.a), parse(edit.b)) is not None for edit in load(half) if not edit.same]) >= 0.97


@pytest.mark.parametrize("half", HALVES)
def test_edits_that_keep_the_answer_pass(half: str) -> None:
    assert share([first_refusal(parse(edit.a), parse(edit.b)) is not None for edit in load(half) if edit.same]) <= 0.15


def test_equal_normal_forms_have_equal_answers() -> None:
    assert [edit for edit in load() if not edit.same and normal_form(edit.a) == normal_form(edit.b)] == []


def test_decisions_take_microseconds() -> None:
    """Ten times what a quiet machine needs, so that a busy one passes."""
    pairs = [(parse(edit.a), parse(edit.b)) for edit in load()]
    start = time.perf_counter()
    for a, b in pairs:
        first_refusal(a, b)
    assert (time.perf_counter() - start) / len(pairs) < 500e-6
