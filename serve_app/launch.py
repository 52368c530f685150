"""Ray's `serve run`, with a stop that finishes running streams.

`serve run` itself ends everything at once: on Ctrl-C Serve kills its proxies first, and with them every open connection.
"""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    # An ingress replica that stops stays up at least so long, for its proxies to hear of it; Ray's default is 30.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    # Ray would report to its makers.
    "RAY_USAGE_STATS_ENABLED": "0",
}
OBJECT_STORE_BYTES = 256 * 1024 * 1024
"""Requests and answers pass through it only when they take Ray's handle; Ray's default is 30 % of the memory."""
POLL_S = 0.2


def run(config: Path, *, dashboard: bool, drain_limit_s: float) -> None:
    """Runs the application until SIGINT or SIGTERM, then drains it. Does not return."""
    for name, value in ENVIRONMENT.items():  # read by Ray when it is imported
        os.environ.setdefault(name, value)
    import ray
    from ray import serve
    from ray.serve.scripts import cli

    _connect(ray, dashboard)
    shutdown = serve.shutdown

    def drain_and_shutdown() -> None:
        sys.stderr.write("Finishing what runs; press Ctrl-C again to stop at once.\n")
        with contextlib.suppress(KeyboardInterrupt):
            _drain(serve, drain_limit_s)
        shutdown()

    serve.shutdown = drain_and_shutdown
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    cli(["run", str(config)])


def _connect(ray: Any, dashboard: bool) -> None:
    if os.environ.get("RAY_ADDRESS"):
        ray.init(namespace="serve")
    else:
        ray.init(namespace="serve", include_dashboard=dashboard, object_store_memory=OBJECT_STORE_BYTES)


def _drain(serve: Any, limit_s: float) -> None:
    """Deletes the applications while the proxies still run: each replica finishes what it has begun."""
    names = list(serve.status().applications)
    for name in names:
        serve.delete(name, _blocking=False)
    deadline = time.monotonic() + limit_s
    while serve.status().applications and time.monotonic() < deadline:
        time.sleep(POLL_S)
