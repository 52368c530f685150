"""The person at the terminal is told how far the start is, and how it ended."""

from types import SimpleNamespace
from typing import Any

import pytest

from serve_app.announcer import PROGRESS_S, Announcer, probe_url, progress

STARTING = {
    "replicas_ready": 1,
    "replicas_wanted": 2,
    "parts": {"cache": "ready", "retrieval": "starting", "encoder": "failed"},
}


class Start:
    """A start that gives one pair of (status of /readyz, status of Ray) at each look; each look takes four seconds."""

    def __init__(self, *looks: tuple[int, str]) -> None:
        self.said: list[str] = []
        self.now = 0.0
        self.ended = False
        self._looks = list(looks)
        self._ray = ""
        self.announcer = Announcer("http://h:1", self._applications, self.said.append, self._end, lambda: self.now, self._probe, self._wait)
        self.announcer.run()

    def _wait(self, seconds: float) -> bool:
        self.now += 4
        return not self._looks

    def _probe(self) -> tuple[int, dict[str, Any]]:
        status, self._ray = self._looks.pop(0)
        return status, STARTING if status == 503 else {}

    def _applications(self) -> dict[str, Any]:
        if self._ray == "no controller yet":
            raise RuntimeError(self._ray)
        llm = SimpleNamespace(status=self._ray, message="x" * 5000 + "no such model")
        cache = SimpleNamespace(status="HEALTHY", message="")
        return {"mygo": SimpleNamespace(status=self._ray, message="Failed.", deployments={"Llm": llm, "Cache": cache})}

    def _end(self) -> None:
        self.ended = True


def test_ready_is_said_once_with_the_address() -> None:
    start = Start((0, "no controller yet"), (503, "DEPLOYING"), (200, "RUNNING"), (200, "RUNNING"))
    assert start.said[-1] == "ready after 12 s: http://h:1/v1; stop with Ctrl-C"
    assert not start.announcer.failed


def test_progress_is_said_now_and_then() -> None:
    start = Start(*[(503, "DEPLOYING")] * 6)
    assert len(start.said) == 24 // (PROGRESS_S + 2)
    assert start.said[0] == "starting, 12 s: 1 of 2 replicas, retrieval: starting, encoder: failed"


def test_a_start_that_failed_is_explained_and_ended() -> None:
    start = Start((404, "DEPLOYING"), (404, "DEPLOY_FAILED"), (404, "DEPLOY_FAILED"))
    (said,) = start.said
    assert said.startswith("error: the application could not start:\nFailed.\nLlm: xxx")
    assert said.endswith("no such model")
    assert len(said) < 2000
    assert start.ended
    assert start.announcer.failed


def test_a_stop_ends_the_watch() -> None:
    assert Start().said == []


@pytest.mark.parametrize("body", [{}, {"error": "not found"}])
def test_progress_without_an_ingress(body: dict[str, Any]) -> None:
    assert progress(body) == "the ingress is not there yet"


def test_an_address_without_a_server_has_no_answer() -> None:
    assert probe_url("http://127.0.0.1:1/readyz") == (0, {})
