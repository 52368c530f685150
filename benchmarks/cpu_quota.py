"""A bound on the CPU time of running processes, by Linux control groups. Needs root. Tried with version 1 only, not yet with version 2."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

V1, V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
PERIOD_US = 10_000


@contextmanager
def cpu_quota(processes: Sequence[psutil.Process], cores: float) -> Iterator[None]:
    """Each of the processes gets at most `cores` of a core as long as this lasts. Raises `OSError` where that is not allowed."""
    with ExitStack() as stack:
        for process in processes:
            stack.enter_context(_bounded(process, round(cores * PERIOD_US)))
        yield


@contextmanager
def _bounded(process: psutil.Process, quota_us: int) -> Iterator[None]:
    group = _group(process.pid, quota_us)
    try:
        yield
    finally:
        if process.is_running():
            (group.parent / "cgroup.procs").write_text(str(process.pid))
        group.rmdir()


def _group(pid: int, quota_us: int) -> Path:
    is_v1 = V1.is_dir()
    group = (V1 if is_v1 else V2) / f"mygo-{uuid.uuid4().hex[:8]}"
    if not is_v1:
        (V2 / "cgroup.subtree_control").write_text("+cpu")
    group.mkdir()
    if is_v1:
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(quota_us))
    else:
        (group / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
    (group / "cgroup.procs").write_text(str(pid))
    return group
