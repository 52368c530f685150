"""Reports arrive as they were sent, in whatever pieces, and long ones in parts."""

from hypothesis import given
from hypothesis import strategies as st

from cache.prefix.mirror import CLEARED, Change
from deployments.reports import MAX_KEYS, Activity, Report, ReportReader, in_parts, pack, prefix_seed

keys = st.integers(0, 2**60 - 1)
changes = st.builds(Change, st.integers(-1, 1), st.booleans(), st.lists(keys, max_size=20))
reports = st.builds(
    Report, st.builds(Activity, st.integers(0, 9), st.integers(0, 9), st.floats(0, 1)), st.booleans(), st.lists(changes, max_size=3)
)


@given(st.lists(reports, max_size=5), st.integers(1, 64))
def test_reports_arrive_whole_in_whatever_pieces(sent: list[Report], size: int) -> None:
    data = b"".join(map(pack, sent))
    reader = ReportReader()
    assert [report for start in range(0, len(data), size) for report in reader.feed(data[start : start + size])] == sent


@given(st.lists(st.builds(Change, st.integers(0, 1), st.booleans(), st.lists(keys, min_size=1, max_size=50)), max_size=6))
def test_parts_say_what_the_whole_says(whole: list[Change]) -> None:
    parts = in_parts(Activity(), True, [*whole, CLEARED], [b"said"], 2)
    assert [part.is_snapshot for part in parts] == [True, *[False] * (len(parts) - 1)]
    assert [each for part in parts for each in part.changes] == [*whole, CLEARED]


def test_a_long_snapshot_comes_in_parts_in_order() -> None:
    long = list(range(3 * MAX_KEYS + 5))
    parts = in_parts(Activity(), True, [Change(0, True, long), Change(1, True, [7])], [b"said"], 2)
    assert max(sum(len(change.keys) for change in part.changes) for part in parts) <= MAX_KEYS
    assert [key for part in parts for change in part.changes if change.tier == 0 for key in change.keys] == long


def test_seeds_are_the_applications() -> None:
    assert prefix_seed("a") == prefix_seed("a") != prefix_seed("b")
