"""The command `mygo`: what it prints where, and its exit codes."""

from pathlib import Path

import pytest

from serve_app.cli import main

GOOD = Path(__file__).parent.parent.parent / "config.sim.yaml"


def test_a_good_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(GOOD)]) == 0
    assert capsys.readouterr() == (f"{GOOD}: ok\n", "")


def test_a_file_with_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(GOOD.read_text().replace("port:", "prot:").replace("engine:", "enigne:"))
    assert main(["doctor", str(path)]) == 1
    printed = capsys.readouterr()
    assert printed.out == f"{path}: 2 problem(s)\n"
    assert [line.split(":")[0] for line in printed.err.splitlines()] == ["http_options.prot", "applications[0].args.llm.enigne"]


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(tmp_path / "none.yaml")]) == 1
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["doctor"], ["nonsense"], ["doctor", "a", "b"], ["serve"], ["serve", "a", "--drain-limit", "x"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: mygo" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "doctor" in capsys.readouterr().out
