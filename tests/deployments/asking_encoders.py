"""On whose behalf an encoder is asked what it is."""

from types import SimpleNamespace
from typing import Any

from ray.serve.context import _get_serve_request_context, _RequestContext, _serve_request_context


def requests_that_ask(encoder: Any) -> list[str]:
    """Ids of the requests of Serve's in whose context `encoder` is asked from now on; this goes on within one."""
    seen, describe = list[str](), encoder.describe.remote

    def asked() -> Any:
        seen.append(_get_serve_request_context()._internal_request_id)
        return describe()

    encoder.describe = SimpleNamespace(remote=asked)
    _serve_request_context.set(_RequestContext(_internal_request_id="the request's"))
    return seen
