"""Ends what a replica leaves behind.

Neither Ray nor vLLM ends an engine's processes when the replica that started them is killed: they were seen to hold
gigabytes for as long as the machine ran. A guardian is a small process of its own session that waits for the replica's
end, however it ends, and then kills every process that carries the replica's mark in its environment. The mark is
inherited, so processes that are still starting, or stuck in native code, are found too.
"""

import os
import select
import signal
import subprocess
import sys
import uuid
from pathlib import Path

MARK = "MYGO_REPLICA_MARK"


def start_guardian() -> subprocess.Popen[bytes]:
    """Marks this process's future children, and starts the guardian that outlives it. Linux only.

    To be called before the engine starts. The guardian ends by itself, milliseconds after this process.
    """
    mark = uuid.uuid4().hex
    guardian = subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid()), mark],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.environ[MARK] = mark
    return guardian


def marked_processes(mark: str) -> list[int]:
    """Process ids whose initial environment carries the mark."""
    needle = f"{MARK}={mark}".encode()
    pids = [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]
    return [pid for pid in pids if needle in _environment(pid)]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # gone, or not ours
        return []


def kill_marked(mark: str) -> int:
    """Kills until none is left: a process may have been starting another one. Returns how many were killed."""
    killed: set[int] = set()
    while pids := [pid for pid in marked_processes(mark) if _kill(pid)]:
        killed.update(pids)
    return len(killed)


def _kill(pid: int) -> bool:
    """Whether the process was there to be killed. A zombie has no environment and is not seen."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def wait_for_end(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll()


if __name__ == "__main__":
    replica, replica_mark = int(sys.argv[1]), sys.argv[2]
    wait_for_end(replica)
    kill_marked(replica_mark)
