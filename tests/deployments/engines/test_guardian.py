"""Whatever a replica has started ends with it, however the replica ends. Real processes."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from deployments.engines import guardian
from deployments.engines.guardian import MARK, kill_marked, marked_processes, wait_for_end

ROOT = Path(guardian.__file__).parents[2]
SLEEP = ["sleep", "300"]
LIMIT_S = 10.0

GRANDCHILD_IN_A_SESSION_OF_ITS_OWN = """
import subprocess, time
print(subprocess.Popen(["sleep", "300"], start_new_session=True).pid, flush=True)
time.sleep(300)
"""
REPLICA = f"""
import subprocess, sys, time
from deployments.engines.guardian import start_guardian
earlier = subprocess.Popen(["sleep", "300"])
guardian = start_guardian()
child = subprocess.Popen(["sleep", "300"])
middle = subprocess.Popen([sys.executable, "-I", "-S", "-c", {GRANDCHILD_IN_A_SESSION_OF_ITS_OWN!r}], stdout=subprocess.PIPE)
grandchild = int(middle.stdout.readline())
print(earlier.pid, guardian.pid, child.pid, middle.pid, grandchild, flush=True)
sys.stdin.readline()
"""


def is_running(pid: int) -> bool:
    """A process that has ended may stay as a zombie until its parent looks."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def await_that(condition: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s} s"
        time.sleep(0.01)


@pytest.fixture
def started() -> Iterator[list[int]]:
    """Process ids that are killed after the test, whatever it finds."""
    pids: list[int] = []
    yield pids
    for pid in filter(is_running, pids):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def replica(started: list[int]) -> Iterator[subprocess.Popen[str]]:
    """A process that has started a guardian, and then others. Their ids are in `started`."""
    with subprocess.Popen([sys.executable, "-c", REPLICA], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as replica:
        assert replica.stdout
        started += map(int, replica.stdout.readline().split())
        assert len(started) == 5
        assert all(is_running(pid) for pid in started)
        yield replica
        replica.kill()


def test_what_a_killed_replica_started_is_gone_with_it(replica: subprocess.Popen[str], started: list[int]) -> None:
    earlier, *others = started
    replica.send_signal(signal.SIGKILL)
    await_that(lambda: not any(is_running(pid) for pid in others))
    assert is_running(earlier), "it was started before the guardian, and is not the replica's to end"


def test_what_a_replica_leaves_behind_at_its_own_end_is_gone(replica: subprocess.Popen[str], started: list[int]) -> None:
    assert replica.stdin
    replica.stdin.close()
    assert replica.wait(LIMIT_S) == 0
    await_that(lambda: not any(is_running(pid) for pid in started[1:]))


def test_a_running_replica_keeps_what_it_started(replica: subprocess.Popen[str], started: list[int]) -> None:
    os.kill(started[2], signal.SIGKILL)  # the death of a child is no death of the replica
    await_that(lambda: not is_running(started[2]))
    assert all(is_running(pid) for pid in (replica.pid, started[1], *started[3:]))


def marked(mark: str, command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env={**os.environ, MARK: mark})


def test_only_processes_with_this_very_mark_are_found_and_killed(started: list[int]) -> None:
    mark = uuid.uuid4().hex
    ours, longer, others, none = (
        marked(mark, SLEEP),
        marked(f"{mark}x", SLEEP),
        marked(uuid.uuid4().hex, SLEEP),
        subprocess.Popen(SLEEP),
    )
    started += [process.pid for process in (ours, longer, others, none)]
    await_that(lambda: marked_processes(mark) == [ours.pid])
    assert kill_marked(mark) == 1
    assert ours.wait(LIMIT_S) == -signal.SIGKILL
    assert [process.poll() for process in (longer, others, none)] == [None] * 3
    assert kill_marked(mark) == 0
    for process in (longer, others, none):
        process.kill()
        process.wait()


def test_processes_that_refuse_to_end_and_start_others_are_killed(started: list[int]) -> None:
    mark = uuid.uuid4().hex
    shell = marked(mark, ["sh", "-c", "trap '' TERM; while :; do sleep 300 & sleep 0.02; done"])
    await_that(lambda: len(marked_processes(mark)) > 3)
    assert kill_marked(mark) > 3
    assert marked_processes(mark) == []
    assert shell.wait(LIMIT_S) == -signal.SIGKILL


def test_the_end_of_a_process_that_is_gone_is_not_waited_for() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    started = time.monotonic()
    wait_for_end(process.pid)
    assert time.monotonic() - started < LIMIT_S


def test_a_guardian_that_comes_too_late_still_kills(started: list[int]) -> None:
    mark = uuid.uuid4().hex
    replica = subprocess.Popen(["true"])
    replica.wait()
    left_behind = marked(mark, SLEEP)
    started.append(left_behind.pid)
    await_that(lambda: marked_processes(mark) == [left_behind.pid])
    late = subprocess.run([sys.executable, "-I", "-S", guardian.__file__, str(replica.pid), mark], timeout=10, check=True)
    assert late.returncode == 0
    assert left_behind.wait(LIMIT_S) == -signal.SIGKILL
