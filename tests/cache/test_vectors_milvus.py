"""Milvus that does not answer, comes back, or holds something else."""

import contextlib
import socket
import threading
import time
import uuid
from collections.abc import Iterator

import pytest

from cache.errors import VectorIndexError
from cache.vectors.base import VectorRecord
from cache.vectors.milvus import MilvusIndex
from tests.cache.databases import MILVUS, milvus_url
from tests.cache.entries import unit
from tests.cache.test_vectors import eventually


@pytest.fixture
def collection() -> Iterator[str]:
    milvus_url()
    name = f"test_{uuid.uuid4().hex}"
    yield name
    index = MilvusIndex(f"http://{MILVUS[0]}:{MILVUS[1]}", name, 2)
    index.drop()
    index.close()


class Relay:
    """A port in front of the server, which can be cut off and connected again."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._open: list[socket.socket] = []
        self.port = 0

    def connect(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._open = [listener]
        threading.Thread(target=self._accept, args=[listener], daemon=True).start()

    def cut(self) -> None:
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, server = listener.accept()[0], socket.create_connection(self._target)
                self._open += [client, server]
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=[source, sink], daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)


def test_a_server_that_comes_back_is_found_again(collection: str) -> None:
    relay = Relay(MILVUS)
    relay.connect()
    index = MilvusIndex(f"http://127.0.0.1:{relay.port}", collection, 2)
    index.upsert([VectorRecord("x", "a", "f", unit(1, 0))])
    relay.cut()
    for call in (lambda: index.search("a", "f", unit(1, 0), 1), lambda: index.delete(["x"]), lambda: index.scan("", 1), index.count):
        with pytest.raises(VectorIndexError, match="Check that the server runs"):
            call()
    relay.connect()

    def is_back() -> None:
        try:
            assert [each.id for each in index.search("a", "f", unit(1, 0), 1)] == ["x"]
        except VectorIndexError as error:
            raise AssertionError from error

    eventually(index, is_back)
    index.close()
    relay.cut()


def test_a_server_that_is_silent_costs_a_bounded_time_and_then_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        index = MilvusIndex(f"http://127.0.0.1:{silent.getsockname()[1]}", "c", 2, token="user:secret", search_timeout_s=0.2)  # noqa: S106
        for limit_s in (2.0, 0.1):
            begun = time.monotonic()
            with pytest.raises(VectorIndexError, match="Check that the server runs") as failed:
                index.search("a", "f", unit(1, 0), 1)
            assert time.monotonic() - begun < limit_s
            assert "secret" not in str(failed.value)
        index.close()


def test_a_collection_of_another_dimension_is_refused(collection: str) -> None:
    uri = f"http://{MILVUS[0]}:{MILVUS[1]}"
    two, three = MilvusIndex(uri, collection, 2), MilvusIndex(uri, collection, 3)
    two.upsert([VectorRecord("x", "a", "f", unit(1, 0))])
    with pytest.raises(VectorIndexError, match="not one of ours for vectors of 3"):
        three.upsert([VectorRecord("y", "a", "f", unit(1, 0, 0))])
    assert two.scan("", 10) == ["x"]
    two.close()
    three.close()


def test_collections_are_listed_by_prefix_and_dropped(collection: str) -> None:
    index = MilvusIndex(f"http://{MILVUS[0]}:{MILVUS[1]}", collection, 2)
    index.upsert([VectorRecord("x", "a", "f", unit(1, 0))])
    assert index.collections(collection) == [collection]
    index.drop()
    index.drop()
    assert index.collections(collection) == []
    assert index.scan("", 10) == []
    index.close()


def test_two_processes_may_make_the_collection_at_once(collection: str) -> None:
    indexes = [MilvusIndex(f"http://{MILVUS[0]}:{MILVUS[1]}", collection, 2) for _ in range(4)]
    failed: list[Exception] = []

    def write(number: int) -> None:
        try:
            indexes[number].upsert([VectorRecord(str(number), "a", "f", unit(1, number))])
        except VectorIndexError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert indexes[0].scan("", 10) == ["0", "1", "2", "3"]
    for index in indexes:
        index.close()
