"""Those requests that take Ray's handle go by the same ranking as all others."""

import asyncio
import re
from contextvars import copy_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.context import _get_serve_request_context, _RequestContext, _serve_request_context

from deployments.handles import remote
from deployments.replica_client import RANKING_HEADER
from deployments.replicas import Replica, directory_of
from deployments.router import DirectoryRouter

NAME = "of this test"


def chosen(names: str, request: Any) -> list[str]:
    replicas: list[Any] = [SimpleNamespace(replica_id=SimpleNamespace(unique_id=name)) for name in names]
    router = object.__new__(DirectoryRouter)
    router._deployment_id = SimpleNamespace(name=NAME)
    groups = asyncio.run(router.choose_replicas(replicas, request))
    return [replica.replica_id.unique_id for group in groups for replica in group]


def ranked(names: str, *args: Any) -> list[str]:
    return chosen(names, asked(*args) if args else None)


def asked(*args: Any) -> Any:
    return SimpleNamespace(args=args, routing_context=SimpleNamespace(should_backoff=False))


@pytest.mark.parametrize("names", ["abc", "cba", "bca"])
def test_the_handle_follows_the_ranking(names: str) -> None:
    assert ranked(names, "POST", "/v1/x", {RANKING_HEADER: "c,a,b"}, b"") == ["c", "a", "b"]


def test_replicas_that_the_ranking_does_not_know_come_last() -> None:
    assert ranked("abcd", "POST", "/v1/x", {RANKING_HEADER: "d,b"}, b"")[:2] == ["d", "b"]


@pytest.mark.parametrize("args", [(), ("POST", "/v1/x", {}, b"")])
def test_without_a_ranking_all_are_offered(args: tuple[Any, ...]) -> None:
    assert sorted(ranked("abc", *args)) == ["a", "b", "c"]


def test_nobody_asks_again_without_a_pause() -> None:
    request = asked()
    assert chosen("a", request) == ["a"]
    assert request.routing_context.should_backoff


def test_calls_have_no_name_in_common_with_the_request_that_they_are_for() -> None:
    seen = []

    def method(*args: Any) -> int:
        seen.append((args, _get_serve_request_context()._internal_request_id))
        return 7

    def within_a_request() -> Any:
        _serve_request_context.set(_RequestContext(_internal_request_id="the request's"))
        return remote(SimpleNamespace(remote=method), 1, "a")

    assert copy_context().run(within_a_request) == 7
    assert seen == [((1, "a"), "")]


def test_every_call_through_a_handle_is_made_so() -> None:
    root = Path(__file__).parents[2]
    sources = [path for folder in ("deployments", "serve_app") for path in (root / folder).rglob("*.py")]
    assert [path.name for path in sources if re.search(r"\w\.remote\b", path.read_text())] == ["handles.py"]


def test_replicas_of_another_model_get_nothing_and_nobody_asks_for_them_without_a_pause() -> None:
    directory = directory_of(NAME)
    request = asked()
    directory.require("new")
    try:
        directory.replace([Replica("a", "", model="old"), Replica("b", "", model="new")])
        assert chosen("ab", request) == ["b"]
        assert chosen("a", request) == []
        assert request.routing_context.should_backoff
    finally:
        directory.replace([])
