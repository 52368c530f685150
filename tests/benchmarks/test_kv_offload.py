"""The host tier's benchmark: policies differ as they should."""

import argparse

import pytest

from benchmarks.kv_offload import Case, cases, operations, run
from benchmarks.report import Row
from retrieval.eviction.factory import POLICIES, PolicyName

OPTIONS = argparse.Namespace(
    requests=300, device_tokens=40_000, drift_every=100, quick=True, seed=0, k="1,2", order="retrieval,greedy", host="1,2"
)


def row(policy: PolicyName | None, order: str = "retrieval", host: int = 2) -> Row:
    return run(Case(policy, 2, order, False, host, OPTIONS))


def test_the_host_saves_what_the_device_alone_does_not() -> None:
    device, lru, ours = row(None, host=0), row("lru"), row("pgdsf")
    assert device["saved_prefill_s"] < lru["saved_prefill_s"] <= ours["saved_prefill_s"]
    assert ours["ttft_p50_s"] < device["ttft_p50_s"]
    assert (device["requests"], ours["requests"]) == (210, 210)


def test_the_order_of_documents_matters() -> None:
    assert row("pgdsf", "greedy")["cached_token_share"] > row("pgdsf")["cached_token_share"]


def test_every_case_is_there_once() -> None:
    found = cases(OPTIONS)
    assert len({case[:-1] for case in found}) == len(found) == 3 * 2 * (1 + 2 * 4)
    assert {case.order for case in found if case.k == 1} == {"retrieval"}


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_operations_are_timed_on_a_full_tier(name: PolicyName) -> None:
    timed = operations(name, quick=True)
    assert timed["blocks"] == 10_000
    assert min(timed["evict_us"], timed["insert_us"], timed["use_us"]) > 0
