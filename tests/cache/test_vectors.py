"""One contract, on every vector index."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.entry import Vector
from cache.errors import VectorIndexError
from cache.vectors.base import Neighbour, VectorIndex
from cache.vectors.faiss_index import FaissIndex
from cache.vectors.memory import MemoryIndex
from tests.cache.entries import unit

MakeIndex = Callable[[int], VectorIndex]
every_index = pytest.mark.parametrize("make_index", [FaissIndex, MemoryIndex])


def found(index: VectorIndex, vector: Vector, k: int = 10, namespace: str = "n", fingerprint: str = "f") -> list[str]:
    return [neighbour.id for neighbour in index.search(namespace, fingerprint, vector, k)]


@every_index
def test_neighbours_come_closest_first_with_their_cosine(make_index: MakeIndex) -> None:
    index = make_index(2)
    for entry_id, vector in (("opposite", unit(-1, 0)), ("same", unit(1, 0)), ("right", unit(0, 1)), ("near", unit(3, 4))):
        index.upsert("n", "f", entry_id, vector)
    expected = [Neighbour("same", 1), Neighbour("near", 0.6), Neighbour("right", 0), Neighbour("opposite", -1)]
    assert index.search("n", "f", unit(1, 0), 10) == expected
    assert found(index, unit(1, 0), k=2) == ["same", "near"]
    assert found(index, unit(1, 0), k=0) == []


@every_index
def test_a_vector_is_exactly_similar_to_itself(make_index: MakeIndex) -> None:
    index = make_index(384)
    random = np.random.default_rng(0)
    for number in range(50):
        vector = unit(*random.standard_normal(384))
        index.upsert("n", "f", str(number), vector)
        assert index.search("n", "f", vector, 1)[0].similarity == 1.0


@every_index
def test_partitions_do_not_see_each_other(make_index: MakeIndex) -> None:
    index = make_index(2)
    for namespace, fingerprint in (("n", "f"), ("n", "g"), ("m", "f"), ("nf", ""), ("", "nf")):
        index.upsert(namespace, fingerprint, f"{namespace}/{fingerprint}", unit(1, 0))
    assert found(index, unit(1, 0)) == ["n/f"]
    assert found(index, unit(1, 0), namespace="m") == ["m/f"]
    assert found(index, unit(1, 0), namespace="", fingerprint="nf") == ["/nf"]
    assert found(index, unit(1, 0), namespace="m", fingerprint="g") == []
    assert len(index) == 5


@every_index
def test_upsert_moves_an_id(make_index: MakeIndex) -> None:
    index = make_index(2)
    index.upsert("n", "f", "a", unit(1, 0))
    index.upsert("n", "f", "b", unit(1, 0.1))
    index.upsert("n", "f", "a", unit(0, 1))
    assert found(index, unit(1, 0)) == ["b", "a"]
    index.upsert("m", "f", "a", unit(1, 0))
    assert found(index, unit(1, 0)) == ["b"]
    assert found(index, unit(1, 0), namespace="m") == ["a"]
    assert len(index) == 2


@every_index
def test_delete_forgets_ids_of_several_partitions_and_ignores_unknown_ones(make_index: MakeIndex) -> None:
    index = make_index(2)
    for entry_id, namespace in (("a", "n"), ("b", "n"), ("c", "m")):
        index.upsert(namespace, "f", entry_id, unit(1, 0))
    index.delete(["a", "c", "unknown", "a"])
    index.delete([])
    assert found(index, unit(1, 0)) == ["b"]
    assert found(index, unit(1, 0), namespace="m") == []
    assert len(index) == 1
    index.upsert("m", "f", "d", unit(1, 0))
    assert found(index, unit(1, 0), namespace="m") == ["d"]


@every_index
def test_the_index_keeps_its_own_copy(make_index: MakeIndex) -> None:
    index = make_index(2)
    vector = unit(1, 0)
    index.upsert("n", "f", "a", vector)
    vector[:] = unit(0, 1)
    assert index.search("n", "f", unit(1, 0), 1)[0].similarity == 1


@every_index
@pytest.mark.parametrize(
    "vector",
    [
        unit(1, 0, 0),
        np.array([[1, 0]], np.float32),
        np.array([1, 0], np.float64),
        np.array([0, 0], np.float32),
        np.array([1, 1], np.float32),
        np.array([1.002, 0], np.float32),
        np.array([np.nan, 1], np.float32),
        np.array([np.inf, 0], np.float32),
        np.array([], np.float32),
    ],
    ids=["dimension", "shape", "type", "zero", "long", "not quite", "nan", "infinite", "empty"],
)
def test_anything_but_a_unit_vector_is_refused(make_index: MakeIndex, vector: Vector) -> None:
    index = make_index(2)
    index.upsert("n", "f", "a", unit(1, 0))
    with pytest.raises(VectorIndexError):
        index.upsert("n", "f", "a", vector)
    with pytest.raises(VectorIndexError):
        index.search("n", "f", vector, 1)
    assert found(index, unit(1, 0)) == ["a"]


@every_index
def test_vectors_of_nearly_length_one_views_and_read_only_ones_are_accepted(make_index: MakeIndex) -> None:
    index = make_index(2)
    frozen = unit(-1, 0)
    frozen.flags.writeable = False
    index.upsert("n", "f", "c", frozen)
    assert index.search("n", "f", frozen, 1)[0].similarity == 1
    index.upsert("n", "f", "a", np.array([1.0009, 0], np.float32))
    index.upsert("n", "f", "b", np.array([0, 9, 1, 9], np.float32)[::2])
    assert index.search("n", "f", np.array([1.0009, 0], np.float32), 1)[0].similarity == 1
    assert found(index, unit(0, 1), k=1) == ["b"]


@every_index
def test_threads_write_and_search_at_once(make_index: MakeIndex) -> None:
    index = make_index(4)
    barrier = threading.Barrier(6)

    def work(thread: int) -> None:
        random = np.random.default_rng(thread)
        barrier.wait()
        for step in range(60):
            index.upsert(f"n{thread}", "f", f"{thread}-{step}", unit(*random.standard_normal(4)))
            assert all(name.startswith(f"{thread}-") for name in found(index, unit(1, 0, 0, 0), namespace=f"n{thread}"))
            if step % 3 == 0:
                index.delete([f"{thread}-{step}"])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert len(index) == 6 * 40


PARTITIONS = [("a", "x"), ("a", "y"), ("b", "x"), ("ab", "")]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), st.sampled_from(PARTITIONS), st.integers(0, 15), st.integers(0, 63)),
        st.tuples(st.just("delete"), st.sampled_from(PARTITIONS), st.integers(0, 15), st.integers(0, 15)),
        st.tuples(st.just("search"), st.sampled_from(PARTITIONS), st.integers(1, 6), st.integers(0, 63)),
    ),
    max_size=80,
)
DIRECTIONS = [unit(*direction) for direction in np.random.default_rng(1).standard_normal((64, 4))]


@every_index
@given(script=steps)
def test_any_operations_agree_with_brute_force_inside_the_partition(
    make_index: MakeIndex, script: list[tuple[str, tuple[str, str], int, int]]
) -> None:
    index = make_index(4)
    truth: dict[str, tuple[tuple[str, str], Vector]] = {}
    for operation, partition, number, other in script:
        if operation == "upsert":
            index.upsert(*partition, str(number), DIRECTIONS[other])
            truth[str(number)] = (partition, DIRECTIONS[other])
        elif operation == "delete":
            index.delete([str(number), str(other)])
            truth = {entry_id: place for entry_id, place in truth.items() if entry_id not in (str(number), str(other))}
        else:
            neighbours = index.search(*partition, DIRECTIONS[other], number)
            cosines = {name: float(vector @ DIRECTIONS[other]) for name, (place, vector) in truth.items() if place == partition}
            assert {neighbour.id for neighbour in neighbours} <= cosines.keys()
            assert all(neighbour.similarity == pytest.approx(cosines[neighbour.id], abs=2e-6) for neighbour in neighbours)
            best = sorted(cosines.values(), reverse=True)[:number]
            assert [neighbour.similarity for neighbour in neighbours] == pytest.approx(best, abs=2e-6)
        assert len(index) == len(truth)
