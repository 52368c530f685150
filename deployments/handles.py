"""Calls through Ray's handles."""

from contextvars import Context
from typing import Any


def remote(method: Any, *args: Any) -> Any:
    """What `method.remote(*args)` gives, called outside of the request that this is for.

    Ray would give the call that request's own id, and its router (2.60) knows pending calls by it: of two that wait at once only one is
    ever found, and the loop that looks for the other keeps the process from doing anything else.
    """
    return Context().run(method.remote, *args)
