"""The application as its users run it: `scripts/serve CONFIG` in a process of its own, reached over HTTP only."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
import yaml

ROOT = Path(__file__).parent.parent
START_LIMIT_S = 420
STOP_LIMIT_S = 90
QUICK_ENGINE = {"type": "simulated", "decode_step_s": 0.0005, "decode_step_per_request_s": 0.0, "max_running": 512, "kv_blocks": 65536}
"""A simulated engine that takes next to no time, for what is not about engines."""


def poll(what: str, limit_s: float, attempt: Callable[[], Any]) -> Any:
    """The first true result of `attempt`. Raises `AssertionError` after `limit_s`."""
    deadline = time.monotonic() + limit_s
    while not (result := attempt()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what}: not within {limit_s} s")
        time.sleep(0.05)
    return result


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Application:
    """One running application. As a context, it is stopped at the end."""

    def __init__(
        self,
        config: Path,
        directory: Path,
        args: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        cpus: str = "",
        builder: str = "",
    ) -> None:
        """`args`: sections of the application's that take the place of the file's. `env`: of the process. `cpus`: as for `taskset -c`.
        `builder`: the import path of another one, in this project."""
        self.directory = directory
        self.port = free_port()
        self._env = env or {}
        self._cpus = cpus
        self._builder = builder
        self.config = self._write_config(yaml.safe_load(config.read_text()), args or {})
        self.log = directory / "serve.log"
        self.started = time.monotonic()
        self._process = self._start()
        self.http = httpx.Client(base_url=self.url, timeout=60)

    def _write_config(self, content: dict[str, Any], args: Mapping[str, Any]) -> Path:
        """The shipped file with another port and an empty data directory: nothing else but `args` differs from what users run."""
        content["http_options"]["port"] = self.port
        application = content["applications"][0]
        application["import_path"] = self._builder or application["import_path"]
        self.args = application["args"]
        self.args |= args
        self.args["data_dir"] = str(self.directory / "data")
        path = self.directory / "config.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    def _start(self) -> subprocess.Popen[bytes]:
        # `scripts/serve` checks the file first, and takes the shipped builder only.
        start = [sys.executable, "-m", "serve_app.cli", "serve"] if self._builder else [ROOT / "scripts" / "serve"]
        command: list[str | Path] = [*start, self.config]
        with self.log.open("wb") as log:
            return subprocess.Popen(
                ["taskset", "-c", self._cpus, *command] if self._cpus else command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                # HAProxy's own ports are fixed by default: another application on this machine may have them.
                env={**os.environ, **self._env}
                | {"RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()), "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port())},
            )

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            # Else a benchmark that is told to end would leave the application behind.
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def model(self) -> str:
        name: str = self.args["llm"]["model"]["name"]
        return name

    def wait_ready(self) -> None:
        poll("/readyz", START_LIMIT_S, self._ready_or_dead)
        self.ready_after_s = time.monotonic() - self.started

    def _ready_or_dead(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"serve ended with {self._process.returncode}:\n{self.tail()}")
        return self.is_ready()

    def is_ready(self) -> bool:
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def session(self) -> Path:
        """Ray's directory for this run."""
        found = re.search(r"logs: (\S+)/logs/serve", self.log.read_text(errors="replace"))
        if not found:
            raise AssertionError(f"the start does not say where the logs are:\n{self.tail()}")
        return Path(found[1])

    def tail(self, lines: int = 60) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def processes(self, name: str) -> list[psutil.Process]:
        """Processes of this machine that were started for this application, by a part of their title."""
        return [each for each in self.descendants() if name in title(each)]

    def descendants(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def send_signal(self, number: int, *, group: bool = False) -> None:
        """To the process that was started, or to its whole group."""
        (os.killpg if group else os.kill)(self._process.pid, number)

    def wait(self, limit_s: float) -> int:
        """Its exit code. Raises `subprocess.TimeoutExpired`."""
        return self._process.wait(limit_s)

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


def cpu_s(processes: Sequence[psutil.Process]) -> float:
    """What they have used so far, all together. Nothing for one that is gone: an HAProxy of the start ends with its last connection."""
    used = 0.0
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            used += times.user + times.system
    return used


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) or process.name()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""
