"""The application that the end-to-end tests talk to."""

import os
import subprocess
import sys
from typing import Any

from benchmarks.application import ROOT, Application, free_port, poll, title

__all__ = ["ROOT", "System", "free_port", "poll", "report", "title"]


class System(Application):
    """One running application, and what tests ask about it."""

    @property
    def is_simulated(self) -> bool:
        return bool(self.args["llm"]["engine"]["type"] == "simulated")

    def mygo(self, *arguments: str) -> str:
        """What a command of `mygo` about this application writes to stdout. The first two arguments are its name."""
        command = [sys.executable, "-m", "serve_app.cli", *arguments[:2], str(self.config), *arguments[2:]]
        done = subprocess.run(command, env={**os.environ, **self._env}, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    def key(self, tenant: str, *settings: str) -> dict[str, str]:
        """The headers of a client with a new key."""
        return {"authorization": f"Bearer {self.mygo('keys', 'create', '--tenant', tenant, *settings).strip()}"}

    def replicas(self) -> list[dict[str, Any]]:
        replicas: list[dict[str, Any]] = self.http.get("/readyz").json()["replicas"]
        return replicas

    def ongoing(self) -> int:
        """Running and waiting requests in all engines, as the engines count them."""
        return sum(replica["running"] + replica["waiting"] for replica in self.replicas() if "running" in replica)

    def session_logs(self) -> str:
        """Everything that the application's own processes logged."""
        return "\n".join(path.read_text(errors="replace") for path in sorted((self.session() / "logs" / "serve").glob("*.log")))


def report(text: str) -> None:
    """Shown in the test run's output: start-up is the longest silence in it."""
    sys.__stderr__.write(f"\n[e2e] {text}\n")  # type: ignore[union-attr]
