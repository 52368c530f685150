"""Slow searches, and what the benchmark over HTTP makes of the application's answers."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import rag_overlap_http as over_http
from benchmarks.rag_workload import Traffic, Workload
from benchmarks.routing_vllm import Asked
from benchmarks.slow_search import Pace, SlowIndex, SlowSource, pace_in, set_pace
from cache.embedders.fake import HashedWordsEmbedder
from cache.entry import Vectors
from deployments.engines.simulated.tokenizer import encode
from retrieval.indexes.building import build
from retrieval.indexes.config import IndexConfig
from retrieval.indexes.faiss_index import FaissChunkIndex
from retrieval.sources import FaissSource
from tests.retrieval.indexes.worlds import units

DIMENSION = 16
VECTORS = units(0, 40, DIMENSION)
K = 3


def index_of(vectors: Vectors) -> FaissChunkIndex:
    return build([(np.arange(len(vectors)), vectors)], version=1, dimension=vectors.shape[1], embedder="e", kind="flat")


class Time:
    """Passes only when somebody sleeps, or is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds

    def __call__(self) -> float:
        return self.now


def slow(time: Time, pace: Pace) -> SlowIndex:
    return SlowIndex(index_of(VECTORS), lambda: pace, time, time.sleep)


def test_a_search_has_its_results_when_it_should() -> None:
    time = Time()
    index = slow(time, Pace(0.1, 0.14, 1.0))
    final = index.index.search(VECTORS[0], K)
    assert [(stage, round(time.now, 6)) for stage in index.stages(VECTORS[0], K)] == [(final, 0.014), (final, 0.1)]
    assert index.search(VECTORS[0], K) == final
    assert time.now == pytest.approx(0.2)


def test_without_a_provisional_result_it_has_one_stage() -> None:
    time = Time()
    assert len(list(slow(time, Pace(0.1)).stages(VECTORS[0], K))) == 1
    assert time.now == pytest.approx(0.1)


def test_a_provisional_result_that_is_not_final_ends_otherwise() -> None:
    index = slow(Time(), Pace(0.1, 0.14, 0.0))
    provisional, final = index.stages(VECTORS[0], K)
    assert final == index.index.search(VECTORS[0], K)
    assert provisional[:-1] == final[:-1]
    assert provisional[-1] == index.index.search(VECTORS[0], K + 1)[-1]


def test_so_many_agree_and_always_the_same() -> None:
    index = slow(Time(), Pace(0.1, 0.14, 0.5))
    agreeing = []
    for _ in range(2):
        stages = [list(index.stages(vector, K)) for vector in VECTORS]
        agreeing.append([first == last for first, last in stages])
    assert agreeing[0] == agreeing[1]
    assert 10 <= sum(agreeing[0]) <= 30


def test_the_next_version_is_as_slow() -> None:
    time = Time()
    changed = slow(time, Pace(0.1)).changed(2, [], np.array([0]))
    assert 0 not in [each.row for each in changed.search(VECTORS[0], K)]
    assert (changed.version, len(changed)) == (2, 39)
    assert time.now == pytest.approx(0.1)


def test_what_is_done_in_the_background_is_done_to_the_index_itself() -> None:
    inner = FaissSource(IndexConfig(kind="ivf"), DIMENSION, "e")
    source = SlowSource(inner, Pace)
    few = source.made("a", 1, lambda: [(np.arange(40), VECTORS)])
    assert not source.is_due(few)
    vectors = np.tile(VECTORS, (50, 1))
    index = source.made("b", 1, lambda: [(np.arange(len(vectors)), vectors)])
    assert source.is_due(index)
    tended = source.tended("b", index, lambda: False)
    assert isinstance(tended, SlowIndex)
    assert tended.kind == "ivf"
    assert not source.is_due(tended)


def test_a_pace_holds_until_the_next(tmp_path: Path) -> None:
    assert pace_in(tmp_path) == Pace()
    for pace in (Pace(0.05, 0.14, 0.93), Pace()):
        set_pace(tmp_path, pace)
        assert pace_in(tmp_path) == pace


def test_a_question_finds_its_documents_and_they_have_their_lengths() -> None:
    workload, encoder = Workload(1000), HashedWordsEmbedder()
    index = index_of(encoder.embed([over_http.name(number) for number in range(1000)]))
    for request in workload.requests(Traffic(20, 5)):
        vector = encoder.embed([over_http.question_of(request)])[0]
        assert {each.row for each in index.search(vector, 5)} == set(request.documents)
        number = request.topic
        assert len(encode(over_http.text_of(workload, number))) == workload.documents[number]
    assert np.allclose(encoder.embed([over_http.text_of(workload, 7)]), encoder.embed([over_http.name(7)]), atol=1e-6)


METRICS = """
# TYPE mygo_head_start_tokens_total counter
mygo_head_start_tokens_total{WorkerId="1",deployment="Ingress",use="used"} 1000.0
mygo_head_start_tokens_total{WorkerId="2",deployment="Ingress",use="used"} 500.0
mygo_head_start_tokens_total{WorkerId="1",deployment="Ingress",use="wasted"} 1.5e+03
"""


def test_counts_of_all_processes_are_added() -> None:
    assert over_http.head_start_tokens(METRICS) == (1500, 1500)
    assert over_http.head_start_tokens("") == (0, 0)


def test_one_ingress_that_trusts_no_predictions_is_told() -> None:
    lines = [f'mygo_prefix_trusted{{WorkerId="{worker}"}} {value}' for worker, value in enumerate(("1.0", "0.0"))]
    assert over_http.is_trusted(lines[0])
    assert not over_http.is_trusted("\n".join(lines))


def asked(ttft_s: float, cached: int, status: int = 200) -> Asked:
    return Asked(ttft_s, 0.02, 1000, cached, cached, "r", status)


def test_a_row_counts_what_was_computed() -> None:
    row = over_http.row_of_phase([asked(0.1, 600), asked(0.2, 200), asked(0.0, 1000, status=503)], 2.0, used=700, wasted=100)
    assert (row["used_token_share"], row["wasted_token_share"]) == (0.35, 0.05)  # of 400 + 800 + 700 + 100
    assert (row["ttft_mean_s"], row["requests_per_s"], row["errors"]) == (pytest.approx(0.15), 1, 1)


def test_hidden_is_what_is_saved_of_the_same_search() -> None:
    rows = [
        {"system": "no_search", "search_ms": 0.0, "t": 0.10},
        {"system": "sequential", "search_ms": 50.0, "t": 0.15},
        {"system": "sequential", "search_ms": 100.0, "t": 0.20},
        {"system": "ours", "search_ms": 100.0, "t": 0.14},
    ]
    assert [over_http.hidden(row, rows, "t") for row in rows] == [None, None, None, pytest.approx(0.6)]
