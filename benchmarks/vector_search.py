"""Recall, time and size of the chunk indexes, on one core.

    nice -n 10 python -m benchmarks.vector_search [--rows 1000000] [--kinds flat,hnsw,ivf_sq8,ours]
    nice -n 10 python -m benchmarks.vector_search --through service [--rows 100000]      (see benchmarks/search_service.py)

Row `ours` is the default (`auto`); `ivf_sq8` is what it could be instead: a byte for each component, in the same lists, and an exact
comparison of fewer proposals. Vectors are those of `vector_world.py`.

Further rows of `ours` have `allowed_share` (a filter that so many rows pass at random), or `stage`: the share of queries whose five best
are final after it, and the share of a search's time that has passed then, or `added` and `removed`: the time of a next version.
`build_peak_mb` is anonymous memory, `memory_mb` what the index keeps, and `disk_mb` its files, of which searches map the vectors and read
some dozens. Generating the vectors does not count as building. Columns with `cpu` are a core's time, which other work on the machine
changes less.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import search_service
from benchmarks.report import Row, parser, say, several, show
from benchmarks.settling import follow
from benchmarks.vector_world import BLOCK, DIMENSION, TOP, World, anonymous, one_core
from cache.entry import Vectors
from cache.vectors.codes import inner_products, load_faiss
from retrieval.indexes.base import ChunkIndex, Found, Kind, RowIds
from retrieval.indexes.building import build
from retrieval.indexes.faiss_index import MIN_TAIL, TAIL_SHARE, FaissChunkIndex
from retrieval.indexes.files import IndexFiles
from retrieval.indexes.structures import PROBES, TRAINED_OF_LIST, lists_for

FIRST = 5
WARM_UP, FLAT_QUERIES = 50, 100
KINDS = ("flat", "hnsw", "ivf_sq8", "ours")
DATA = ("clustered", "uniform")
REFINED = 42
"""Candidates that `ivf_sq8` compares exactly."""
SHARES = (0.5, 0.1, 0.01, 0.001)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    rows: list[Row] = []
    if options.through == "service":
        show("vector_search", options, search_service.measured(World(options.rows, options.seed, "clustered"), options))
        return
    for data in options.data.split(","):
        world = World(options.rows, options.seed, data)
        queries, truth = world.queries(options.queries), []
        truth = _truth(world, queries)
        say(f"{data}: cosines of the tenth neighbours {np.quantile([scores[-1] for _, scores in truth], (0.1, 0.5, 0.9)).round(2)}")
        for kind in options.kinds.split(","):
            if data == "clustered" or kind == "ours":
                rows += [{"data": data, **row} for row in _measured(kind, world, queries, [ids for ids, _ in truth], options)]
    show("vector_search", options, [{"system": row["system"], **row} for row in rows])


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser("vector_search", "Recall, time and size of the chunk indexes.")
    made.add_argument("--through", choices=("index", "service"), default="index", help="what is searched: indexes alone, or a collection")
    made.add_argument("--rows", type=int, help="1,000,000, and through the service 100,000")
    made.add_argument("--queries", type=int, default=500, help="whose neighbours are searched for")
    made.add_argument("--kinds", type=several(KINDS), default=",".join(KINDS), help="of indexes, comma-separated")
    made.add_argument(
        "--data", type=several(DATA), default=",".join(DATA), help="kinds of vectors, comma-separated; of uniform ones ours alone"
    )
    made.add_argument("--threads", type=int, default=2, help="that make an index; searches have one")
    options = made.parse_args(arguments)
    options.rows = options.rows or (1_000_000 if options.through == "index" else 100_000)
    if options.quick:
        options.rows, options.queries = min(options.rows, 20_000), min(options.queries, 50)
    return options


Truth = tuple[RowIds, Vectors]


def _truth(world: World, queries: Vectors, kept: Callable[[RowIds], Any] | None = None) -> list[Truth]:
    """The nearest rows of each query, and their cosines, by comparing all; of the rows that are kept."""
    faiss = load_faiss()
    ids, scores = np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32)
    for rows, vectors in world.slices():
        if kept is not None:
            rows, vectors = rows[kept(rows)], np.ascontiguousarray(vectors[kept(rows)])
        if len(rows):
            found, places = faiss.knn(queries, vectors, min(TOP, len(rows)), metric=faiss.METRIC_INNER_PRODUCT)
            ids, scores = np.hstack([ids, rows[places]]), np.hstack([scores, found])
            order = np.argsort(-scores, axis=1)[:, :TOP]
            ids, scores = np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1)
    return list(zip(ids, scores, strict=True))


def _measured(kind: str, world: World, queries: Vectors, truth: list[RowIds], options: argparse.Namespace) -> list[Row]:
    with tempfile.TemporaryDirectory() as directory:
        say(f"making {kind} of {world.rows:,} vectors")
        began, working, drawing = time.monotonic(), time.process_time(), world.seconds
        with _peak() as peak:
            index = _made(kind, world, Path(directory), options.threads)
        drew = world.seconds - drawing
        took, worked = time.monotonic() - began - drew, time.process_time() - working - drew
        row = {
            "system": kind,
            "kind": index.kind,
            "rows": world.rows,
            "build_s": took,
            "build_cpu_s": worked,
            "build_peak_mb": peak[0] / 1e6,
            "memory_mb": index.bytes / 1e6,
            "disk_mb": sum(path.stat().st_size for path in Path(directory).rglob("*") if path.is_file()) / 1e6,
        }
        with one_core():
            asked = queries[: FLAT_QUERIES if index.kind == "flat" else len(queries)]
            row |= _searched(lambda query: index.search(query, TOP), asked, truth)
            if kind != "ours" or not isinstance(index, FaissChunkIndex):
                return [row]
            return [row, *_staged(index, queries), *_filtered(index, world, queries), *_changed(index, world)]


class SqIndex:
    """Scalar quantisation in as many lists, with vectors compared exactly behind it."""

    kind = "ivf_sq8"

    def __init__(self, world: World, directory: Path, threads: int) -> None:
        faiss = load_faiss()
        self._path = directory / "vectors.f32"
        with self._path.open("wb") as file:
            for _, vectors in world.slices():
                file.write(vectors.data)
        self._vectors = np.asarray(np.memmap(self._path, np.float32, "r").reshape(world.rows, DIMENSION))
        lists = lists_for(world.rows)
        coarse = faiss.IndexFlatIP(DIMENSION)
        bits = faiss.ScalarQuantizer.QT_8bit
        self._index = faiss.IndexIVFScalarQuantizer(coarse, DIMENSION, lists, bits, faiss.METRIC_INNER_PRODUCT, False)
        self._index.cp.niter, self._index.cp.max_points_per_centroid = 10, TRAINED_OF_LIST
        faiss.omp_set_num_threads(threads)
        step = max(1, world.rows // (TRAINED_OF_LIST * lists))
        self._index.train(np.ascontiguousarray(self._vectors[::step]))
        for start in range(0, world.rows, BLOCK):
            self._index.add(self._vectors[start : start + BLOCK])
        faiss.omp_set_num_threads(1)
        faiss.write_index(self._index, str(directory / "index.faiss"))
        self.bytes = self._index.ntotal * (DIMENSION + 8) + 4 * lists * DIMENSION

    def search(self, query: Any, k: int) -> list[Found]:
        probed = load_faiss().SearchParametersIVF(nprobe=PROBES)
        rows = self._index.search(query[np.newaxis], REFINED, params=probed)[1][0]
        rows = rows[rows >= 0]
        products = inner_products(query, self._vectors, rows)
        return [Found(int(rows[place]), float(products[place])) for place in np.argsort(-products)[:k]]


def _made(kind: str, world: World, directory: Path, threads: int) -> FaissChunkIndex | SqIndex:
    if kind == "ivf_sq8":
        return SqIndex(world, directory, threads)
    names: dict[str, Kind] = {"ours": "auto", "flat": "flat", "hnsw": "hnsw"}
    files = IndexFiles(directory)
    return build(world.slices(), version=1, dimension=DIMENSION, embedder="e", kind=names[kind], files=files, threads=threads)


def _searched(search: Callable[[Any], list[Found]], queries: Vectors, truth: Sequence[RowIds]) -> Row:
    for query in queries[:WARM_UP]:
        search(query)
    seconds, worked, shares = [], [], []
    for query, expected in zip(queries, truth, strict=False):
        began, working = time.perf_counter(), time.thread_time()
        found = search(query)
        seconds.append(time.perf_counter() - began)
        worked.append(time.thread_time() - working)
        shares.append(len({hit.row for hit in found} & {*expected.tolist()}) / max(1, len(expected)))
    p50, p99 = np.quantile(seconds, (0.5, 0.99)) * 1e3
    cpu = float(np.median(worked)) * 1e3
    return {"recall": float(np.mean(shares)), "search_p50_ms": float(p50), "search_p99_ms": float(p99), "search_cpu_p50_ms": cpu}


def _staged(index: ChunkIndex, queries: Vectors) -> list[Row]:
    followed = [follow(index.stages(query, TOP), FIRST, time.perf_counter) for query in queries]
    hidden = float(np.mean([each.hidden_share for each in followed]))
    rows: list[Row] = []
    for stage in range(max(len(each.seconds) for each in followed)):
        final = float(np.mean([each.stage <= stage for each in followed]))
        passed = float(np.median([each.seconds[min(stage, len(each.seconds) - 1)] / each.seconds[-1] for each in followed]))
        rows.append({"system": "ours", "stage": stage + 1, "first_final_share": final, "time_share": passed, "search_hidden_share": hidden})
    return rows


def _filtered(index: FaissChunkIndex, world: World, queries: Vectors) -> list[Row]:
    rows: list[Row] = []
    some = queries[:FLAT_QUERIES]
    for share in SHARES:
        chosen = np.random.default_rng(3).random(world.rows) < share
        truth = [ids for ids, _ in _truth(world, some, lambda rows, chosen=chosen: chosen[rows])]  # type: ignore[misc]
        began = time.perf_counter()
        selection = index.select(np.flatnonzero(chosen))
        made = (time.perf_counter() - began) * 1e3
        found = _searched(lambda query, selection=selection: index.search(query, TOP, selection), some, truth)  # type: ignore[misc]
        rows.append({"system": "ours", "allowed_share": share, "select_ms": made, **found})
    return rows


def _changed(index: FaissChunkIndex, world: World) -> list[Row]:
    """The time of a next version: with rows behind the structure, with rows that it takes, and without some."""
    rows: list[Row] = []
    taken = max(MIN_TAIL, world.rows // TAIL_SHARE) + 1
    for added, removed in ((1_000, 0), (taken, 0), (0, 1_000)):
        vectors = world.queries(added)
        began = time.perf_counter()
        index.changed(2, [(np.arange(world.rows, world.rows + added), vectors)], np.arange(removed))
        rows.append({"system": "ours", "added": added, "removed": removed, "change_s": time.perf_counter() - began})
    return rows


@contextmanager
def _peak() -> Iterator[list[float]]:
    """The most anonymous memory that this process had meanwhile, beyond what it had before, in bytes."""
    before, ended, most = anonymous(), threading.Event(), [0.0]

    def watch() -> None:
        while not ended.wait(0.05):
            most[0] = max(most[0], anonymous() - before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield most
    finally:
        ended.set()
        watcher.join()


if __name__ == "__main__":
    main()
