import pytest

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


def test_the_oldest_are_trimmed(log: SqlQueryLog) -> None:
    log.append([line(number) for number in range(5)])
    log.trim(2)
    assert log.page("a1", 0, 9)[0] == [line(3), line(4)]
