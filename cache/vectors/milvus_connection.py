"""One collection of a Milvus server: found or made, loaded, and found again after the server went away."""

import logging
import threading
import time
from typing import Any

from cache.errors import VectorIndexError

log = logging.getLogger(__name__)

PAUSE_S = 1.0
"""After an attempt to reach the collection failed, calls fail at once for so long."""
LENGTH = 64
"""Of ids and hashes, at most."""


class MilvusConnection:
    """Calls of `pymilvus.MilvusClient` about one collection. Thread-safe. Nothing is asked before the first call.

    Every failure is a `VectorIndexError` that says what to look at. A call takes at most about its timeout; the first one, and one
    after a failure, look for the collection before, in a few calls that have the same timeout each.
    """

    def __init__(self, uri: str, collection: str, dimension: int, token: str, database: str) -> None:
        self._pymilvus = _import_pymilvus()
        self._uri, self._token, self._database = uri, token, database
        self._collection, self._dimension = collection, dimension
        self._lock = threading.RLock()
        """Held by who connects and prepares."""
        self._client: Any = None
        self._ready = False
        self._failure, self._failed_at = "", float("-inf")

    def call(self, purpose: str, method: str, timeout_s: float, **arguments: Any) -> Any:
        """The result of a method of the client, on this collection. `purpose` completes "could not ..."."""
        try:
            client = self._prepared(timeout_s)
            return getattr(client, method)(self._collection, timeout=timeout_s, **arguments)
        except VectorIndexError:
            raise
        except Exception as error:  # of pymilvus, of gRPC, or of what they call
            self._ready = False
            raise self._error(purpose, error) from error

    def collections(self, timeout_s: float) -> list[str]:
        """The names of all collections of the database."""
        try:
            return list(self._connected(timeout_s).list_collections(timeout=timeout_s))
        except Exception as error:
            raise self._error("list the collections", error) from error

    def drop(self, timeout_s: float) -> None:
        """Removes the collection. The next call makes an empty one."""
        try:
            self._connected(timeout_s).drop_collection(self._collection, timeout=timeout_s)
        except Exception as error:
            raise self._error("drop the collection", error) from error
        finally:
            self._ready = False

    def close(self) -> None:
        with self._lock:
            self._ready = False
            if self._client is not None:
                self._client.close()
                self._client = None

    def _connected(self, timeout_s: float) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._pymilvus.MilvusClient(
                    self._uri,
                    token=self._token,
                    db_name=self._database,
                    timeout=timeout_s,
                    dedicated=True,  # a shared connection would outlive `close`
                )
            return self._client

    def _prepared(self, timeout_s: float) -> Any:
        """The client, when the collection exists and is loaded."""
        client = self._client
        if self._ready and client is not None:
            return client
        if not self._lock.acquire(timeout=timeout_s):
            raise VectorIndexError(f"another thread still connects to Milvus at {self._uri}")
        try:
            return self._prepare(timeout_s)
        finally:
            self._lock.release()

    def _prepare(self, timeout_s: float) -> Any:
        if self._ready and self._client is not None:
            return self._client
        if time.monotonic() < self._failed_at + PAUSE_S:  # many threads would wait for one timeout after the other
            raise VectorIndexError(self._failure)
        try:
            client = self._connected(timeout_s)
            self._make(client, timeout_s)
            client.load_collection(self._collection, timeout=timeout_s)
        except Exception as error:
            failed = error if isinstance(error, VectorIndexError) else self._error("prepare the collection", error)
            self._failure, self._failed_at = str(failed), time.monotonic()
            raise failed from error
        self._ready = True
        return client

    def _make(self, client: Any, timeout_s: float) -> None:
        """Makes what is missing: another process may have ended halfway."""
        if client.has_collection(self._collection, timeout=timeout_s):
            self._check(client.describe_collection(self._collection, timeout=timeout_s))
        else:
            # Strong, because a page of a scan cannot choose its level itself, and must see every write.
            client.create_collection(self._collection, schema=self._schema(client), consistency_level="Strong", timeout=timeout_s)
        if not client.list_indexes(self._collection, field_name="vector", timeout=timeout_s):
            self._make_indexes(client, timeout_s)

    def _schema(self, client: Any) -> Any:
        kinds = self._pymilvus.DataType
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", kinds.VARCHAR, max_length=LENGTH, is_primary=True)
        schema.add_field("namespace", kinds.VARCHAR, max_length=LENGTH)
        schema.add_field("fingerprint", kinds.VARCHAR, max_length=LENGTH)
        schema.add_field("vector", kinds.FLOAT_VECTOR, dim=self._dimension)
        return schema

    def _make_indexes(self, client: Any, timeout_s: float) -> None:
        for field in ("namespace", "fingerprint"):
            try:
                client.create_index(self._collection, _index(client, field, "INVERTED"), timeout=timeout_s)
            except self._pymilvus.MilvusException as error:
                log.info("filters on %s read every row, because this Milvus has no inverted index: %s", field, error.message)
        vectors = _index(client, "vector", "HNSW", metric_type="COSINE", params={"M": 16, "efConstruction": 128})
        client.create_index(self._collection, vectors, timeout=timeout_s)

    def _check(self, description: dict[str, Any]) -> None:
        fields = {field["name"]: field.get("params", {}) for field in description["fields"]}
        dimension = int(fields.get("vector", {}).get("dim", 0))
        if dimension != self._dimension or not {"id", "namespace", "fingerprint"} <= fields.keys():
            raise VectorIndexError(
                f"the collection {self._collection} at {self._uri} is not one of ours for vectors of {self._dimension} components "
                f"(it has {dimension}): drop it, or choose another name"
            )

    def _error(self, purpose: str, error: Exception) -> VectorIndexError:
        # gRPC's own errors tell more in a method; and what a server says is not always one line.
        details = error.details() if hasattr(error, "details") else getattr(error, "message", "")
        reason = str(details or error).partition("\n")[0][:200]
        return VectorIndexError(
            f"Milvus at {self._uri} could not {purpose}: {reason}. "
            "Check that the server runs and is reachable there, and that user, password and database are right"
        )


def _index(client: Any, field: str, kind: str, **parameters: Any) -> Any:
    indexes = client.prepare_index_params()
    indexes.add_index(field, index_type=kind, **parameters)
    return indexes


def _import_pymilvus() -> Any:
    try:
        import pymilvus
    except ImportError as error:
        raise VectorIndexError(f"Milvus's client is not installed ({error}): pip install 'pymilvus>=3.0.2'") from error
    # It logs stack traces for each failed call. Each failure is raised, and whoever gets it decides what is worth a line.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    return pymilvus
