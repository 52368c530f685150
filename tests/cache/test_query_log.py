"""The query log, on each database."""

from dataclasses import replace

import pytest

from cache.errors import StoreError
from cache.stores.query_log import LoggedQuery, SqlQueryLog
from cache.stores.sql import SqlEntryStore


@pytest.fixture
def log(store: SqlEntryStore) -> SqlQueryLog:
    return SqlQueryLog(store._database)


def line(number: int, namespace: str = "a1") -> LoggedQuery:
    return LoggedQuery(namespace, "m", 1e6 + number, "hit", 0.25, f"why {number}? 🙂", f"e{number}", 0.5)


def test_lines_come_back_in_order_by_page_and_namespace(log: SqlQueryLog) -> None:
    log.append([])
    log.append([line(1), line(2, "b2"), LoggedQuery("a1", "m", 1e6, "miss", 0.5)])
    log.append([line(3)])
    first, mark = log.page("a1", 0, 2)
    assert first == [line(1), LoggedQuery("a1", "m", 1e6, "miss", 0.5)]
    rest, mark = log.page("a1", mark, 2)
    assert rest == [line(3)]
    assert log.page("a1", mark, 2) == ([], mark)


def test_a_namespace_is_cleared_for_itself(log: SqlQueryLog) -> None:
    log.append([line(1), line(2, "b2")])
    log.clear("a1")
    assert (log.page("a1", 0, 9)[0], log.page("b2", 0, 9)[0]) == ([], [line(2, "b2")])


def test_the_oldest_are_trimmed(log: SqlQueryLog) -> None:
    log.append([line(number) for number in range(5)])
    for _ in range(2):
        log.trim(2)
        assert log.page("a1", 0, 9)[0] == [line(3), line(4)]
    log.append([line(5)])
    assert log.page("a1", 0, 9)[0] == [line(3), line(4), line(5)]
    log.trim(10)
    assert len(log.page("a1", 0, 9)[0]) == 3


def test_an_empty_log_is_trimmed(log: SqlQueryLog) -> None:
    log.trim(0)
    assert log.page("a1", 0, 9) == ([], 0)


def test_a_mark_holds_while_lines_are_added_and_removed(log: SqlQueryLog) -> None:
    log.append([line(number) for number in range(4)])
    _, mark = log.page("a1", 0, 2)
    log.append([line(4)])
    log.trim(2)
    assert log.page("a1", mark, 9)[0] == [line(3), line(4)]


def test_what_does_not_fit_is_an_error_and_leaves_nothing(log: SqlQueryLog) -> None:
    with pytest.raises(StoreError):
        log.append([line(1), replace(line(2), query="\ud800")])
    assert log.page("a1", 0, 9)[0] == []
