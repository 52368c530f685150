"""Those requests that take Ray's handle go by the same ranking as all others."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

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
    return chosen(names, SimpleNamespace(args=args) if args else None)


@pytest.mark.parametrize("names", ["abc", "cba", "bca"])
def test_the_handle_follows_the_ranking(names: str) -> None:
    assert ranked(names, "POST", "/v1/x", {RANKING_HEADER: "c,a,b"}, b"") == ["c", "a", "b"]


def test_replicas_that_the_ranking_does_not_know_come_last() -> None:
    assert ranked("abcd", "POST", "/v1/x", {RANKING_HEADER: "d,b"}, b"")[:2] == ["d", "b"]


@pytest.mark.parametrize("args", [(), ("POST", "/v1/x", {}, b"")])
def test_without_a_ranking_all_are_offered(args: tuple[Any, ...]) -> None:
    assert sorted(ranked("abc", *args)) == ["a", "b", "c"]


def test_replicas_of_another_model_get_nothing_and_nobody_asks_for_them_without_a_pause() -> None:
    directory = directory_of(NAME)
    request = SimpleNamespace(args=(), routing_context=SimpleNamespace(should_backoff=False))
    directory.require("new")
    try:
        directory.replace([Replica("a", "", model="old"), Replica("b", "", model="new")])
        assert chosen("ab", request) == ["b"]
        assert not request.routing_context.should_backoff
        assert chosen("a", request) == []
        assert request.routing_context.should_backoff
    finally:
        directory.replace([])
