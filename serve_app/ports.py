"""Whether the application's ports are free, and who has them if not.

As a program, `python -m serve_app.ports CONFIG` says in a moment what would otherwise be found after slow imports. Exit code 1: in use.
"""

import contextlib
import errno
import socket
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

MAX_PORT = 65535
RAYS_GRPC_PORT = 9000
"""Where a file names servicers and no port."""


def read_address(config: Path) -> tuple[str, int]:
    """Host and port of a Ray Serve configuration file. Raises `ValueError` when it cannot be read."""
    try:
        options = yaml.safe_load(config.read_text()).get("http_options") or {}
        host, port = options.get("host", "127.0.0.1"), options.get("port", 8000)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError) as error:
        raise ValueError(f"{config} cannot be read: {error}") from error
    if not isinstance(host, str) or not isinstance(port, int) or not 0 < port <= MAX_PORT:
        raise ValueError(f"{config} cannot be read: http_options has no host and port that could be used")
    return host, port


def read_grpc_port(config: Path) -> int | None:
    """None: gRPC is not asked for. Raises as `read_address` does."""
    try:
        options = yaml.safe_load(config.read_text()).get("grpc_options") or {}
        port = options.get("port", RAYS_GRPC_PORT) if options.get("grpc_servicer_functions") else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError) as error:
        raise ValueError(f"{config} cannot be read: {error}") from error
    if port is not None and (not isinstance(port, int) or not 0 < port <= MAX_PORT):
        raise ValueError(f"{config} cannot be read: grpc_options has no port that could be used")
    return port


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there."""
    return _why_not(host, port) is None


def any_port() -> int:
    with socket.socket() as sock:
        sock.bind(("", 0))
        port: int = sock.getsockname()[1]
        return port


def complain_of_all(config: Path) -> str:
    """Of the first port of a configuration file that cannot be had, as `complain` says it. Raises `ValueError` as `read_address` does."""
    (host, port), grpc_port = read_address(config), read_grpc_port(config)
    complaint = complain(host, port, config)
    if complaint or grpc_port is None:
        return complaint
    return complain(host, grpc_port, config, "grpc_options")


def complain(host: str, port: int, config: Path, section: str = "http_options") -> str:
    """What is wrong with the address and what to do, a line each; empty when a server could listen there. `section`: where the file
    has the port."""
    error = _why_not(host, port)
    if error is None:
        return ""
    change = f"change {section}.port in {config}"
    if error.errno != errno.EADDRINUSE:
        return f"error: nothing can listen on {host}, port {port}: {error.strerror}\nwhat to do: change http_options in {config}"
    holders = _listeners(port)
    names = ", ".join(f"{each.name()} (pid {each.pid})" for each in holders)
    use = f"error: port {port} is in use{f' by {names}' if names else ''}"
    if not holders or not all(map(_is_ray_haproxy, holders)):
        return f"{use}\nwhat to do: stop what listens there, or {change}"
    if owner := _owner(holders[0]):
        return f"{use} of an application that runs\nwhat to do: stop it (kill {owner}), or {change}"
    pids = " ".join(str(each.pid) for each in holders)
    return f"{use}, left over from an application that was killed\nwhat to do: end it (kill {pids}), or {change}"


def _why_not(host: str, port: int) -> OSError | None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError as error:
            return error
        return None


def _listeners(port: int) -> list[Any]:
    """The processes, as psutil's, that can be seen to listen there: without psutil none, and of another user's none."""
    try:
        import psutil
    except ImportError:
        return []
    found = []
    with contextlib.suppress(psutil.Error, OSError):
        listening = [each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
        pids = {each.pid for each in listening if each.laddr and each.laddr.port == port}
        for pid in sorted(filter(None, pids)):
            with contextlib.suppress(psutil.Error):
                found.append(psutil.Process(pid))
    return found


def _is_ray_haproxy(process: Any) -> bool:
    command = _command(process)
    return "haproxy" in command and ("ray_haproxy" in command or "haproxy-serve" in command)


def _owner(haproxy: Any) -> int | None:
    """Who started the Ray that it belongs to; none when that is gone: HAProxy was then adopted by another process."""
    family = _parents(haproxy)
    if not family or "HAProxyManager" not in _command(family[0]):
        return None
    pids = [after.pid for each, after in pairwise(family) if "raylet" in _command(each).partition(" ")[0]]
    return pids[0] if pids else None


def _parents(process: Any) -> list[Any]:
    import psutil

    try:
        parents: list[Any] = process.parents()
    except psutil.Error:
        return []
    return parents


def _command(process: Any) -> str:
    import psutil

    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def main(config: Path) -> int:
    """A file that cannot be read is for others to complain about."""
    with contextlib.suppress(ValueError):
        if complaint := complain_of_all(config):
            sys.stderr.write("".join(f"[mygo] {line}\n" for line in complaint.splitlines()))
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
