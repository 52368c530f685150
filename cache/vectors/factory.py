"""Opens the index that a URL names."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from cache.errors import VectorIndexError
from cache.vectors.base import VectorIndex

MILVUS_PORT = 19530
ALLOWED = (
    "faiss: (in memory, the default), memory: (for tests), milvus://[user:password@]host[:port][/database][?token=key], "
    "http://... and https://... of the same form, or milvus-lite:///absolute/path"
)


def open_index(url: str, collection: str, dimension: int) -> VectorIndex:
    """The index, which asks no server before its first call. Raises `VectorIndexError` if the URL is not of these:

    `faiss:` and `memory:` start empty in each process, and `collection` means nothing to them; `milvus://`, `http://` and
    `https://` name a Milvus server, with a user and password or `?token=`, and a database as path; `milvus-lite:///path` names a
    directory of Milvus Lite, which one process at a time can open.
    """
    if not collection.isidentifier() or not collection.isascii():
        raise VectorIndexError("a collection's name has letters, digits and `_`, and begins with no digit")
    openers: dict[str, Callable[[SplitResult, str, int], VectorIndex]] = {
        "faiss": _faiss,
        "memory": _memory,
        "milvus": _milvus,
        "http": _milvus,
        "https": _milvus,
        "milvus-lite": _milvus_lite,
    }
    try:
        parts = urlsplit(url)
        _require(parts.scheme in openers)
        return openers[parts.scheme](parts, collection, dimension)
    except ValueError:  # a port that is no number, for example
        raise _refusal() from None  # the URL may hold a password


def _refusal() -> VectorIndexError:
    return VectorIndexError(f"the URL of the vector index is not understood; allowed: {ALLOWED}")


def _faiss(parts: SplitResult, collection: str, dimension: int) -> VectorIndex:
    _require(parts.netloc == parts.path == parts.query == "")
    from cache.vectors.faiss_index import FaissIndex

    return FaissIndex(dimension)


def _memory(parts: SplitResult, collection: str, dimension: int) -> VectorIndex:
    _require(parts.netloc == parts.path == parts.query == "")
    from cache.vectors.memory import MemoryIndex

    return MemoryIndex(dimension)


class MilvusAddress(NamedTuple):
    """As pymilvus takes it."""

    uri: str
    token: str
    database: str


def milvus_address(parts: SplitResult) -> MilvusAddress:
    """Raises `ValueError` for a URL of another form, which the message does not repeat."""
    query = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
    database = parts.path.strip("/")
    if not parts.hostname or query.keys() - {"token"} or "/" in database or (parts.username and query):
        raise ValueError("not the URL of a Milvus")
    host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
    scheme = "https" if parts.scheme == "https" else "http"
    default_port = 443 if scheme == "https" else MILVUS_PORT
    token = query["token"][0] if query else ""
    if parts.username:
        token = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return MilvusAddress(f"{scheme}://{host}:{parts.port or default_port}", token, database)


def _milvus(parts: SplitResult, collection: str, dimension: int) -> VectorIndex:
    from cache.vectors.milvus import MilvusIndex

    address = milvus_address(parts)
    return MilvusIndex(address.uri, collection, dimension, token=address.token, database=address.database)


def _milvus_lite(parts: SplitResult, collection: str, dimension: int) -> VectorIndex:
    path = Path(unquote(parts.path))
    _require(not parts.netloc and not parts.query and path.is_absolute() and path.name != "")
    try:
        import_module("milvus_lite")
    except ImportError as error:
        raise VectorIndexError(f"Milvus Lite is not installed ({error}): pip install 'milvus-lite>=3.2'") from error
    from cache.vectors.milvus import MilvusIndex

    path.parent.mkdir(parents=True, exist_ok=True)
    # pymilvus takes a path that ends so for one of Milvus Lite. It lies in this process and has no consistency levels: nothing is late.
    return MilvusIndex(str(path.with_name(f"{path.name.removesuffix('.db')}.db")), collection, dimension, staleness_s=0.0)


def _require(condition: bool) -> None:
    if not condition:
        raise _refusal()
