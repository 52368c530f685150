"""Tells the person who started the application how far it is, until it is ready or cannot start."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

POLL_S = 1.0
PROGRESS_S = 10.0
FAILED = "DEPLOY_FAILED"
MAX_REASON = 1500

Probe = Callable[[], tuple[int, dict[str, Any]]]


class Announcer:
    """Watches `/readyz` and Ray's view of the applications. `run` is for a thread of its own."""

    def __init__(
        self,
        url: str,
        applications: Callable[[], Mapping[str, Any]],
        say: Callable[[str], None],
        stop: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        probe: Probe | None = None,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        """`applications`: as `serve.status().applications`; `stop` ends the process when nothing will come of it.

        `wait` sleeps so many seconds, and says whether to give up.
        """
        self.failed = False
        self._url = url
        self._applications = applications
        self._say = say
        self._stop = stop
        self._clock = clock
        self._probe = probe or (lambda: probe_url(f"{url}/readyz"))
        self._stopped = threading.Event()
        self._wait = wait or self._stopped.wait

    def stop(self) -> None:
        self._stopped.set()

    def run(self) -> None:
        started = spoken = self._clock()
        while not self._wait(POLL_S):
            status, body = self._probe()
            if status == 200:
                self._say(f"ready after {self._clock() - started:.0f} s: {self._url}/v1; stop with Ctrl-C")
                return
            if reason := self._reason():
                self.failed = True
                self._say(f"error: the application could not start:\n{reason}")
                self._stop()
                return
            if self._clock() - spoken >= PROGRESS_S:
                spoken = self._clock()
                self._say(f"starting, {spoken - started:.0f} s: {progress(body)}")

    def _reason(self) -> str:
        """Why Ray has given up; empty while it has not."""
        try:
            applications = self._applications()
        except Exception:  # Ray itself is still starting, or stopping
            return ""
        failed = [each for each in applications.values() if each.status == FAILED]
        return "\n".join(reason for each in failed for reason in [each.message, *_reasons(each.deployments)])


def _reasons(deployments: Mapping[str, Any]) -> list[str]:
    """Their ends, where the error stands: Ray puts the whole stack before it."""
    return [f"{name}: {each.message[-MAX_REASON:]}" for name, each in deployments.items() if each.status == FAILED]


def progress(body: dict[str, Any]) -> str:
    """What `/readyz` says is missing."""
    if "replicas_ready" not in body:
        return "the ingress is not there yet"
    waiting = [f"{name}: {state}" for name, state in body["parts"].items() if state != "ready"]
    return ", ".join([f"{body['replicas_ready']} of {body['replicas_wanted']} replicas", *waiting])


def probe_url(url: str) -> tuple[int, dict[str, Any]]:
    """Status and JSON body of a GET; 0 and nothing when there is no such answer."""
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:  # noqa: S310  # the address of this very application
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _object(error.read())
    except (OSError, ValueError):
        return 0, {}


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
