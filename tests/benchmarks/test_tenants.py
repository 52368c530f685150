"""The load of several tenants, and the index of fairness."""

import json

import pytest

from benchmarks.fairness import main as fairness
from benchmarks.overload import main as overload
from benchmarks.tenants import Offer, Sent, arrivals, body_of, counts, jain
from deployments.engines.simulated.tokenizer import encode

OFFER = Offer("a", 100.0, 200, 8)


def test_arrivals_come_by_chance_and_the_same_again() -> None:
    times = [at_s for at_s, _ in arrivals(OFFER, 10.0, 1)]
    assert times == [at_s for at_s, _ in arrivals(OFFER, 10.0, 1)] == sorted(times)
    assert times != [at_s for at_s, _ in arrivals(OFFER, 10.0, 2)]
    assert 850 < len(times) < 1150
    assert 0 < times[0] < times[-1] < 10


def test_no_two_prompts_begin_alike_and_all_are_as_long() -> None:
    prompts = [encode(json.loads(body_of("m", OFFER, number))["messages"][0]["content"]) for number in (1, 2, 10**9)]
    assert len({tuple(prompt[:8]) for prompt in prompts}) == 3
    assert all(abs(len(prompt) - OFFER.prompt_tokens) <= 16 for prompt in prompts)


def test_jains_index() -> None:
    assert jain({"a": 3.0, "b": 3.0}) == 1.0
    assert jain({"a": 1.0, "b": 0.0, "c": 0.0, "d": 0.0}) == 0.25
    assert jain({}) == 0.0


def test_what_is_neither_answered_nor_refused_is_an_error() -> None:
    sent = [Sent("a", 0.0, status) for status in (200, 429, 503, 500, 0)]
    assert counts(sent) == {"requests": 5, "rejected": 2, "errors": 2}


@pytest.mark.parametrize("main", [fairness, overload])
def test_help(capsys: pytest.CaptureFixture[str], main: object) -> None:
    assert callable(main)
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "default: None" not in capsys.readouterr().out
