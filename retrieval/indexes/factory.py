"""Opens the Milvus that a URL names."""

from urllib.parse import parse_qs, unquote, urlsplit

from cache.errors import VectorIndexError
from cache.vectors.factory import MILVUS_PORT
from retrieval.indexes.milvus import MilvusChunks

ALLOWED = "milvus://[user:password@]host[:port][/database][?token=key], http://... or https://... of the same form"


def open_chunks(url: str, collection: str, dimension: int) -> MilvusChunks:
    """The server is asked nothing before the first call. Raises `VectorIndexError`, which does not repeat the URL."""
    try:
        parts = urlsplit(url)
        query = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
        host, port, database = parts.hostname, parts.port, parts.path.strip("/")
        valid = parts.scheme in ("milvus", "http", "https") and host and "/" not in database
    except ValueError:  # a port that is no number, for example
        valid = False
    if not valid or query.keys() - {"token"} or (parts.username and query):
        raise VectorIndexError(f"the URL of the chunk index is not understood; allowed: {ALLOWED}")
    user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}" if parts.username else ""
    scheme, default = ("https", 443) if parts.scheme == "https" else ("http", MILVUS_PORT)
    host = f"[{host}]" if ":" in str(host) else host
    uri = f"{scheme}://{host}:{port or default}"
    return MilvusChunks.at(uri, collection, dimension, token=query["token"][0] if query else user, database=database)
