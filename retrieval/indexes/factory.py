"""Opens the Milvus that a URL names."""

from urllib.parse import urlsplit

from cache.errors import VectorIndexError
from cache.vectors.factory import milvus_address
from retrieval.indexes.milvus import MilvusChunks

ALLOWED = "milvus://[user:password@]host[:port][/database][?token=key], http://... or https://... of the same form"


def open_chunks(url: str, collection: str, dimension: int) -> MilvusChunks:
    """The server is asked nothing before the first call. Raises `VectorIndexError`, which does not repeat the URL."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("milvus", "http", "https"):
            raise ValueError("another scheme")
        address = milvus_address(parts)
    except ValueError:  # a port that is no number, for example
        raise VectorIndexError(f"the URL of the chunk index is not understood; allowed: {ALLOWED}") from None
    return MilvusChunks.at(address.uri, collection, dimension, token=address.token, database=address.database)
