"""What is closed before Ray opens it."""

import os
import stat
from pathlib import Path

import pytest

from serve_app.ray_guard import HAPROXY_FILES, TOKEN, guard, private_directory


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """A home and a directory for temporary files."""
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    return tmp_path / "home", tmp_path / "tmp"


def test_a_token_is_needed_and_its_owner_alone_can_read_it(places: tuple[Path, Path]) -> None:
    environment: dict[str, str] = {}
    guard(environment, *places, is_local=False)
    token = places[0] / TOKEN
    assert environment["RAY_AUTH_MODE"] == "token"
    assert (mode(token), mode(token.parent), len(token.read_text())) == (0o600, 0o700, 64)
    before = token.read_text()
    guard({}, *places, is_local=False)
    assert token.read_text() == before  # other clusters of this user have it too


def test_a_token_that_ray_has_made_is_closed(places: tuple[Path, Path]) -> None:
    token = places[0] / TOKEN
    token.parent.mkdir()
    token.write_text("made by Ray")
    token.chmod(0o644)
    guard({}, *places, is_local=False)
    assert (mode(token), token.read_text()) == (0o600, "made by Ray")


@pytest.mark.parametrize("set_", [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "x"}, {"RAY_AUTH_TOKEN_PATH": "/x"}])
def test_what_the_caller_has_set_stays(places: tuple[Path, Path], set_: dict[str, str]) -> None:
    environment = {**set_, "RAY_SERVE_HAPROXY_SOCKET_PATH": "/run/x", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}
    before = dict(environment)
    guard(environment, *places, is_local=True)
    assert {name: environment[name] for name in before} == before
    assert not (places[0] / TOKEN).exists()


def test_logs_sockets_and_orders_are_in_a_directory_of_this_users(places: tuple[Path, Path]) -> None:
    environment: dict[str, str] = {}
    guard(environment, *places, is_local=False)
    directory = Path(environment["RAY_SERVE_HAPROXY_SERVER_STATE_BASE"])
    assert (mode(directory), directory.parent) == (0o700, places[1])
    assert all(Path(environment[name]).is_relative_to(directory) for name in (*HAPROXY_FILES, "RAY_TMPDIR"))


def test_a_directory_that_somebody_else_has_put_there_is_not_used(places: tuple[Path, Path]) -> None:
    taken = places[1] / f"mygo-{os.geteuid()}"
    taken.mkdir(mode=0o700)
    assert private_directory(places[1]) == taken
    taken.chmod(0o777)
    assert private_directory(places[1]) != taken
    taken.rmdir()
    taken.symlink_to(places[0])
    found = private_directory(places[1])
    assert (found != taken, mode(found)) == (True, 0o700)


def test_what_is_for_this_machine_has_its_ports_there(places: tuple[Path, Path]) -> None:
    for is_local, value in ((True, "0"), (False, None)):
        environment: dict[str, str] = {}
        guard(environment, *places, is_local=is_local)
        assert environment.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER") == value
