"""An application in a session of its own: signals reach it once, and nothing of it stays, whoever is killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace

import pytest

from benchmarks.application import poll
from serve_app import session

PROGRAM = """
import os, signal, subprocess, sys, time
from serve_app import session

for number in session.STOP_SIGNALS:
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)  # under nohup they are ignored
session.LEAVE = ((0, 0.2), *session.LEAVE[1:])

def work(stop):
    server = subprocess.Popen(["sleep", "600"])
    try:
        print(os.getpid(), flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        print("lost" if stop.lost else "told", "dead" if server.poll() else "alive", flush=True)
    BODY
    return 3

sys.exit(session.run(work, STOP_LIMIT_S))
"""


class Program:
    """It runs what `session.run` is for: a worker that starts a server and leaves it behind."""

    def __init__(self, body: str, stop_limit_s: float) -> None:
        code = PROGRAM.replace("BODY", body).replace("STOP_LIMIT_S", str(stop_limit_s))
        self.process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
        self.worker = int(self.line())

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def is_gone(self) -> bool:
        return not session.members(self.worker)


@pytest.fixture
def start() -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def start(body: str = "pass", stop_limit_s: float = 60) -> Program:
        started.append(Program(body, stop_limit_s))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()
        for pid in session.members(each.worker):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_a_signal_reaches_the_worker_and_not_its_servers(
    start: Callable[..., Program], number: int, send: Callable[[int, int], None]
) -> None:
    program = start()
    send(program.process.pid, number)
    assert program.line() == "told alive"
    assert program.process.wait(30) == 3
    assert program.is_gone()


def test_a_killed_launcher_takes_the_application_with_it(start: Callable[..., Program]) -> None:
    program = start()
    os.killpg(program.process.pid, signal.SIGKILL)
    assert program.line() == "lost alive"
    poll("the end of the session", 30, program.is_gone)


def test_a_killed_worker_leaves_nothing(start: Callable[..., Program]) -> None:
    program = start()
    os.kill(program.worker, signal.SIGKILL)
    assert program.process.wait(30) == 128 + signal.SIGKILL
    assert program.is_gone()


def test_a_worker_that_does_not_end_is_killed(start: Callable[..., Program]) -> None:
    program = start("time.sleep(600)", stop_limit_s=0.2)
    program.process.terminate()
    assert program.process.wait(30) == 128 + signal.SIGKILL
    assert program.is_gone()


def test_signals_at_once_are_one_and_a_later_one_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(session, "time", SimpleNamespace(monotonic=lambda: now[0]))
    stop = session.Stop()
    with pytest.raises(KeyboardInterrupt):
        stop._hear(signal.SIGTERM, None)
    now[0] += session.SAME_STOP_S / 2
    stop._hear(signal.SIGTERM, None)
    now[0] += session.SAME_STOP_S / 2
    with pytest.raises(KeyboardInterrupt):
        stop._hear(signal.SIGINT, None)


def test_a_signal_that_is_held_comes_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "STOP_SIGNALS", ())  # the test's own handlers stay
    stop = session.Stop()
    done = []

    def start() -> None:
        with stop.held():
            stop._hear(signal.SIGINT, None)
            done.append("start")
        done.append("more")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert done == ["start"]
    with stop.held():
        done.append("undisturbed")
    assert done == ["start", "undisturbed"]
