"""A stop deletes the applications and waits for them, so that running streams end."""

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
    launch._drain(serve, 60)
    assert serve.deleted == [("a", False), ("b", False)]
    assert now[0] == launch.POLL_S


def test_the_wait_has_a_limit(now: list[float]) -> None:
    launch._drain(FakeServe(stuck=True), 60)
    assert 60 <= now[0] <= 60 + launch.POLL_S
