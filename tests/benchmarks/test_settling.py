from collections.abc import Iterator

import pytest

from benchmarks.settling import follow
from retrieval.indexes.base import Found
from tests.cache.entries import Clock


@pytest.mark.parametrize(
    ("stages", "top", "stage"),
    [
        ([[1, 2, 3], [1, 2, 3], [1, 2, 3]], 2, 0),
        ([[1, 2, 3], [1, 2, 4], [1, 2, 5]], 2, 0),
        ([[1, 2, 3], [1, 2, 4], [1, 2, 5]], 3, 2),
        ([[2, 1, 3], [1, 2, 3], [1, 2, 3]], 2, 1),
        ([[1, 2, 3], [2, 1, 3], [1, 2, 3]], 2, 2),  # right at first, but nobody could know
        ([[], [1], [1, 2]], 5, 2),
        ([[]], 5, 0),
    ],
)
def test_the_first_rows_are_known_from_a_stage_on(stages: list[list[int]], top: int, stage: int) -> None:
    clock = Clock()

    def search() -> Iterator[list[Found]]:
        for rows in stages:
            clock.now += 2.0
            yield [Found(row, 0.5) for row in rows]

    settled = follow(search(), top, clock)
    assert settled.stage == stage
    assert [found.row for found in settled.result] == stages[-1]
    assert settled.seconds == pytest.approx([2.0 * (number + 1) for number in range(len(stages))])
    assert settled.known_s == pytest.approx(2.0 * (stage + 1))
    assert settled.hidden_share == pytest.approx(1 - (stage + 1) / len(stages))
