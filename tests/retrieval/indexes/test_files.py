"""Saved indexes: whole, or refused."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.errors import VectorIndexError
from retrieval.errors import IndexFileError
from retrieval.indexes import building, faiss_index
from retrieval.indexes.base import Kind, Slice
from retrieval.indexes.building import build
from retrieval.indexes.faiss_index import FaissChunkIndex
from retrieval.indexes.files import HEADER, LIVE, ROWS, STRUCTURE, VECTORS, IndexFiles
from tests.retrieval.indexes.test_contract import close
from tests.retrieval.indexes.worlds import NONE, Truth, ids, nearest, slices, units

KINDS: list[Kind] = ["flat", "hnsw", "ivf"]
TRUTH: Truth = dict(zip(range(0, 900, 3), units(1, 300), strict=True))
QUERY = units(2, 1)[0]


@pytest.fixture
def files(tmp_path: Path) -> IndexFiles:
    return IndexFiles(tmp_path / "index")


def made(files: IndexFiles | None, kind: Kind = "ivf", version: int = 7) -> FaissChunkIndex:
    return build(slices(TRUTH, 100), version=version, dimension=8, embedder="e", kind=kind, files=files)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_index_is_found_again(files: IndexFiles, kind: Kind) -> None:
    index = made(files, kind)
    again = files.open_newest(8, "e")
    assert (again.version, again.kind, len(again)) == (7, kind, 300)
    assert again.search(QUERY, 10) == index.search(QUERY, 10) == made(None, kind).search(QUERY, 10)
    assert np.array_equal(again.rows, ids(TRUTH))


@pytest.mark.parametrize("kind", KINDS)
def test_a_version_that_grew_and_shrank_is_saved_and_grows_on(files: IndexFiles, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss_index, "MIN_TAIL", 30)
    added = dict(zip(range(10_000, 10_100), units(3, 100), strict=True))
    index = made(files, kind).changed(8, slices(added), ids(range(0, 90, 3)))
    saved = files.save(index)
    again = files.open_newest(8, "e")
    for each in (saved, again):
        assert (each.version, len(each)) == (8, 370)
        assert close(each.search(QUERY, 400), index.search(QUERY, 400))
    more = dict(zip(range(20_000, 20_100), units(4, 100), strict=True))
    grown = again.changed(9, slices(more), ids([10_000]))
    truth = {row: vector for row, vector in (TRUTH | added | more).items() if not (row < 90 or row == 10_000)}
    assert [hit.row for hit in grown.search(QUERY, 20)] == [hit.row for hit in nearest(truth, QUERY, 20)]


def test_a_renewal_leaves_out_what_was_removed(files: IndexFiles) -> None:
    index = made(files)
    assert not index.renewal_is_due
    shrunk = index.changed(8, [], ids(range(0, 300, 3)))
    assert shrunk.renewal_is_due
    again = build(shrunk.slices(), version=8, dimension=8, embedder="e", kind="ivf", files=files)
    assert not again.renewal_is_due
    assert (again.version, len(again), len(again.contents.matrix)) == (8, 200, 200)
    assert again.search(QUERY, 10) == shrunk.search(QUERY, 10)


def test_an_index_that_has_doubled_is_to_be_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    more = dict(zip(range(1000, 1301), units(3, 301), strict=True))
    assert made(None).changed(8, slices(more), NONE).renewal_is_due
    flat = made(None, "auto").changed(8, slices(more), NONE)
    assert not flat.renewal_is_due
    for module in (faiss_index, building):
        monkeypatch.setattr(module, "FLAT_ROWS", 500)
    assert flat.renewal_is_due
    again = build(flat.slices(), version=8, dimension=8, embedder="e")
    assert (again.kind, again.renewal_is_due) == ("ivf", False)


def test_the_newest_version_counts_and_the_others_go(files: IndexFiles) -> None:
    first = made(files, version=7)
    made(files, version=11)
    made(files, "flat", version=11)
    newest = files.open_newest(8, "e")
    assert (newest.version, newest.kind) == (11, "flat")
    assert len(list(files.directory.iterdir())) == 1
    assert first.search(QUERY, 3) == newest.search(QUERY, 3)  # still mapped


def test_nothing_saved_is_refused(files: IndexFiles) -> None:
    with pytest.raises(IndexFileError, match="no index has been saved"):
        files.open_newest(8, "e")


@pytest.mark.parametrize(("dimension", "embedder"), [(9, "e"), (8, "f")])
def test_another_encoder_or_dimension_is_refused(files: IndexFiles, dimension: int, embedder: str) -> None:
    made(files)
    with pytest.raises(IndexFileError, match="encoder"):
        files.open_newest(dimension, embedder)


@pytest.mark.parametrize("name", [ROWS, VECTORS, LIVE, STRUCTURE, HEADER])
@pytest.mark.parametrize("damage", ["flipped", "shorter", "longer", "empty", "missing"])
def test_a_damaged_file_is_refused(files: IndexFiles, name: str, damage: str) -> None:
    files.save(made(None).changed(8, [], ids([0])))
    path = next(files.directory.iterdir()) / name
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes({"flipped": bytes(data), "shorter": bytes(data[:-1]), "longer": bytes(data) + b"x", "empty": b""}[damage])
    with pytest.raises(IndexFileError, match="make it anew"):
        files.open_newest(8, "e")


def test_a_header_of_another_format_is_refused(files: IndexFiles) -> None:
    made(files)
    path = next(files.directory.iterdir()) / HEADER
    path.write_bytes(b"{}\n" + b"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a")  # its hash is right
    with pytest.raises(IndexFileError, match="make it anew"):
        files.open_newest(8, "e")


def test_what_fails_while_it_is_made_leaves_the_version_before_it(files: IndexFiles) -> None:
    made(files)

    def half() -> Iterator[Slice]:
        yield ids([1]), units(1, 1)
        raise VectorIndexError("the database went away")

    with pytest.raises(VectorIndexError, match="went away"):
        build(half(), version=8, dimension=8, embedder="e", files=files)
    with pytest.raises(VectorIndexError, match="comes twice"):
        build(slices(TRUTH) * 2, version=8, dimension=8, embedder="e", files=files)
    assert files.open_newest(8, "e").version == 7
    assert len(list(files.directory.iterdir())) == 1


def test_a_directory_that_cannot_be_written_is_an_error_with_advice(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IndexFileError, match="check space and rights"):
        made(IndexFiles(tmp_path / "file" / "index"))


def fill_disk(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """No draft can hold anything in the files of these names."""
    make = tempfile.mkdtemp

    def made_full(**arguments: Any) -> str:
        path: str = make(**arguments)
        for name in names:
            (Path(path) / name).symlink_to("/dev/full")
        return path

    monkeypatch.setattr(tempfile, "mkdtemp", made_full)


def test_what_the_disk_does_not_take_at_the_end_leaves_nothing_either(files: IndexFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_disk(monkeypatch, ROWS, VECTORS)
    with pytest.raises(IndexFileError, match="No space left"), files.draft(8) as draft:
        draft.add(ids([1]), units(1, 1))  # in buffers
    assert [file.closed for file in draft._files.values()] == [True, True]
    assert list(files.directory.iterdir()) == []


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_a_structure_that_the_disk_does_not_take_is_an_error_with_advice(
    files: IndexFiles, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_disk(monkeypatch, STRUCTURE)
    with pytest.raises(IndexFileError, match=r"No space left.*check space and rights"):
        made(files, kind)
    assert list(files.directory.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from retrieval.indexes import files
from tests.retrieval.indexes.test_files import made

step, directory = sys.argv[1], files.IndexFiles(Path(sys.argv[2]))
def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
owner, name = {"rows": (files.Draft, "matrix"), "structure": (files.Draft, "write_structure"), "header": (files.Draft, "finish"),
               "renamed": (files.IndexFiles, "_remove_but")}[step]
setattr(owner, name, die)
made(directory, version=8)
"""


@pytest.mark.parametrize(("step", "version"), [("rows", 7), ("structure", 7), ("header", 7), ("renamed", 8)])
def test_a_process_that_is_killed_leaves_a_whole_version(files: IndexFiles, step: str, version: int) -> None:
    made(files)
    root = Path(__file__).parents[3]
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, step, files.directory], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    assert len(list(files.directory.iterdir())) == 2
    assert files.open_newest(8, "e").version == version
    files.tidy()
    assert [path.name[:12] for path in files.directory.iterdir()] == [f"{version:012}"]
