"""What benchmarks say of their options, and of options that are none."""

import pytest

from benchmarks import rag_fleet, rag_overlap, rag_quality, report, vector_search


@pytest.mark.parametrize(
    ("module", "arguments", "said"),
    [
        (vector_search, ["--kinds", "flat,foo"], "argument --kinds: there is no foo; choose from flat, hnsw, ivf_sq8, ours"),
        (vector_search, ["--data", ""], "argument --data: there is no empty name; choose from clustered, uniform"),
        (rag_fleet, ["--k", "abc"], "argument --k: 'abc' is no number; give whole numbers between commas"),
        (rag_fleet, ["--load", "0.5,x"], "argument --load: 'x' is no number; give numbers between commas"),
        (rag_fleet, ["--systems", "theirs"], "argument --systems: there is no theirs; choose from round_robin, "),
        (rag_overlap, ["--search-ms", ""], "argument --search-ms: '' is no number"),
        (rag_quality, ["--orders", "any"], "argument --orders: there is no any; choose from retrieval, planner, random, id_sorted"),
    ],
    ids=str,
)
def test_an_option_that_is_none_is_named(capsys: pytest.CaptureFixture[str], module: object, arguments: list[str], said: str) -> None:
    with pytest.raises(SystemExit) as ended:
        module.main(arguments)  # type: ignore[attr-defined]
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("module", [vector_search, rag_quality, rag_fleet, rag_overlap], ids=lambda module: module.__name__)
def test_help_shows_defaults(capsys: pytest.CaptureFixture[str], module: object) -> None:
    with pytest.raises(SystemExit):
        module.main(["--help"])  # type: ignore[attr-defined]
    said = " ".join(capsys.readouterr().out.split())
    assert "of all that is drawn by chance (default: 0)" in said
    assert "default: None" not in said
    assert "default: False" not in said


def test_an_option_without_an_explanation_shows_its_default() -> None:
    made = report.parser("x", "y")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--kv-tokens", type=int)
    assert "--rounds ROUNDS (default: 3)" in " ".join(made.format_help().split())
    assert "None" not in made.format_help()


def test_the_orders_that_may_be_asked_for_are_those_that_there_are() -> None:
    assert tuple(rag_quality.known_orders(0, 4, None)) == rag_quality.ORDERS
