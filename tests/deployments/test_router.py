"""Those requests that take Ray's handle go by the same ranking as all others."""

from types import SimpleNamespace
from typing import Any

import pytest

from deployments.replica_client import RANKING_HEADER
from deployments.router import DirectoryRouter


def ranked(names: str, *args: Any) -> list[str]:
    import asyncio

    replicas: list[Any] = [SimpleNamespace(replica_id=SimpleNamespace(unique_id=name)) for name in names]
    router = object.__new__(DirectoryRouter)
    groups = asyncio.run(router.choose_replicas(replicas, SimpleNamespace(args=args) if args else None))
    return [replica.replica_id.unique_id for group in groups for replica in group]


@pytest.mark.parametrize("names", ["abc", "cba", "bca"])
def test_the_handle_follows_the_ranking(names: str) -> None:
    assert ranked(names, "POST", "/v1/x", {RANKING_HEADER: "c,a,b"}, b"") == ["c", "a", "b"]


def test_replicas_that_the_ranking_does_not_know_come_last() -> None:
    assert ranked("abcd", "POST", "/v1/x", {RANKING_HEADER: "d,b"}, b"")[:2] == ["d", "b"]


@pytest.mark.parametrize("args", [(), ("POST", "/v1/x", {}, b"")])
def test_without_a_ranking_all_are_offered(args: tuple[Any, ...]) -> None:
    assert sorted(ranked("abc", *args)) == ["a", "b", "c"]
