"""A stop deletes the applications and waits for them, so that running streams end."""

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serve_app import launch


class FakeServe:
    """Ray Serve, whose applications go one poll after they were deleted, or never."""

    def __init__(self, *, stuck: bool = False) -> None:
        self.deleted: list[tuple[str, bool]] = []
        self.polls = 0
        self._names = ["a", "b"]
        self._stuck = stuck

    def status(self) -> Any:
        names = list(self._names)
        if self.deleted:
            self.polls += 1
            if not self._stuck and self.polls > 1:
                names = []
        return SimpleNamespace(applications=dict.fromkeys(names))

    def delete(self, name: str, *, _blocking: bool) -> None:
        self.deleted.append((name, _blocking))


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that moves only when somebody sleeps."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(launch, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    return now


def test_every_application_is_deleted_while_the_others_still_run(now: list[float]) -> None:
    serve = FakeServe()
    launch._drain(serve, 60, lambda: False)
    assert serve.deleted == [("a", False), ("b", False)]
    assert now[0] == launch.POLL_S


def test_the_wait_has_a_limit(now: list[float]) -> None:
    launch._drain(FakeServe(stuck=True), 60, lambda: False)
    assert 60 <= now[0] <= 60 + launch.POLL_S


def test_an_occupied_port_is_said_before_anything_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        config.write_text(f"http_options: {{host: 127.0.0.1, port: {port}}}")
        assert launch.run(config, dashboard=False, verbose=False, drain_limit_s=1) == 1
    assert f"port {port} is in use" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "a: [", "- a list"])
def test_a_file_that_cannot_be_read_is_said(tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    if content is not None:
        config.write_text(content)
    assert launch.run(config, dashboard=False, verbose=False, drain_limit_s=1) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_the_proxy_behind_haproxy_has_ports_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    environments: list[dict[str, str]] = [{}, {}]
    for environment in environments:
        monkeypatch.setattr(launch, "os", SimpleNamespace(environ=environment))
        launch.set_environment(lambda host, port: True)
    ports = [environment[name] for environment in environments for name in launch.FALLBACK_PORTS]
    assert len(set(ports)) == 4
    assert not {"8500", "9500"} & set(ports)


def test_haproxy_moves_away_from_a_port_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    environment: dict[str, str] = {"RAY_USAGE_STATS_ENABLED": "1"}
    monkeypatch.setattr(launch, "os", SimpleNamespace(environ=environment))
    launch.set_environment(lambda host, port: port != 9101)
    assert environment["RAY_SERVE_HAPROXY_METRICS_PORT"] != "9101"
    assert "RAY_SERVE_HAPROXY_STATS_PORT" not in environment
    assert environment["RAY_USAGE_STATS_ENABLED"] == "1"
