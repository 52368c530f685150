"""What only a store on disk can show: persistence, permissions, failures."""

import resource
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.schema import CreateTable

from cache.errors import StoreError
from cache.stores import lookups
from cache.stores.schema import VERSION_TABLE, entries, metadata
from cache.stores.sql import SqlEntryStore, open_database
from tests.cache.entries import make_entry, unit

NOW = 1_000_000.0


def open_store(url: str) -> SqlEntryStore:
    return SqlEntryStore(open_database(url))


def test_entries_outlive_the_store(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/cache.sqlite"
    entry = make_entry(vector=unit(1, 2))
    store = open_store(url)
    store.put(entry)
    store.close()
    again = open_store(url)
    assert again.find_exact("a1", entry.exact_key, NOW) == entry
    assert [change.entry_id for change in again.claim(9, NOW, 60, "")] == [entry.id]
    again.close()


def test_an_entry_outlives_a_process_that_is_killed_after_put(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/cache.db"
    code = f"""
import os
from cache.stores.sql import SqlEntryStore, open_database
from tests.cache.entries import make_entry
SqlEntryStore(open_database({url!r})).put(make_entry(exact_key="k"))
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2])
    store = open_store(url)
    assert store.find_exact("a1", "k", NOW) is not None
    store.close()


def test_look_ups_go_by_the_index_that_is_meant(tmp_path: Path) -> None:
    """SQLite guesses: with a wrong index, a look-up reads all of a tenant's entries."""
    database = open_database(f"sqlite:///{tmp_path}/cache.db")
    by_key, by_id = "uq_cache_entries_key (namespace=? AND live_key=?)", "sqlite_autoindex_cache_entries_1 (id=?)"
    by_normal_key = "ix_cache_entries_wording (namespace=? AND normal_key=? AND fingerprint=?)"
    meant = {
        lookups._ALL: [by_key, by_normal_key, by_id],
        lookups._BY_KEY: [by_key],
        lookups._BY_ID: [by_id],
        lookups._CANDIDATES: [by_id],
    }
    one = {"namespace": "a1", "fingerprint": "f1", "key": "k", "normal_key": "n", "id": "i"}
    values = {**one, "ids": [f"i{number}" for number in range(100)], "now": NOW}
    with database.read() as connection:
        for query, indexes in meant.items():
            known = {name: values[name] for name in values if f":{name}" in str(query) or f"_{name}]" in str(query)}
            literal = query.params(known).compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
            plan = str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {literal}").all())
            assert all(index in plan for index in indexes), plan
            assert "SCAN" not in plan
    database.close()


def test_two_stores_on_one_file_see_each_other(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/cache.sqlite"
    first, second = open_store(url), open_store(url)
    entry = make_entry()
    first.put(entry)
    assert second.find_exact("a1", entry.exact_key, NOW) == entry
    second.put(anew := make_entry(exact_key=entry.exact_key))
    assert first.find_exact("a1", entry.exact_key, NOW) == anew
    first.close()
    second.close()


def test_the_file_is_its_owners_alone_and_its_directory_is_made(tmp_path: Path) -> None:
    path = tmp_path / "not" / "yet" / "cache.sqlite"
    store = open_store(f"sqlite:///{path}")
    store.put(make_entry())
    modes = {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    store.close()


def test_readers_and_a_writer_work_at_once(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/cache.sqlite")
    entry = make_entry()
    store.put(entry)
    with sqlite3.connect(tmp_path / "cache.sqlite") as other:
        other.execute("BEGIN IMMEDIATE")
        assert store.find_exact("a1", entry.exact_key, NOW) == entry
        other.rollback()
    other.close()
    store.close()


@pytest.mark.parametrize("path", ["directory", "file/cache.sqlite"])
def test_a_path_that_cannot_be_written_says_what_to_do(tmp_path: Path, path: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot write the database file .*: configure another path"):
        open_store(f"sqlite:///{tmp_path}/{path}")


@pytest.mark.parametrize("url", ["", "nonsense", "nosuchdatabase://host/name", "sqlite://", "sqlite:///:memory:"])
def test_a_url_that_names_no_usable_database_is_refused(url: str) -> None:
    with pytest.raises(StoreError):
        open_store(url)


def test_a_password_in_the_url_is_not_shown() -> None:
    with pytest.raises(StoreError) as caught:
        open_store("nosuchdatabase://user:hunter2@host/name")
    assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    path.write_bytes(b"this is a text and not a database" * 1000)
    with pytest.raises(StoreError, match="not a database"):
        open_store(f"sqlite:///{path}")


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file can grow past `limit` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_a_store_error_and_loses_nothing_that_was_kept(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/cache.sqlite")
    old, new = make_entry(exact_key="k"), make_entry(exact_key="k", answer=bytes(4_000_000), text="secret words")
    store.put(old)
    with full_disk(1_000_000), pytest.raises(StoreError) as caught:
        store.put(new)
    assert "secret words" not in str(caught.value)
    assert store.find_exact("a1", "k", NOW) == old
    store.put(new)
    assert store.find_exact("a1", "k", NOW) == new
    store.close()


def test_a_damaged_file_is_a_store_error(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    store = open_store(f"sqlite:///{path}")
    for _ in range(50):
        store.put(make_entry(answer=bytes(1000)))
    store.close()
    path.write_bytes(path.read_bytes()[:4096] + b"\xff" * (path.stat().st_size - 4096))
    with pytest.raises(StoreError):
        open_store(f"sqlite:///{path}").find_exact("a1", "key-1", NOW)


def test_the_tables_fit_mysql() -> None:
    ddl = str(CreateTable(entries).compile(dialect=mysql.dialect()))
    for part in ("utf8mb4_bin", "text LONGTEXT", "answer BLOB(16777215) NOT NULL", "expires_at DOUBLE NOT NULL"):
        assert part in ddl


def test_the_migrations_make_what_the_schema_says(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/cache.db")
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}), metadata) == []
    database.close()


def test_opening_again_and_at_once_migrates_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/cache.db"
    with ThreadPoolExecutor(4) as pool:
        databases = list(pool.map(open_database, [url] * 8))
    with databases[0].read() as connection:
        assert connection.exec_driver_sql(f"SELECT count(*) FROM {VERSION_TABLE}").scalar() == 1  # noqa: S608
    for database in databases:
        database.close()
