"""Ray's `serve run`, with a check of the ports before, a word when the application is ready, and a stop that finishes running streams.

`serve run` itself ends everything at once: on Ctrl-C Serve kills its proxies first, and with them every open connection.
"""

import atexit
import contextlib
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from serve_app import haproxy, ports, session
from serve_app.announcer import Announcer
from serve_app.config import is_loopback
from serve_app.grpc import ENVIRONMENT as GRPC
from serve_app.literal_secrets import hidden
from serve_app.ray_guard import guard

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
    # Whoever sends nothing of a header, or takes nothing of an answer, for so long is cut off; Ray's default is an hour. Waiting for an
    # answer does not count.
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
    # Ray would report to its makers.
    "RAY_USAGE_STATS_ENABLED": "0",
    **GRPC,
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
SHUTDOWN_LIMIT_S = 60.0
"""What the end may take after the streams have finished."""


def say(text: str) -> None:
    """A line of ours among those of Ray."""
    sys.stderr.write("".join(f"[mygo] {line}\n" for line in text.splitlines()))
    sys.stderr.flush()


def run(config: Path, *, dashboard: bool, verbose: bool, drain_limit_s: float) -> int:
    """Runs the application until SIGINT or SIGTERM, then drains it. Returns the exit code: 1 when it could not start."""
    try:
        host, port = ports.read_address(config)
        complaint = ports.complain_of_all(config)
    except ValueError as error:
        say(f"error: {error}\nwhat to do: name a Ray Serve configuration file, for example config.yaml")
        return 1
    if complaint:
        say(complaint)
        return 1
    serve = partial(_serve, config, f"http://{host}:{port}", dashboard=dashboard, verbose=verbose, drain_limit_s=drain_limit_s)
    return session.run(serve, stop_limit_s=drain_limit_s + SHUTDOWN_LIMIT_S)


def _serve(config: Path, url: str, stop: session.Stop, *, dashboard: bool, verbose: bool, drain_limit_s: float) -> int:
    set_environment(ports.is_free)
    haproxy.limit_headers(os.environ)
    if not os.environ.get("RAY_ADDRESS"):
        own = guard(os.environ, Path.home(), Path(tempfile.gettempdir()), is_local=is_loopback(urlsplit(url).hostname))
        if (shown := hidden(config, own, os.environ)) != config:
            config = shown
            atexit.register(config.unlink, missing_ok=True)
    import ray
    from ray import serve
    from ray.serve.scripts import cli

    with stop.held():  # Ray crashes when it is interrupted as it starts, and sets a handler of its own
        directory = _connect(ray, dashboard, verbose)
    say(f"logs: {directory}/logs/serve")
    announcer = Announcer(url, lambda: serve.status().applications, say, stop=_interrupt)
    shutdown = serve.shutdown

    def drain_and_shutdown() -> None:
        announcer.stop()
        with _ray_needed(ray.get_runtime_context().gcs_address):
            if not announcer.failed and not stop.lost:
                say("stopping: finishing what runs; press Ctrl-C again to stop at once")
                with contextlib.suppress(KeyboardInterrupt):
                    _drain(serve, drain_limit_s, lambda: stop.lost)
            with contextlib.suppress(KeyboardInterrupt):
                shutdown()
        say("stopped")

    serve.shutdown = drain_and_shutdown
    threading.Thread(target=announcer.run, daemon=True).start()
    with contextlib.suppress(SystemExit):  # the way out of `serve run`
        cli(["run", str(config)])
    return int(announcer.failed)


def set_environment(is_free: Callable[[str, int], bool]) -> None:
    """What Ray reads when it is imported; what the caller has set stays."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name, port in HAPROXY_PORTS.items():
        if name not in os.environ and not is_free("0.0.0.0", port):  # noqa: S104
            os.environ[name] = str(ports.any_port())
            say(f"port {port} is in use: HAProxy takes {os.environ[name]} ({name})")
    for name in FALLBACK_PORTS:
        os.environ.setdefault(name, str(ports.any_port()))


def _interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def _connect(ray: Any, dashboard: bool, verbose: bool) -> str:
    """Joins the cluster that `RAY_ADDRESS` names, or starts one here. Returns the directory of its logs and sockets."""
    ours = {} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": dashboard, "object_store_memory": OBJECT_STORE_BYTES}
    directory: str = ray.init(namespace="serve", log_to_driver=verbose, **ours).address_info["session_dir"]
    return directory


@contextlib.contextmanager
def _ray_needed(gcs_address: str) -> Iterator[None]:
    over = threading.Event()
    threading.Thread(target=_leave_without_ray, args=[gcs_address, over], daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _leave_without_ray(gcs_address: str, over: threading.Event) -> None:
    """Ends this process when Ray's GCS is gone before the application: each call to it would wait for a minute."""
    host, _, port = gcs_address.rpartition(":")
    while not over.wait(POLL_S):
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except ConnectionRefusedError:
            say("error: Ray ended before the application: what ran could not be finished")
            os._exit(1)
        except OSError:
            continue


def _drain(serve: Any, limit_s: float, is_over: Callable[[], bool]) -> None:
    """Deletes the applications while the proxies still run: each replica finishes what it has begun, unless `is_over`."""
    names = list(serve.status().applications)
    for name in names:
        serve.delete(name, _blocking=False)
    deadline = time.monotonic() + limit_s
    while serve.status().applications and time.monotonic() < deadline and not is_over():
        time.sleep(POLL_S)
