"""Runs the application in a session of its own, and ends what is left of it.

Ray starts its servers in the process group of its caller. A signal to the whole group (`timeout`, many supervisors) would end them before
the application has finished its streams, and HAProxy would stay. So the process that was started only passes signals on.
"""

import atexit
import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAME_STOP_S = 1.0
"""Signals that come closer together are one: a supervisor may signal the group and its leader, or both processes."""
LOST_LIMIT_S = 30.0
"""What the application may take to end when the process that was started is gone."""
LEAVE = ((0, 8.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0))
"""What is left of a session gets each signal, and may then take so many seconds. Ray's workers end without one (0), HAProxy does not."""
POLL_S = 0.05


class Stop:
    """The wish that the application ends: a `KeyboardInterrupt` in the main thread for each one."""

    def __init__(self) -> None:
        self.lost = False
        """Whether nobody is there to wait for the end: it should come at once."""
        self._heard = -math.inf
        self._held: list[int] | None = None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Signals in it are heard at its end, and handlers that others set in it are replaced: for what must not be cut short."""
        self._held = []
        try:
            yield
        finally:
            held, self._held = self._held, None
            self.listen()
        if held:
            raise KeyboardInterrupt

    def listen(self) -> None:
        for number in STOP_SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
                signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._heard >= SAME_STOP_S:
            self._heard = now
            if self._held is None:
                raise KeyboardInterrupt
            self._held.append(number)

    def sweep(self) -> None:
        """At the very end: what the process that was started would do, were it there."""
        if self.lost:
            end_session(os.getpid())

    def watch(self, lifeline: int) -> None:
        """Ends this process when the other end of the pipe is closed, which is when its parent is gone. For a thread of its own."""
        os.read(lifeline, 1)
        self.lost = True
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(LOST_LIMIT_S)
        end_session(os.getpid())
        os._exit(1)


def run(work: Callable[[Stop], int], stop_limit_s: float) -> int:
    """Calls `work` in a child with a session of its own. Returns its exit code, or 128 and the signal that ended it.

    Stop signals are passed on to it. What takes longer than `stop_limit_s` after the first is killed.
    """
    lifeline, held = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    # A signal in between would find no handler, or the other process's.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    child = os.fork()
    if child == 0:
        os.close(held)
        os.setsid()
        stop = Stop()
        stop.listen()
        threading.Thread(target=stop.watch, args=[lifeline], daemon=True).start()
        atexit.register(stop.sweep)  # before Ray's, which therefore comes first
        raise SystemExit(_work(work, stop, before))
    os.close(lifeline)
    _pass_on(child, stop_limit_s)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    # The child is not reaped yet, so that its id cannot be another's.
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    end_session(child)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(held)
    return code if code >= 0 else 128 - code


def _work(work: Callable[[Stop], int], stop: Stop, mask: set[int]) -> int:
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return work(stop)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        for number in STOP_SIGNALS:  # Ray's own end must not be cut short
            signal.signal(number, signal.SIG_IGN)


def _pass_on(child: int, stop_limit_s: float) -> None:
    def pass_on(number: int, frame: FrameType | None) -> None:
        if not signal.getitimer(signal.ITIMER_REAL)[0]:
            signal.setitimer(signal.ITIMER_REAL, stop_limit_s)
        os.kill(child, number)

    signal.signal(signal.SIGALRM, lambda number, frame: os.kill(child, signal.SIGKILL))
    for number in STOP_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # of a shell's background job, or nohup
            signal.signal(number, pass_on)


def end_session(session: int) -> None:
    """Waits until nobody else is in it, and makes sure of that."""
    for number, limit_s in LEAVE:
        deadline = time.monotonic() + limit_s
        for pid in members(session):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        while members(session):
            if time.monotonic() >= deadline:
                break
            time.sleep(POLL_S)
        else:
            return


def members(session: int) -> list[int]:
    """The other processes of a session that run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name before the bracket may hold anything.
            state, _, _, their_session = path.read_text(errors="replace").rpartition(")")[2].split()[:4]
            if int(their_session) == session and state not in "ZX" and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found
