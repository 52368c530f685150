"""The secret is made once, for its owner alone, whoever else makes it at the same moment."""

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serve_app import secrets
from serve_app.config import load_config
from serve_app.errors import ConfigError
from serve_app.secrets import application_secret, derive

PROGRAM = """
import sys
from serve_app.config import load_config
from serve_app.secrets import application_secret
sys.stdout.write(application_secret(load_config({"data_dir": sys.argv[1]})).decode())
"""


def secret_in(directory: Path) -> bytes:
    return application_secret(load_config({"data_dir": str(directory)}))


def test_a_configured_secret_is_used_and_nothing_is_written(tmp_path: Path) -> None:
    assert application_secret(load_config({"data_dir": str(tmp_path / "d"), "secret": "mine"})) == b"mine"
    assert list(tmp_path.iterdir()) == []


def test_a_secret_is_made_once(tmp_path: Path) -> None:
    first = secret_in(tmp_path / "a" / "b")
    assert len(first) == 64
    assert secret_in(tmp_path / "a" / "b") == first
    assert secret_in(tmp_path / "c") != first


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        secret_in(tmp_path / "d")
    finally:
        os.umask(before)
    (path,) = (tmp_path / "d").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_whoever_links_first_has_made_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def link_after_another_process(source: Path, target: Path) -> None:
        Path(target).write_text("the other's")
        link(source, target)

    monkeypatch.setattr(os, "link", link_after_another_process)
    assert secret_in(tmp_path) == b"the other's"
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_processes_that_start_together_have_one_secret(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "d")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(secrets.__file__).parent.parent) for _ in range(3)]
    printed = {process.communicate()[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert printed == {secret_in(tmp_path / "d")}
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["secret"]


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^data_dir: .*/file/d cannot be used .*can be written"):
        secret_in(tmp_path / "file" / "d")


@pytest.mark.parametrize("failing", ["touch", "read_bytes"])
def test_a_directory_that_cannot_be_written_or_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, failing, refuse)
    with pytest.raises(ConfigError, match=r"^data_dir: .*Permission denied"):
        secret_in(tmp_path)


def test_each_purpose_has_a_secret_of_its_own() -> None:
    derived = [derive(b"s", "a"), derive(b"s", "b"), derive(b"t", "a")]
    assert len(set(derived)) == 3
    assert derive(b"s", "a") == derived[0]
    assert all(len(each) == 64 and "s" not in each for each in derived)
