import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.config import SimulatedEngineConfig
from deployments.engines.simulated.blocks import TokenSequence
from deployments.engines.simulated.scheduler import Request, Scheduler, State

CONFIG = SimulatedEngineConfig(
    prefill_tokens_per_s=1000,
    decode_step_s=0.01,
    decode_step_per_request_s=0.001,
    max_running=4,
    max_batched_tokens=100,
    block_size=10,
    kv_blocks=100,
)


def request(prompt: int, answer: int, *, start: int = 0, config: SimulatedEngineConfig = CONFIG) -> Request:
    """A prompt of consecutive tokens from `start`; equal starts share a prefix, answers are never shared."""
    tokens = [*range(start, start + prompt), *range(10**8 + start, 10**8 + start + answer)]
    return Request(TokenSequence(tokens, config.block_size), prompt_tokens=prompt, answer_tokens=answer)


class Clock:
    """Runs a scheduler step after step, and notes when each token exists."""

    def __init__(self, *requests: Request, config: SimulatedEngineConfig = CONFIG) -> None:
        self.scheduler: Scheduler[Request] = Scheduler(config)
        self.times: dict[Request, list[float]] = {}
        self.now = 0.0
        self.add(*requests)

    def add(self, *requests: Request) -> None:
        for each in requests:
            self.times[each] = []
            self.scheduler.add(each)

    def step(self) -> float | None:
        result = self.scheduler.step(self.now)
        for each in result.tokens:
            self.times[each].append(round(self.now, 9))
        assert all(each.state is State.ENDED for each in result.finished)
        self.now += result.duration_s or 0
        return result.duration_s

    def run(self) -> None:
        while self.step() is not None:
            pass


def test_nothing_to_do() -> None:
    assert Clock().step() is None


def test_one_request_takes_its_prefill_and_a_step_a_token() -> None:
    one = request(50, 4)
    clock = Clock(one)
    clock.run()
    assert clock.times[one] == [0.05, 0.06, 0.07, 0.08]
    assert one.cached_tokens == 0
    assert clock.scheduler.cache.free == 100


def test_long_prompts_are_computed_in_chunks() -> None:
    one = request(250, 1)
    clock = Clock(one)
    assert [clock.step(), clock.step(), clock.step()] == pytest.approx([0.1, 0.1, 0.05])
    assert clock.step() is None
    assert clock.times[one] == [0.25]


def test_attention_costs_more_the_longer_the_prompt() -> None:
    config = CONFIG.model_copy(update={"prefill_pair_s": 1e-6})
    one = request(250, 2)
    clock = Clock(one, config=config)
    clock.run()
    assert clock.times[one] == pytest.approx([0.25 + 250 * 125 * 1e-6, 0.26 + 250 * 125 * 1e-6])


def test_decoding_requests_share_a_step() -> None:
    requests = [request(10, 3, start=1000 * number) for number in range(3)]
    clock = Clock(*requests)
    clock.run()
    assert [clock.times[each] for each in requests] == [[0.03, 0.042, 0.054]] * 3


def test_prefill_lengthens_the_steps_of_those_who_decode() -> None:
    first, late = request(10, 3), request(90, 2, start=1000)
    clock = Clock(first)
    clock.step()
    clock.add(late)
    clock.run()
    assert clock.times[first] == [0.01, 0.11, 0.121]
    assert clock.times[late] == [0.11, 0.121]


def test_chunks_of_a_running_prompt_come_before_new_requests() -> None:
    long, short = request(150, 1), request(60, 1, start=1000)
    clock = Clock(long, short)
    clock.run()
    assert clock.times[long] == [0.2]
    assert clock.times[short] == [0.21]


def test_cached_prefixes_cost_nothing() -> None:
    clock = Clock(request(50, 1))
    clock.run()
    again = request(50, 1)
    clock.add(again)
    clock.run()
    assert again.cached_tokens == 40
    assert clock.times[again] == [0.06]


def test_answers_are_cached_too() -> None:
    first = request(50, 21)
    clock = Clock(first)
    clock.run()
    tokens = [*first.sequence.tokens, 1, 2, 3]
    following = Request(TokenSequence(tokens, 10), prompt_tokens=len(tokens), answer_tokens=1)
    clock.add(following)
    clock.run()
    assert following.cached_tokens == 70


def test_an_equal_request_in_the_same_step_finds_the_first_ones_blocks() -> None:
    first, second = request(50, 1), request(50, 1)
    clock = Clock(first, second)
    clock.run()
    assert (first.cached_tokens, second.cached_tokens) == (0, 40)
    assert clock.times[second] == [0.06]


def test_events_come_with_the_end_of_the_step_that_stored_the_blocks() -> None:
    scheduler: Scheduler[Request] = Scheduler(CONFIG)
    scheduler.add(request(50, 2))
    assert scheduler.step(0).events == []
    assert len(scheduler.step(0.05).events) == 1


def test_no_more_than_max_running() -> None:
    requests = [request(10, 2, start=1000 * number) for number in range(5)]
    clock = Clock(*requests)
    clock.step()
    load = clock.scheduler.load()
    assert (load.running, load.waiting, load.ongoing) == (4, 1, 5)
    assert load.kv_usage == pytest.approx(0.04)
    clock.run()
    assert clock.times[requests[4]][0] > clock.times[requests[0]][-1]
    assert clock.scheduler.load().ongoing == 0


SMALL = CONFIG.model_copy(update={"kv_blocks": 8})


def test_requests_wait_for_blocks_in_order() -> None:
    big, bigger, small = request(50, 2, config=SMALL), request(60, 2, start=1000, config=SMALL), request(10, 2, start=2000, config=SMALL)
    clock = Clock(big, bigger, small, config=SMALL)
    clock.step()
    assert [big.state, bigger.state, small.state] == [State.RUNNING, State.WAITING, State.WAITING]
    clock.run()
    assert clock.times[big] == [0.05, 0.06]
    assert clock.times[bigger] == [0.13, 0.14]
    assert clock.times[small] == [0.13, 0.15]  # preempted once: both cannot grow


def test_the_last_to_start_is_preempted_and_computes_again_what_was_evicted() -> None:
    first, second = request(40, 12, config=SMALL), request(40, 12, start=1000, config=SMALL)
    clock = Clock(first, second, config=SMALL)
    clock.step()
    clock.step()
    assert [first.state, second.state] == [State.RUNNING, State.WAITING]
    assert second.computed == 0
    assert clock.times == {first: [0.08], second: [0.08]}
    clock.run()
    assert [len(clock.times[each]) for each in (first, second)] == [12, 12]
    assert clock.times[first] == pytest.approx([0.08 + 0.01 * number for number in range(12)])
    # Two blocks of the second were evicted for the first: 20 of its 40 prompt tokens, and its first token, again.
    assert clock.times[second][1] == pytest.approx(clock.times[first][-1] + 0.021)
    assert second.cached_tokens == 0
    assert clock.scheduler.cache.free == 8


def test_a_request_that_can_never_fit_is_refused() -> None:
    scheduler: Scheduler[Request] = Scheduler(SMALL)
    scheduler.add(request(80, 1, config=SMALL))
    with pytest.raises(ValueError, match="80 tokens"):
        scheduler.add(request(80, 2, config=SMALL))


def test_abort_waiting_running_and_ended() -> None:
    requests = [request(20, 5, start=1000 * number) for number in range(5)]
    clock = Clock(*requests)
    clock.step()
    running, waiting = requests[0], requests[4]
    clock.scheduler.abort(running)
    clock.scheduler.abort(waiting)
    assert clock.scheduler.load().ongoing == 3
    clock.run()
    assert clock.times[running] == clock.times[waiting] == []
    assert all(len(clock.times[each]) == 5 for each in requests[1:4])
    clock.scheduler.abort(requests[1])
    assert clock.scheduler.cache.free == 100


def test_a_step_cannot_be_cut_short() -> None:
    clock = Clock(request(50, 1))
    clock.step()
    with pytest.raises(ValueError, match="in progress"):
        clock.scheduler.step(0.049)


sizes = st.tuples(st.integers(1, 60), st.integers(1, 21), st.integers(0, 2))


@settings(deadline=None)
@given(st.lists(sizes, max_size=12), st.lists(st.integers(0, 30), max_size=12), st.sets(st.integers(0, 11), max_size=4))
def test_every_request_gets_its_tokens_in_finite_time(shapes: list[tuple[int, int, int]], arrivals: list[int], aborted: set[int]) -> None:
    """With few blocks, random arrivals and aborts; nothing leaks, nothing starves."""
    clock = Clock(config=SMALL)
    requests = [request(prompt, answer, start=1000 * family, config=SMALL) for prompt, answer, family in shapes]
    due = dict(enumerate(requests))
    for step in range(2000):
        for number in [n for n in due if (arrivals[n] if n < len(arrivals) else 0) <= step]:
            clock.add(due.pop(number))
        if step == 10:
            for number in aborted & set(range(len(requests))) - set(due):
                clock.scheduler.abort(requests[number])
        if clock.step() is None and not due:
            break
    assert not clock.scheduler.load().ongoing
    assert clock.scheduler.cache.free == SMALL.kv_blocks
    for number, each in enumerate(requests):
        assert len(clock.times[each]) == each.answer_tokens or number in aborted
        assert clock.times[each] == sorted(clock.times[each])
