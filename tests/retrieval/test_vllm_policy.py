"""Our policy in vLLM's own hands: its contract, its factory and its manager, of each version that we say we work with."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from retrieval.eviction.base import Use
from retrieval.eviction.costs import LinearCost, per_token
from retrieval.eviction.pgdsf import Pgdsf
from tests.retrieval.vllm_versions import INSTALLED, ROOT, Vllm, loaded, sources

TOKENS = 16
"""Of one chunk."""
PROFILE = [0.01, 1e-4, 1e-8]


@pytest.fixture(scope="module", params=["0.31.0", INSTALLED, "0.33.0"])
def vllm(request: pytest.FixtureRequest) -> Iterator[Vllm]:
    with loaded(sources(request.param)) as modules:
        yield modules


def key(vllm: Vllm, *path: int, group: int = 0) -> Any:
    return vllm.base.make_offload_key(bytes(path).ljust(32, b"\0"), group)


def chain(vllm: Vllm, *path: int, group: int = 0) -> list[Any]:
    return [key(vllm, *path[: end + 1], group=group) for end in range(len(path))]


def context(vllm: Vllm, keys: list[Any], params: dict[str, Any] | None = None) -> Any:
    made = vllm.base.ReqContext("request", kv_transfer_params=params)
    for place, each in enumerate(keys):
        made.set_offload_key_position(each, (place + 1) * TOKENS)
    return made


def chunk(vllm: Vllm, number: int = 0, *, ready: bool = True) -> Any:
    made = vllm.policies.ChunkStatus(number)
    if ready:
        made.ref_cnt = 0
    return made


def policy(vllm: Vllm, capacity: int = 4) -> Any:
    return vllm.adapter.PgdsfCachePolicy(cache_capacity=capacity)


def fill(vllm: Vllm, made: Any, keys: list[Any], params: dict[str, Any] | None = None) -> None:
    """As the manager does, with one request that computes them all."""
    told = context(vllm, keys, params)
    made.on_store_miss(keys, told)
    if hasattr(vllm.policies.CachePolicy, "on_request_access"):
        made.on_request_access(keys, told)
        for number, each in enumerate(keys):
            made.insert(each, chunk(vllm, number), told)
    else:
        for number, each in enumerate(keys):
            made.insert(each, chunk(vllm, number))
    made.on_request_finished((tuple(keys),), set(keys), set(), told)


def test_it_is_found_by_the_configuration_that_ships(vllm: Vllm) -> None:
    content = yaml.safe_load((ROOT / "config.gpu.yaml").read_text())
    arguments = content["applications"][0]["args"]["llm"]["engine"]["args"]["extra"]
    given = arguments["kv_transfer_config"]["kv_connector_extra_config"]
    found = vllm.factory.CachePolicyFactory.get_cache_policy_cls(given["eviction_policy"], given["cache_policy_module_path"])
    assert found is vllm.adapter.PgdsfCachePolicy
    assert issubclass(found, vllm.policies.CachePolicy)


def test_chunks_come_and_go(vllm: Vllm) -> None:
    made, keys = policy(vllm), chain(vllm, 1, 2)
    fill(vllm, made, keys)
    assert [made.get(each).chunk_id for each in keys] == [0, 1]
    made.remove(keys[1])
    assert made.get(keys[1]) is None
    assert [(name, status.chunk_id) for name, status in made.evict(1, set())] == [(keys[0], 0)]
    assert made.get(keys[0]) is None


def test_of_a_chain_the_end_goes_first(vllm: Vllm) -> None:
    made, keys = policy(vllm), chain(vllm, 1, 2, 3, 4)
    fill(vllm, made, keys)
    assert [name for name, _ in made.evict(3, set())] == keys[:0:-1]


def test_eviction_is_all_or_nothing(vllm: Vllm) -> None:
    made, keys = policy(vllm), chain(vllm, 1, 2, 3)
    fill(vllm, made, keys)
    assert made.evict(0, set()) == []
    assert made.evict(2, {keys[1]}) is None
    assert made.evict(4, set()) is None
    assert all(made.get(each) is not None for each in keys)
    assert [name for name, _ in made.evict(1, {keys[1]})] == [keys[2]]


def test_chunks_in_transfer_stay(vllm: Vllm) -> None:
    made, keys = policy(vllm), chain(vllm, 1, 2)
    told = context(vllm, keys)
    made.on_store_miss(keys, told)
    for each in keys:
        made.insert(each, chunk(vllm, ready=False))
    assert made.evict(1, set()) is None
    made.mark_evictable(keys[0])
    assert made.evict(1, set()) is None, "one that is being written is behind it"
    made.mark_evictable(keys[1])
    made.mark_non_evictable(keys[1])
    assert made.evict(1, set()) is None
    made.mark_evictable(keys[1])
    assert [name for name, _ in made.evict(2, set())] == [keys[1], keys[0]]


def test_a_failed_store_is_forgotten(vllm: Vllm) -> None:
    made, (one,) = policy(vllm), chain(vllm, 1)
    made.on_store_miss([one], context(vllm, [one]))
    made.insert(one, chunk(vllm, ready=False))
    made.remove(one)
    fill(vllm, made, [one])
    assert [name for name, _ in made.evict(1, set())] == [one]


def test_clear(vllm: Vllm) -> None:
    made, keys = policy(vllm), chain(vllm, 1, 2)
    fill(vllm, made, keys)
    made.mark_non_evictable(keys[1])
    made.clear()
    assert made.get(keys[0]) is None
    fill(vllm, made, keys)
    assert [name for name, _ in made.evict(2, set())] == keys[::-1]


def test_parameters_without_sense_change_nothing(vllm: Vllm) -> None:
    made, keys = policy(vllm), chain(vllm, 1, 2)
    fill(vllm, made, keys, {"mygo": {"profile": [None]}})
    assert [name for name, _ in made.evict(2, set())] == keys[::-1]


def test_chunks_whose_place_is_not_known_are_no_chain(vllm: Vllm) -> None:
    made, keys = policy(vllm), chain(vllm, 1, 2)
    told = vllm.base.ReqContext("request")
    made.on_store_miss(keys, told)
    for each in keys:
        made.insert(each, chunk(vllm))
    made.on_request_finished((tuple(keys[::-1]),), set(keys), set(), told)
    assert {name for name, _ in made.evict(2, set())} == set(keys)


class PublicContext:
    """No more of a request's context than vLLM promises."""

    kv_transfer_params = None

    def __init__(self, keys: list[Any]) -> None:
        self._ends = {each: (place + 1) * TOKENS for place, each in enumerate(keys)}
        self._state: dict[type, Any] = {}

    def get_offload_key_position(self, name: Any) -> int | None:
        return self._ends.get(name)

    def get_state(self, kind: type) -> Any:
        return self._state.get(kind)

    def set_state(self, value: Any) -> None:
        self._state[type(value)] = value


def test_the_order_is_learnt_from_what_is_promised_alone(vllm: Vllm) -> None:
    made, keys = policy(vllm), chain(vllm, 1, 2, 3, 4)
    told = PublicContext(keys)
    for part in (keys[:2], keys[2:]):
        made.on_store_miss(part, told)
        for each in part:
            made.insert(each, chunk(vllm))
    assert [name for name, _ in made.evict(3, set())] == keys[:0:-1]


class Connector:
    """Does to the manager what vLLM's connector does: looks up, loads, stores step by step, and ends requests."""

    def __init__(self, vllm: Vllm, chunks: int) -> None:
        self.vllm = vllm
        self.manager = vllm.manager.CPUOffloadingManager(chunks, "PgdsfCachePolicy", "retrieval.eviction.vllm_policy", enable_events=True)
        self.policy = self.manager._policy

    def serve(self, keys: list[Any], params: dict[str, Any] | None = None, on_device: int = 0, *, step: int = 3) -> int:
        """Returns the chunks that were loaded."""
        told, manager = context(self.vllm, keys, params), self.manager
        manager.on_new_request(told)
        found = 0
        for each in keys[on_device:]:
            if manager.lookup(each, told) is not self.vllm.base.LookupResult.HIT:
                break
            found += 1
        if found:
            manager.prepare_load(keys[on_device : on_device + found], told)
            manager.complete_load(keys[on_device : on_device + found], told)
        offered = on_device + found if found else 0  # what is on the device alone is offered to the host, too
        for first in range(offered, len(keys), step):
            output = manager.prepare_store(keys[first : first + step], told)
            if output is not None:
                manager.complete_store(output.keys_to_store, told)
        manager.on_request_finished(told)
        return found

    def check(self) -> None:
        events = list(self.manager.take_events())
        assert all(event.keys for event in events)
        held = set(self.policy._policy)
        assert held == set(self.policy._chunks)
        assert len(held) <= self.manager._num_chunks
        assert not self.policy._pinned
        assert self.manager._num_evictable_cache_chunks == len(held)


def test_the_manager_of_the_version_keeps_what_is_asked_for_most(vllm: Vllm) -> None:
    connector = Connector(vllm, chunks=12)
    hot = chain(vllm, 1, 2, 3, 4)
    for number in range(20):
        connector.serve(chain(vllm, 100 + number, 1, 2, 3))
        assert connector.serve(hot) == (4 if number else 0)
    connector.check()


def test_what_the_device_held_before_a_load_counts_as_used(vllm: Vllm) -> None:
    """The manager hears of what was loaded alone."""
    connector = Connector(vllm, chunks=8)
    keys = chain(vllm, 1, 2, 3, 4)
    connector.serve(keys)
    for _ in range(3):
        assert connector.serve(keys, on_device=2) == 2
    blocks = connector.policy._policy._blocks
    assert [blocks[each].frequency for each in keys] == [4, 4, 4, 4]


def test_costs_are_those_of_the_tokens_that_were_computed(vllm: Vllm) -> None:
    connector = Connector(vllm, chunks=8)
    params = {"mygo": {"profile": PROFILE}}
    connector.serve(chain(vllm, 1, 2), params)
    connector.serve(chain(vllm, 1, 2, 3, 4), params)
    model, blocks = LinearCost(*PROFILE), connector.policy._policy._blocks
    costs = [blocks[each].cost_sum for each in chain(vllm, 1, 2, 3, 4)]
    assert costs == pytest.approx([per_token(model, 0, 2 * TOKENS)] * 2 + [per_token(model, 2 * TOKENS, 2 * TOKENS)] * 2)


def test_groups_of_layers_are_chains_of_their_own(vllm: Vllm) -> None:
    connector = Connector(vllm, chunks=8)
    one, other = chain(vllm, 1, 2), chain(vllm, 1, 2, group=1)
    told = vllm.base.ReqContext("request")
    for place in range(2):
        for keys in (one, other):
            told.set_offload_key_position(keys[place], (place + 1) * TOKENS)
    connector.manager.on_new_request(told)
    output = connector.manager.prepare_store(one + other, told)
    connector.manager.complete_store(output.keys_to_store, told)
    connector.manager.on_request_finished(told)
    blocks = connector.policy._policy._blocks
    assert [blocks[keys[1]].parent.key for keys in (one, other)] == [one[0], other[0]]
    connector.check()


def test_reset(vllm: Vllm) -> None:
    connector = Connector(vllm, chunks=8)
    connector.serve(chain(vllm, 1, 2))
    connector.manager.reset_cache()
    assert connector.serve(chain(vllm, 1, 2)) == 0
    connector.check()


def test_random_requests_get_what_the_policy_alone_would_keep(vllm: Vllm) -> None:
    """The manager, step by step, and the policy as the simulated engine uses it: the same chunks are left."""
    chance = random.Random(5)
    connector, alone = Connector(vllm, chunks=24), Pgdsf[Any](24)
    model = LinearCost(*PROFILE)
    for _ in range(500):
        path = [chance.choice([1, 1, 1, 2, 3]) for _ in range(chance.randrange(3, 9))]
        keys = chain(vllm, *path)
        cached = connector.serve(keys, {"mygo": {"profile": PROFILE}}, step=len(keys))
        missing = [each for each in keys if each not in alone]
        assert len(keys) - len(missing) == cached
        assert alone.evict(max(0, len(alone) + len(missing) - 24), set(keys)) is not None
        for place, each in enumerate(keys):
            if each in missing:
                alone.insert(each, keys[place - 1] if place else None)
        alone.used(Use(keys, set(missing), per_token(model, cached * TOKENS, len(missing) * TOKENS)))
        assert set(connector.policy._policy) == set(alone)
        connector.check()
