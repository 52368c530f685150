"""What may be configured, and what is opened for it."""

from typing import Any

import pytest
from pydantic import ValidationError

from cache.errors import VectorIndexError
from retrieval.indexes import milvus
from retrieval.indexes.config import IndexConfig
from retrieval.indexes.factory import open_chunks


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
    monkeypatch.setattr(milvus, "ChunkConnection", lambda *arguments: opened.append(arguments))
    open_chunks(url, "c", 4)
    assert opened == [(uri, "c", 4, token, database)]


@pytest.mark.parametrize(
    "url",
    ["", "faiss:", "milvus://", "milvus://secret@host:port", "milvus://host/a/b", "milvus://host?secret=1", "milvus://u:secret@h?token=x"],
)
def test_other_urls_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(VectorIndexError, match=r"allowed: milvus:") as refused:
        open_chunks(url, "c", 4)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("values", [{"kind": "lsh"}, {"url": "redis://secret"}, {"build_threads": 0}, {"x": 1}])
def test_what_cannot_be_configured_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        IndexConfig(**values)
    assert "secret" not in str(refused.value.errors()[0]["msg"])


def test_defaults_need_no_server() -> None:
    assert IndexConfig().url.get_secret_value() == "faiss:"
    assert IndexConfig().kind == "auto"
