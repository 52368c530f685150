"""What the soak takes for a right answer, a broken one and none."""

import pytest

from benchmarks.soak import ENGINE, options
from benchmarks.soak_load import expected, streamed_text
from deployments.config import SimulatedEngineConfig
from serve_app.openai import sse

CONFIG = SimulatedEngineConfig(**ENGINE)


def delta(text: str) -> bytes:
    return sse.event({"choices": [{"index": 0, "delta": {"content": text}}]})


def test_each_prompt_has_an_answer_of_its_own() -> None:
    answers = {expected(CONFIG, f"What does {tenant} know about {number}?") for tenant in "ab" for number in range(100)}
    assert len(answers) == 200
    assert expected(CONFIG, "x") == expected(CONFIG, "x")


def test_a_stream_is_read_to_its_end() -> None:
    assert streamed_text(delta("a") + delta(" b") + sse.DONE) == "a b"


def test_a_stream_that_ends_with_an_error_is_broken() -> None:
    assert streamed_text(delta("a") + sse.event({"error": {"message": "m"}})) is None


@pytest.mark.parametrize("raw", [b"", delta("a"), delta("a")[:-1], delta("a") + sse.DONE[:-1]])
def test_a_stream_that_just_ends_is_none(raw: bytes) -> None:
    with pytest.raises(ValueError, match="just ended"):
        streamed_text(raw)


def test_the_quick_form_takes_less_than_a_minute() -> None:
    assert options(["--quick"]).minutes < 1
