"""One JSON line for each request, written in batches: a line that is formatted and flushed alone costs more than an exact hit."""

import asyncio
import logging
import logging.handlers
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from serve_app.exchanges import Exchange

EVERY_S = 0.1
MAX_WAITING = 256
"""Lines; then they are written at once: writing more would hold up requests for milliseconds."""
SERVE_LOGGER = "ray.serve"


class BatchedAccessLog:
    """An `AccessLog` for one event loop. `write` takes several lines at once; `replica` stands in each line; `clock`: Unix time."""

    def __init__(self, write: Callable[[str], None], replica: str, clock: Callable[[], float] = time.time) -> None:
        self._write = write
        self._replica = replica
        self._clock = clock
        self._waiting: list[tuple[float, str, Exchange, float]] = []
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, route: str, exchange: Exchange, duration_s: float) -> None:
        self._waiting.append((self._clock(), route, exchange, duration_s))
        if len(self._waiting) >= MAX_WAITING:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(EVERY_S, self.flush)

    def flush(self) -> None:
        """To be called once more at the end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._write("\n".join(self._line(*each) for each in waiting))

    def _line(self, at: float, route: str, exchange: Exchange, duration_s: float) -> str:
        """As Ray's own lines begin. Nothing in it needs escapes: a request's id and its route have none."""
        return (
            f'{{"asctime": "{_second(int(at))},{int(at % 1 * 1000):03d}", "levelname": "INFO", "message": "request", '
            f'"id": "{exchange.request_id}", "path": "{route}", "status": {exchange.status}, "cache": "{exchange.cache}", '
            f'"duration_ms": {duration_s * 1000:.2f}, "replica": "{self._replica}"}}'
        )


@lru_cache(4)
def _second(at: int) -> str:
    """In local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def beside_serve_log(replica: str) -> BatchedAccessLog | None:
    """Writes to a file beside the replica's own, rotated by the same rules. None: Serve has no file here."""
    handlers = [_file_of(handler) for handler in logging.getLogger(SERVE_LOGGER).handlers]
    serve = next((handler for handler in handlers if handler), None)
    if serve is None:
        return None
    path = Path(serve.baseFilename)
    handler = logging.handlers.RotatingFileHandler(
        path.with_name(f"access_{path.name}"), maxBytes=serve.maxBytes, backupCount=serve.backupCount, encoding="utf-8"
    )
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("mygo.access")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers[:] = [handler]
    return BatchedAccessLog(logger.info, replica)


def _file_of(handler: logging.Handler) -> logging.handlers.RotatingFileHandler | None:
    target = handler.target if isinstance(handler, logging.handlers.MemoryHandler) else handler
    return target if isinstance(target, logging.handlers.RotatingFileHandler) else None
