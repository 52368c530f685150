"""Indexes in this process see each write at once: any steps agree with brute force."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.vectors.base import VectorRecord
from tests.cache.test_vectors import DIRECTIONS, LOCAL, PARTITIONS, MakeIndex, Truth, assert_brute_force_agrees

steps = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), st.sampled_from(PARTITIONS), st.integers(0, 40), st.integers(0, 63)),
        st.tuples(st.just("delete"), st.sampled_from(PARTITIONS), st.integers(0, 40), st.integers(0, 40)),
        st.tuples(st.just("search"), st.sampled_from(PARTITIONS), st.integers(1, 6), st.integers(0, 63)),
    ),
    max_size=80,
)


@pytest.mark.parametrize("make_index", LOCAL)
@given(script=steps)
def test_any_operations_agree_with_brute_force_after_each_step(
    make_index: MakeIndex, script: list[tuple[str, tuple[str, str], int, int]]
) -> None:
    index = make_index(4)
    truth: Truth = {}
    for operation, partition, number, other in script:
        if operation == "upsert":
            # One step writes several records, so that partitions grow large enough for codes.
            records = [VectorRecord(str(n), *partition, DIRECTIONS[(other + n) % 64]) for n in range(number, number + 8)]
            index.upsert(records)
            truth |= {record.id: (partition, record.vector) for record in records}
        elif operation == "delete":
            index.delete([str(number), str(other)])
            truth = {entry_id: place for entry_id, place in truth.items() if entry_id not in (str(number), str(other))}
        else:
            assert_brute_force_agrees(index, truth, partition, DIRECTIONS[other], number)
        assert index.count() == len(truth)
    assert index.scan("", 1000) == sorted(truth)
    index.close()
    index.close()
