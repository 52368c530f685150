"""Servers that a benchmark starts beside the application: bare ones, and other caches in environments of their own."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from benchmarks.application import ROOT, free_port, poll

RIVALS = ROOT / "benchmarks" / "rivals"
START_LIMIT_S = 180
STOP_LIMIT_S = 10


class Server:
    """A process that listens on a port of 127.0.0.1. As a context, it is ended at the end. Raises `AssertionError` if it does not start."""

    def __init__(self, command: Sequence[str | Path], port: int, log: Path, env: Mapping[str, str] | None = None) -> None:
        self.port = port
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=ROOT, env={**os.environ, **(env or {})}
            )

    def __enter__(self) -> Self:
        poll(f"port {self.port}; see {self.log}", START_LIMIT_S, self._listens)
        return self

    def _listens(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"the server ended with {self._process.returncode}: {self.log.read_text(errors='replace')[-2000:]}")
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid


def uvicorn(app: str, log: Path, env: Mapping[str, str] | None = None) -> Server:
    """An ASGI application of this project's environment."""
    port = free_port()
    options = ["--port", str(port), "--no-access-log", "--log-level", "warning"]
    return Server([sys.executable, "-m", "uvicorn", app, *options], port, log, env)


def rival(name: str, program: str) -> Path | None:
    """A program of a rival's environment; None: `benchmarks/rivals/install` has not been run for it."""
    path = RIVALS / ".venv" / name / "bin" / program
    return path if path.is_file() else None
