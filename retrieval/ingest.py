"""Reads files into collections, a few at a time, in threads of its own.

A file is read, cut into chunks, and those are encoded and stored, batch after batch, beside what a search sees; one last transaction puts
them in its place. Each step is stored before the next, and the queue is in the database: a process that is killed anywhere goes on there.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from cache.embedders.base import Embedder
from cache.errors import EmbedderError
from retrieval.chunking import split
from retrieval.config import FilesConfig
from retrieval.errors import DocumentError, ParseError, Stopping, StorageError, SupersededError, UnknownError, UnknownFileError
from retrieval.files import FileStore
from retrieval.ingest_queue import IngestQueue, Job
from retrieval.parsing.reader import read_file
from retrieval.store import DocumentStore

log = logging.getLogger("ray.serve")
T = TypeVar("T")

BATCH_CHUNKS = 64
"""Encoded and stored together: what is done again after a crash, at most."""
SWEEPS = 20
"""Steps of deleting what has ended, after each file."""
IDLE_S = 5.0
"""How often is looked for what nobody told of, and for what may be deleted."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""After a failure that may pass; each pause is twice the one before."""
TRIES = 200
"""Of one step, over about three hours; then the file has failed."""
MAX_REMEMBERED = 10_000
"""Namespaces of which it is known when they had their turn."""


@dataclass(frozen=True, slots=True)
class IngestCounts:
    """Of this process, since its beginning: files by what became of them, chunks stored, and the time that all of it took."""

    completed: int = 0
    failed: int = 0
    superseded: int = 0
    """Deleted, cancelled or given anew before they were read."""
    chunks: int = 0
    seconds: float = 0.0


class Ingest:
    """`start` and `stop` from one thread; `wake` from any."""

    def __init__(
        self,
        store: DocumentStore,
        files: FileStore,
        queue: IngestQueue,
        embedder: Embedder,
        config: FilesConfig,
        clock: Callable[[], float],
        pause: Callable[[float], object] | None = None,
    ) -> None:
        """`pause` waits for so many seconds, or less when this is to stop."""
        self._store = store
        self._files = files
        self._queue = queue
        self._embedder = embedder
        self._config = config
        self._clock = clock
        self._stopping = threading.Event()
        self._pause = pause or self._stopping.wait
        self._woken = threading.Event()
        self._lock = threading.Lock()
        self._running: set[int] = set()
        self._served: dict[str, int] = {}
        self._turn = 0
        self._threads: list[threading.Thread] = []
        self._counts = IngestCounts()

    @property
    def counts(self) -> IngestCounts:
        return self._counts

    def waiting(self) -> int:
        """Files that wait, or are being read. May raise `StorageError`."""
        return self._queue.waiting()

    def start(self) -> None:
        for number in range(self._config.ingest_threads):
            thread = threading.Thread(target=self._run, name=f"ingest-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Returns when no thread is at work; what they were at goes on in the next process."""
        self._stopping.set()
        self._woken.set()
        for thread in self._threads:
            thread.join()

    def wake(self) -> None:
        """There is something new to do."""
        self._woken.set()

    def step(self) -> bool:
        """Does one file, or deletes a little of what has ended. False: there was nothing to do."""
        job = self._next()
        if job is None:
            self._files.expire()
            return self._store.sweep(self._clock())
        began = time.monotonic()
        try:
            self._ingest(job)
        finally:
            with self._lock:
                self._running.discard(job.revision)
            self._count(seconds=time.monotonic() - began)
        self._sweep()
        return True

    def _sweep(self) -> None:
        """A little more than a file leaves, so that it is done while others still wait."""
        for _ in range(SWEEPS):
            if not self._store.sweep(self._clock()):
                return

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._woken.clear()  # before looking, so that nothing that comes from now on is overheard
            try:
                is_busy = self.step()
            except Stopping:
                return
            except Exception:  # a thread that ends would be missed by nobody
                log.exception("files cannot be read now")
                is_busy = False
            if not is_busy:
                self._woken.wait(IDLE_S)

    def _next(self) -> Job | None:
        with self._lock:
            job = self._queue.next(self._running, self._served)
            if job is None:
                return None
            if len(self._served) >= MAX_REMEMBERED:
                self._served.clear()
            self._turn += 1
            self._served[job.namespace] = self._turn
            self._running.add(job.revision)
            return job

    def _ingest(self, job: Job) -> None:
        """To its end. Raises `Stopping`."""
        try:
            if job.embedder != self._store.embedder:  # also where an earlier process has begun: its chunks are another encoder's
                raise ParseError("the collection was made with another encoder: add its files to a new one", "server_error")
            text = job.text if job.text is not None else self._read(job)
            self._encode(job, text)
            self._count(completed=1)
        except (ParseError, DocumentError) as error:
            self._fail(job, error.code if isinstance(error, ParseError) else "invalid_file", str(error))
        except (SupersededError, UnknownError):  # deleted, cancelled or given anew: what is to become of it is somebody else's
            self._supersede(job)
        except Stopping:
            raise
        except Exception:
            log.exception("a file could not be read", extra={"file": job.document_id})
            self._fail(job, "server_error", "reading the file failed; its id names it in the logs")

    def _read(self, job: Job) -> str:
        try:
            text = self._patiently(lambda: read_file(self._files.path(job.file_namespace, job.document_id), job.name, self._config))
        except UnknownFileError:
            raise ParseError("the file was deleted before it was read") from None
        self._patiently(lambda: self._queue.keep_text(job, text))
        return text

    def _encode(self, job: Job, text: str) -> None:
        cutting = job.cutting
        parts = self._patiently(lambda: split(text, self._embedder.count_tokens, cutting.max_tokens, cutting.overlap_tokens))
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        stored = self._patiently(lambda: self._queue.begin_cut(job, digest, len(parts)))
        for first in range(stored, len(parts), BATCH_CHUNKS):
            texts = parts[first : first + BATCH_CHUNKS]
            vectors = self._patiently(partial(self._embedder.embed, texts))
            self._patiently(partial(self._queue.add_chunks, job, first, texts, vectors))
            self._count(chunks=len(texts))
        vector_bytes = 4 * self._embedder.dimension * len(parts)
        self._patiently(lambda: self._queue.complete(job, text, parts, vector_bytes, self._clock()))

    def _patiently(self, work: Callable[[], T]) -> T:
        """Tries again what fails in a way that may pass. Raises what it raised at last, and `Stopping`."""
        pause_s = FIRST_PAUSE_S
        for _ in range(TRIES):
            if self._stopping.is_set():
                raise Stopping
            try:
                return work()
            except FileNotFoundError:  # its bytes do not come back
                raise
            except (EmbedderError, StorageError, OSError) as error:
                log.warning("a file has to wait", extra={"error": str(error), "pause_s": pause_s})
            self._pause(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return work()

    def _fail(self, job: Job, code: str, message: str) -> None:
        try:
            self._patiently(lambda: self._queue.fail(job, code, message, self._clock()))
            self._count(failed=1)
        except (SupersededError, UnknownError):
            self._supersede(job)

    def _supersede(self, job: Job) -> None:
        log.info("a file is no longer to be read", extra={"file": job.document_id})
        self._count(superseded=1)

    def _count(self, **more: float) -> None:
        with self._lock:
            self._counts = replace(self._counts, **{name: getattr(self._counts, name) + number for name, number in more.items()})
