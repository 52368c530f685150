"""Ray's `serve run`, with a check of the ports before, a word when the application is ready, and a stop that finishes running streams.

`serve run` itself ends everything at once: on Ctrl-C Serve kills its proxies first, and with them every open connection.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from serve_app.announcer import Announcer

ENVIRONMENT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    # An ingress replica that stops stays up at least so long, for its proxies to hear of it; Ray's default is 30.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    # More threads than cores get in each other's way.
    "RAY_SERVE_HAPROXY_NBTHREAD": str(max(1, min(4, os.cpu_count() or 1))),
    # Otherwise HAProxy tells of each request twice: a Python process parses one line for Ray's own counters, which cost as much as an
    # exact hit; the other goes to a syslog that is rarely there. Ours count every request, and the access log has them.
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    "RAY_SERVE_HAPROXY_LOG_TARGET": "127.0.0.1:514 sample 1:1000",
    # Ray would report to its makers.
    "RAY_USAGE_STATS_ENABLED": "0",
}
HAPROXY_PORTS = {"RAY_SERVE_HAPROXY_METRICS_PORT": 9101, "RAY_SERVE_HAPROXY_STATS_PORT": 8404}
"""HAProxy's own, with Ray's defaults: two applications on one machine would collide there."""
FALLBACK_PORTS = ("RAY_SERVE_FALLBACK_PROXY_HTTP_PORT", "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT")
"""Of the proxy behind HAProxy that answers while no ingress is there. Ray lets several processes listen on its default port at once: on one
machine an application that starts would be given another one's answers.
"""
OBJECT_STORE_BYTES = 256 * 1024 * 1024
"""Requests and answers pass through it only when they take Ray's handle; Ray's default is 30 % of the memory."""
POLL_S = 0.2


def say(text: str) -> None:
    """A line of ours among those of Ray."""
    sys.stderr.write("".join(f"[mygo] {line}\n" for line in text.splitlines()))
    sys.stderr.flush()


def run(config: Path, *, dashboard: bool, verbose: bool, drain_limit_s: float) -> int:
    """Runs the application until SIGINT or SIGTERM, then drains it. Returns the exit code: 1 when it could not start."""
    try:
        options = yaml.safe_load(config.read_text()).get("http_options") or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError) as error:
        say(f"error: {config} cannot be read: {error}\nwhat to do: name a Ray Serve configuration file, for example config.yaml")
        return 1
    host, port = options.get("host", "127.0.0.1"), options.get("port", 8000)
    if not is_free(host, port):
        say(f"error: port {port} is in use\nwhat to do: stop what listens there, or change http_options.port in {config}")
        return 1
    set_environment(is_free)
    import ray
    from ray import serve
    from ray.serve.scripts import cli

    session = _connect(ray, dashboard, verbose)
    say(f"logs: {session}/logs/serve")
    announcer = Announcer(f"http://{host}:{port}", lambda: serve.status().applications, say, stop=_interrupt)
    shutdown = serve.shutdown

    def drain_and_shutdown() -> None:
        announcer.stop()
        if not announcer.failed:
            say("stopping: finishing what runs; press Ctrl-C again to stop at once")
            with contextlib.suppress(KeyboardInterrupt):
                _drain(serve, drain_limit_s)
        shutdown()
        say("stopped")

    serve.shutdown = drain_and_shutdown
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=announcer.run, daemon=True).start()
    with contextlib.suppress(SystemExit):  # the way out of `serve run`
        cli(["run", str(config)])
    return int(announcer.failed)


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError:
            return False
        return True


def set_environment(is_free: Callable[[str, int], bool]) -> None:
    """What Ray reads when it is imported; what the caller has set stays."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name, port in HAPROXY_PORTS.items():
        if name not in os.environ and not is_free("0.0.0.0", port):  # noqa: S104
            os.environ[name] = str(_any_port())
            say(f"port {port} is in use: HAProxy takes {os.environ[name]} ({name})")
    for name in FALLBACK_PORTS:
        os.environ.setdefault(name, str(_any_port()))


def _any_port() -> int:
    with socket.socket() as sock:
        sock.bind(("", 0))
        port: int = sock.getsockname()[1]
        return port


def _interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def _connect(ray: Any, dashboard: bool, verbose: bool) -> str:
    """Joins the cluster that `RAY_ADDRESS` names, or starts one here. Returns the directory of its logs and sockets."""
    ours = {} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": dashboard, "object_store_memory": OBJECT_STORE_BYTES}
    session: str = ray.init(namespace="serve", log_to_driver=verbose, **ours).address_info["session_dir"]
    return session


def _drain(serve: Any, limit_s: float) -> None:
    """Deletes the applications while the proxies still run: each replica finishes what it has begun."""
    names = list(serve.status().applications)
    for name in names:
        serve.delete(name, _blocking=False)
    deadline = time.monotonic() + limit_s
    while serve.status().applications and time.monotonic() < deadline:
        time.sleep(POLL_S)
