"""The application as its users run it: `scripts/serve CONFIG` in a process of its own, reached over HTTP only."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

ROOT = Path(__file__).parent.parent.parent
START_LIMIT_S = 420
STOP_LIMIT_S = 90


def poll(what: str, limit_s: float, attempt: Callable[[], Any]) -> Any:
    """The first true result of `attempt`. Fails after `limit_s`."""
    deadline = time.monotonic() + limit_s
    while not (result := attempt()):
        assert time.monotonic() < deadline, f"{what}: not within {limit_s} s"
        time.sleep(0.05)
    return result


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class System:
    """One running application."""

    def __init__(self, config: Path, directory: Path, args: Mapping[str, Any] | None = None, env: Mapping[str, str] | None = None) -> None:
        """`args`: sections of the application's that take the place of the file's. `env`: of the process."""
        self.directory = directory
        self.port = free_port()
        self._env = env or {}
        self.config = self._write_config(yaml.safe_load(config.read_text()), args or {})
        self.log = directory / "serve.log"
        self.started = time.monotonic()
        self._process = self._start()
        self.http = httpx.Client(base_url=self.url, timeout=60)

    def _write_config(self, content: dict[str, Any], args: Mapping[str, Any]) -> Path:
        """The shipped file with another port and an empty data directory: nothing else but `args` differs from what users run."""
        content["http_options"]["port"] = self.port
        self.args = content["applications"][0]["args"]
        self.args |= args
        self.args["data_dir"] = str(self.directory / "data")
        path = self.directory / "config.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("wb") as log:
            return subprocess.Popen(
                [ROOT / "scripts" / "serve", self.config],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                # HAProxy's own ports are fixed by default: another application on this machine may have them.
                env={**os.environ, **self._env}
                | {"RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()), "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port())},
            )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def model(self) -> str:
        name: str = self.args["llm"]["model"]["name"]
        return name

    @property
    def is_simulated(self) -> bool:
        return bool(self.args["llm"]["engine"]["type"] == "simulated")

    def wait_ready(self) -> None:
        poll("/readyz", START_LIMIT_S, self._ready_or_dead)
        self.ready_after_s = time.monotonic() - self.started

    def _ready_or_dead(self) -> bool:
        assert self._process.poll() is None, f"serve ended with {self._process.returncode}:\n{self.tail()}"
        return self.is_ready()

    def is_ready(self) -> bool:
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def tail(self, lines: int = 60) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def replicas(self) -> list[dict[str, Any]]:
        replicas: list[dict[str, Any]] = self.http.get("/readyz").json()["replicas"]
        return replicas

    def ongoing(self) -> int:
        """Running and waiting requests in all engines, as the engines count them."""
        return sum(replica["running"] + replica["waiting"] for replica in self.replicas() if "running" in replica)

    def processes(self, name: str) -> list[psutil.Process]:
        """Processes of this machine that were started for this system, by a part of their title."""
        return [each for each in self.descendants() if name in title(each)]

    def descendants(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def send_signal(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def stop(self) -> None:
        """Ends it as an operator would, then makes sure that nothing stays."""
        everyone = [*self.descendants(), psutil.Process(self._process.pid)] if self._process.poll() is None else []
        self.http.close()
        if self._process.poll() is None:
            self.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_LIMIT_S)
        finally:
            for process in [each for each in everyone if each.is_running()]:
                process.kill()

    def session_logs(self) -> str:
        """Everything that the application's own processes logged."""
        session = re.search(r"(/tmp/ray/session_[\w.-]+)", self.log.read_text(errors="replace"))
        root = Path(session.group(1)) if session else Path("/tmp/ray/session_latest")  # noqa: S108
        return "\n".join(path.read_text(errors="replace") for path in sorted((root / "logs" / "serve").glob("*.log")))


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) or process.name()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""


def report(text: str) -> None:
    """Shown in the test run's output: start-up is the longest silence in it."""
    sys.__stderr__.write(f"\n[e2e] {text}\n")  # type: ignore[union-attr]
