"""The host tier of the simulated engine."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.prefix.events import MEDIUM_CPU, AllBlocksCleared, BlockRemoved, BlockStored, Event, KVEventBatch
from cache.prefix.keys import BlockKeys
from cache.prefix.mirror import TIERS, EngineMirror
from deployments.config import SimulatedEngineConfig
from deployments.engines.simulated.blocks import TokenSequence
from deployments.engines.simulated.generation import Generation
from deployments.engines.simulated.protocol import CompletionRequest
from deployments.engines.simulated.scheduler import Request, Scheduler, State

SIZE = 10
CONFIG = SimulatedEngineConfig(
    prefill_tokens_per_s=1000,
    decode_step_s=0.01,
    decode_step_per_request_s=0.001,
    max_running=4,
    max_batched_tokens=100,
    block_size=SIZE,
    kv_blocks=10,
    host_blocks=40,
    host_tokens_per_s=10_000,
)
HOST = TIERS.index(MEDIUM_CPU)


def request(prompt: int, answer: int = 1, *, start: int = 0, **more: Any) -> Request:
    tokens = [*range(start, start + prompt), *range(10**8 + start, 10**8 + start + answer)]
    return Request(TokenSequence(tokens, SIZE, more.pop("salt", None)), prompt_tokens=prompt, answer_tokens=answer, **more)


class Engine:
    """A scheduler in virtual time, and a mirror that follows its events."""

    def __init__(self, config: SimulatedEngineConfig = CONFIG) -> None:
        self.scheduler: Scheduler[Request] = Scheduler(config)
        self.mirror = EngineMirror(BlockKeys(b"seed", SIZE), lambda change: None)
        self.events: list[Event] = []
        self.first_token: dict[Request, float] = {}
        self.now = 0.0

    def step(self) -> float | None:
        result = self.scheduler.step(self.now)
        for each in result.tokens:
            self.first_token.setdefault(each, round(self.now, 9))
        self.events += result.events
        self.mirror.apply(KVEventBatch(0.0, result.events))
        self.now += result.duration_s or 0.0
        return result.duration_s

    def run(self, *requests: Request) -> None:
        for each in requests:
            self.scheduler.add(each)
        while self.step() is not None:
            pass

    @property
    def held(self) -> int:
        """Blocks of the host tier."""
        assert self.scheduler.host is not None
        return len(self.scheduler.host)


def filled() -> Engine:
    """Five blocks of the prompt that starts at 0 are on the host alone."""
    engine = Engine()
    engine.run(request(50))
    engine.run(request(99, start=1000))
    assert engine.scheduler.cache.cached_tokens(request(50).sequence, 50) == 0
    return engine


def test_prompts_are_copied_when_they_are_computed() -> None:
    engine = Engine()
    engine.run(request(55, answer=20))
    assert engine.held == 5
    gpu, cpu = (sum(len(e.block_hashes) for e in engine.events if isinstance(e, BlockStored) and e.medium == m) for m in TIERS)
    assert (gpu, cpu) == (7, 5)


def test_a_prefix_comes_back_from_the_host() -> None:
    engine = filled()
    again = request(50)
    began = engine.now
    engine.run(again)
    assert again.cached_tokens == 40
    assert engine.first_token[again] == pytest.approx(began + 40 / 10_000 + 10 / 1000)


def test_it_counts_with_what_is_on_the_device() -> None:
    engine = filled()
    engine.run(request(25))
    longer = request(48)
    engine.run(longer)
    assert longer.cached_tokens == 40


def test_others_run_while_copies_are_loaded_and_loads_wait_for_each_other() -> None:
    engine = Engine(CONFIG.model_copy(update={"kv_blocks": 20, "host_tokens_per_s": 1000}))
    engine.run(request(50))
    engine.run(request(50, start=500))
    engine.run(*(request(99, start=start) for start in (1000, 2000)))
    began = engine.now
    one, other, new = request(50), request(50, start=500), request(20, start=3000)
    for each in (one, other, new):
        engine.scheduler.add(each)
    engine.step()
    assert [one.state, other.state, new.state] == [State.LOADING, State.LOADING, State.RUNNING]
    assert engine.scheduler.load().waiting == 2
    engine.run()
    assert engine.first_token[new] == pytest.approx(began + 0.02)
    assert engine.first_token[one] == pytest.approx(began + 0.04 + 0.01)
    assert engine.first_token[other] == pytest.approx(began + 0.08 + 0.01)


def test_nothing_is_loaded_twice_at_once() -> None:
    engine = filled()
    one, same, new = request(50), request(50), request(20, start=3000)
    for each in (one, same, new):
        engine.scheduler.add(each)
    engine.step()
    assert [one.state, same.state, new.state] == [State.LOADING, State.WAITING, State.RUNNING]
    engine.run()
    assert (one.cached_tokens, same.cached_tokens) == (40, 40)


def test_a_new_request_does_not_wait_for_the_loads_of_an_idle_engine() -> None:
    engine = filled()
    engine.scheduler.add(request(50))
    duration = engine.step()
    assert duration is not None
    assert duration <= 0.001


def test_aborted_while_loading() -> None:
    engine = filled()
    gone, after = request(50), request(50)
    engine.scheduler.add(gone)
    engine.step()
    engine.scheduler.abort(gone)
    engine.scheduler.abort(gone)
    engine.run(after)
    assert after.cached_tokens == 40
    assert engine.scheduler.cache.free == CONFIG.kv_blocks


def test_no_more_is_copied_than_the_request_allows() -> None:
    engine = Engine()
    engine.run(request(50, max_offload_tokens=29), request(50, start=100, max_offload_tokens=0))
    assert engine.held == 2


def test_what_goes_is_the_policys_choice() -> None:
    """With PGDSF what was asked for twice outlives what came after it; LRU's choice is another."""
    kept = {}
    for policy in ("lru", "pgdsf"):
        engine = Engine(CONFIG.model_copy(update={"host_blocks": 20, "host_policy": policy}))
        for _ in range(2):
            engine.run(request(60))
        for start in range(1000, 5000, 1000):
            engine.run(request(80, start=start))
        again = request(60)
        engine.run(again)
        kept[policy] = again.cached_tokens
    assert kept == {"lru": 0, "pgdsf": 50}


def choice(parameters: dict[str, Any]) -> Request:
    """Of a request to the API."""
    task = CompletionRequest(prompt="a question", kv_transfer_params=parameters).task(CONFIG)
    return Generation(task, SIZE, lambda generation: None).choices[0]


def test_the_api_takes_vllms_parameters() -> None:
    assert choice({"mygo": 1, "max_offload_tokens": 3}).offloaded_tokens == 3
    for nonsense in ({}, {"max_offload_tokens": -1}, {"max_offload_tokens": True}):
        one = choice(nonsense)
        assert one.offloaded_tokens == one.prompt_tokens


def test_reset_forgets_both_tiers() -> None:
    engine = filled()
    engine.scheduler.add(request(50))
    engine.step()
    assert not engine.scheduler.reset()
    engine.run()
    assert engine.scheduler.reset()
    assert engine.held == 0
    again = request(50)
    engine.run(again)
    assert again.cached_tokens == 0
    assert AllBlocksCleared() in engine.events


def test_copies_are_announced_as_vllm_does() -> None:
    engine = Engine(CONFIG.model_copy(update={"host_blocks": 5}))
    engine.run(request(20, salt="s"))
    gpu, cpu = [event for event in engine.events if isinstance(event, BlockStored)]
    assert msgspec.structs.asdict(cpu) == msgspec.structs.asdict(gpu) | {"medium": MEDIUM_CPU, "extra_keys": None}
    engine.run(request(50, start=1000))
    removed = [event for event in engine.events if isinstance(event, BlockRemoved)]
    assert [(event.medium, event.group_idx) for event in removed] == [(MEDIUM_CPU, 0)]


def test_without_a_host_tier_there_is_none() -> None:
    engine = Engine(CONFIG.model_copy(update={"host_blocks": 0}))
    engine.run(request(50), request(99, start=1000), request(50))
    assert engine.scheduler.host is None
    assert {event.medium for event in engine.events if not isinstance(event, AllBlocksCleared)} == {"GPU"}


def keys_of(names: Any, known: dict[bytes, int]) -> set[int]:
    return {known[name] for name in names}


shapes = st.tuples(st.integers(1, 60), st.integers(1, 21), st.integers(0, 2), st.sampled_from([None, "a"]), st.integers(0, 30))


@settings(deadline=None, max_examples=150)
@given(
    given=st.lists(shapes, max_size=14),
    aborted=st.sets(st.integers(0, 13), max_size=4),
    host_policy=st.sampled_from(["lru", "lfu", "arc", "pgdsf"]),
    host_blocks=st.integers(1, 16),
)
def test_both_tiers_are_what_their_events_say(
    given: list[tuple[int, int, int, str | None, int]], aborted: set[int], host_policy: str, host_blocks: int
) -> None:
    """Random arrivals and aborts with little room in both tiers: nothing leaks, nothing starves, nobody is told what is not so."""
    changes = {"kv_blocks": 8, "host_blocks": host_blocks, "host_policy": host_policy, "host_tokens_per_s": 2000}
    engine = Engine(CONFIG.model_copy(update=changes))
    scheduler, host = engine.scheduler, engine.scheduler.host
    assert host is not None
    requests = [request(prompt, answer, start=1000 * family, salt=salt) for prompt, answer, family, salt, _ in given]
    names, keys = dict[bytes, int](), engine.mirror._keys
    due = dict(enumerate(requests))
    for each in requests:
        for index, key in enumerate(keys.chain(keys.root(each.sequence.salt), list(each.sequence.tokens))):
            names[each.sequence.hash(index)] = key
    for step in range(2000):
        for number in [number for number in due if given[number][-1] <= step]:
            scheduler.add(due.pop(number))
        if step == 10:
            for number in aborted & set(range(len(requests))) - set(due):
                scheduler.abort(requests[number])
        duration = engine.step()
        assert engine.held <= host_blocks
        on_host = keys_of(host.policy, names)
        told = {key for change in engine.mirror.snapshot() if change.tier == HOST for key in change.keys}
        # Copies are made when a step begins, and told of when it ends.
        not_told = {key for event in host._events if isinstance(event, BlockStored) for key in keys_of(event.block_hashes, names)}
        not_told_gone = {key for event in host._events if isinstance(event, BlockRemoved) for key in keys_of(event.block_hashes, names)}
        assert on_host - not_told <= told <= on_host | not_told_gone
        if duration is None and not due:
            break
    assert not scheduler.load().ongoing
    assert scheduler.cache.free == 8
    assert not host._loading
    assert not host.policy._pins
    engine.step()
    snapshot = {change.tier: set(change.keys) for change in engine.mirror.snapshot()}
    assert snapshot[HOST] == keys_of(host.policy, names)
    assert snapshot[0] == keys_of(scheduler.cache, names)
    assert (engine.mirror.skipped, engine.mirror.unknown_parents, engine.mirror.unknown_removals) == (0, 0, 0)
    for number, each in enumerate(requests):
        assert each.generated == each.answer_tokens or number in aborted
