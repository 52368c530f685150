"""What is counted and logged of each HTTP exchange when it has ended."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from serve_app.metrics import Metrics

log = logging.getLogger("ray.serve")


@dataclass(slots=True)
class Exchange:
    """What is known of an exchange when it ends."""

    request_id: str
    started: float = field(default_factory=time.perf_counter)
    status: int = 0
    first_byte_s: float | None = None
    cache: str = ""


class AccessLog(Protocol):
    """Takes a line for each exchange. Never fails."""

    def __call__(self, route: str, exchange: Exchange, duration_s: float) -> None: ...


def log_each(route: str, exchange: Exchange, duration_s: float) -> None:
    """An `AccessLog` that writes each line at once, through Serve's own logger."""
    log.info(
        "request",
        extra={
            "id": exchange.request_id,
            "path": route,
            "status": exchange.status,
            "cache": exchange.cache,
            "duration_ms": round(duration_s * 1000, 2),
        },
    )


@dataclass(frozen=True, slots=True)
class Exchanges:
    """One for each ingress replica."""

    metrics: Metrics
    access_log: AccessLog = log_each
    clock: Callable[[], float] = time.perf_counter
    client_timeout_s: float = 60.0
    """How long a client may take nothing of its answer."""

    def ended(self, route: str, exchange: Exchange) -> None:
        duration = self.clock() - exchange.started
        self.metrics.request(route, exchange.status, exchange.cache, duration, exchange.first_byte_s)
        self.access_log(route, exchange, duration)

    def left(self, route: str) -> None:
        """A client left before its answer was complete."""
        self.metrics.disconnected(route)
