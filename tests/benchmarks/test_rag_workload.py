import itertools

import numpy as np
import pytest

from benchmarks.rag_workload import HOT_ACCESSES, Traffic, Workload, zipf


def accesses(workload: Workload, traffic: Traffic) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    found = [document for request in workload.requests(traffic) for document in request.documents]
    return np.bincount(found, minlength=workload.count)


@pytest.mark.parametrize("k", [1, 5])
def test_the_hottest_documents_get_their_share(k: int) -> None:
    counts = accesses(Workload(), Traffic(8000, k))
    assert np.sort(counts)[::-1][:600].sum() / counts.sum() == pytest.approx(HOT_ACCESSES, abs=0.05)
    assert zipf(20_000)[:600].sum() == pytest.approx(HOT_ACCESSES, abs=1e-6)


def test_lengths_are_log_normal() -> None:
    lengths = Workload().documents
    assert np.median(lengths) == pytest.approx(700, rel=0.03)
    assert np.mean(lengths) == pytest.approx(850, rel=0.03)
    assert lengths.max() <= 4000


def test_requests_are_well_formed_and_repeat_with_the_seed() -> None:
    workload, traffic = Workload(1000, seed=3), Traffic(200, 5, requests_per_s=10, drift_every=50)
    requests = list(workload.requests(traffic))
    assert requests == list(Workload(1000, seed=3).requests(traffic))
    assert requests != list(Workload(1000, seed=4).requests(traffic))
    for request in requests:
        assert len(set(request.documents)) == 5
        assert request.topic in request.documents
        assert list(request.scores) == sorted(request.scores, reverse=True)
        assert min(request.question_tokens, request.answer_tokens) >= 1
    times = [request.at_s for request in requests]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(20, rel=0.3)


def test_without_noise_the_topic_comes_first() -> None:
    assert all(request.documents[0] == request.topic for request in Workload(1000).requests(Traffic(100, 3, order_noise=0)))


def test_drift_moves_the_hot_set() -> None:
    workload = Workload(seed=1)
    hot = np.argsort(accesses(workload, Traffic(4000, 1)))[-100:]
    later = np.zeros(workload.count)
    for request in itertools.islice(workload.requests(Traffic(8000, 1, drift_every=500)), 4000, None):
        later[request.topic] += 1
    steady = accesses(workload, Traffic(8000, 1))
    assert later[hot].sum() < 0.5 * (steady[hot].sum() / 2)


def test_prompts_share_documents_and_nothing_else() -> None:
    workload = Workload(1000)
    one, other = itertools.islice(workload.requests(Traffic(2, 2)), 2)
    first, second = (set(workload.tokens(document)) for document in one.documents)
    assert not first & second
    length = int(workload.documents[list(one.documents)].sum())
    prompt = workload.prompt(one)
    assert set(prompt[:length]) == first | second
    assert len(prompt) == length + one.question_tokens
    assert workload.prompt(one, one.documents[::-1])[length:] == prompt[length:]
    assert not set(prompt[length:]) & set(workload.prompt(other))


@pytest.mark.parametrize("k", [0, 10])
def test_more_documents_than_there_are_neighbours(k: int) -> None:
    with pytest.raises(ValueError, match="1 to 9"):
        next(Workload(1000).requests(Traffic(1, k)))


def test_few_documents_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1000"):
        Workload(999)
