"""URLs of vector indexes."""

import sys

import pytest

from cache.errors import VectorIndexError
from cache.vectors import milvus
from cache.vectors.factory import open_index
from cache.vectors.faiss_index import FaissIndex
from cache.vectors.memory import MemoryIndex


def test_indexes_in_memory_are_opened_by_their_names() -> None:
    assert isinstance(open_index("faiss:", "c", 4), FaissIndex)
    assert isinstance(open_index("memory:", "c", 4), MemoryIndex)
    assert open_index("faiss:", "c", 4).dimension == 4


@pytest.mark.parametrize(
    ("url", "uri", "token", "database"),
    [
        ("milvus://host", "http://host:19530", "", ""),
        ("milvus://host:19531/db", "http://host:19531", "", "db"),
        ("http://user:p%40ss@host:1", "http://host:1", "user:p@ss", ""),
        ("https://host/db?token=a%2Bb", "https://host:443", "a+b", "db"),
        ("milvus://[::1]:5", "http://[::1]:5", "", ""),
    ],
)
def test_urls_of_milvus(monkeypatch: pytest.MonkeyPatch, url: str, uri: str, token: str, database: str) -> None:
    opened: list[object] = []
    monkeypatch.setattr(milvus, "MilvusConnection", lambda *arguments: opened.append(arguments))
    open_index(url, "c", 4)
    assert opened == [(uri, "c", 4, token, database)]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "faiss",
        "faiss://host",
        "memory:/path",
        "redis://secret@host",
        "milvus://",
        "milvus://secret@host:port",
        "milvus://host/a/b",
        "milvus://host?secret=1",
        "milvus://user:secret@host?token=x",
        "milvus-lite://relative/path",
        "milvus-lite:///",
    ],
)
def test_other_urls_are_refused_with_what_is_allowed_and_not_repeated(url: str) -> None:
    with pytest.raises(VectorIndexError, match=r"allowed: faiss: .*milvus-lite") as refused:
        open_index(url, "c", 4)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("name", ["", "1c", "a-b", "a b", "é"])
def test_names_that_are_none_for_a_collection_are_refused(name: str) -> None:
    with pytest.raises(VectorIndexError, match="collection's name"):
        open_index("faiss:", name, 4)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "milvus_lite", None)
    with pytest.raises(VectorIndexError, match=r"pip install 'milvus-lite"):
        open_index("milvus-lite:///tmp/x", "c", 4)
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(VectorIndexError, match=r"pip install 'pymilvus"):
        open_index("milvus://host", "c", 4)
