"""Memory of answers that an ingress holds, and whether anything grows over a million mixed requests.

    python -m benchmarks.hit_memory

`held`: bytes that a process takes for each answer in its memory, as the operating system counts them, beside what the limit
`cache.exact.max_bytes` counts, for answers of a few lengths, as they are and rendered as streams. `soak`: the application with the
simulated engine under hits as JSON and as streams, misses, refused bodies and requests past the cache, and the memory of its processes
after each tenth.
"""

import argparse
import gc
import itertools
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from benchmarks import wrk
from benchmarks.application import QUICK_ENGINE, ROOT, Application
from benchmarks.report import Row, parser, say, show
from cache.entry import Entry
from cache.exact import AnswerLru
from serve_app.openai import answers
from serve_app.openai.replay import render
from serve_app.replies import READY_OVERHEAD_BYTES

CHAT = "/v1/chat/completions"
LENGTHS = (200, 2_000, 20_000)
HELD = 3_000
LOAD_S = 20
BODIES = 200_000
"""Of one load, more than are sent in that time: `wrk` begins anew behind the last one, and what is new must be."""
PARTS = {"ingress": ":Ingress", "cache": ":CacheOwner", "embedding": ":Embedding", "engine": ":LlmReplica", "haproxy": "bin/haproxy"}


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    if options.held:
        sys.stdout.write(json.dumps(_held(options.held, options.stream)))
        return
    rows = [_held_apart(length, stream) for length in LENGTHS for stream in (False, True)]
    show("hit_memory", options, [*rows, *_soak(options)])


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser("hit_memory", "Memory of held answers, and growth over many requests.")
    made.add_argument("--requests", type=int, default=1_000_000)
    made.add_argument("--held", type=int, help=argparse.SUPPRESS)
    made.add_argument("--stream", action="store_true", help=argparse.SUPPRESS)
    options = made.parse_args(arguments)
    if options.quick:
        options.requests = 10_000
    return options


def _held_apart(length: int, stream: bool) -> Row:
    """In a process of its own, whose memory holds nothing else."""
    command = [sys.executable, "-m", "benchmarks.hit_memory", "--held", str(length), *(["--stream"] if stream else [])]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return {"system": "ours", "case": "held", "answer_chars": length, "stream": stream, **json.loads(ran.stdout)}


def _held(length: int, stream: bool) -> dict[str, float]:
    lru, numbers = AnswerLru(10**10, lambda: 0.0), itertools.count()
    _hold(lru, next(numbers), length, stream)
    gc.collect()
    before, counted = psutil.Process().memory_info().rss, lru.bytes
    for _ in range(HELD):
        _hold(lru, next(numbers), length, stream)
    gc.collect()
    rss = psutil.Process().memory_info().rss - before
    return {"bytes_each": rss / HELD, "counted_bytes_each": (lru.bytes - counted) / HELD}


def _hold(lru: AnswerLru, number: int, length: int, stream: bool) -> None:
    answer = json.dumps(answers.of_text(f"{number:010}" * (length // 10), "m"), separators=(",", ":")).encode()
    own = [f"{random.getrandbits(255):064x}" for _ in range(3)]
    lru.put(Entry(f"{number:032x}", own[0], own[1], own[2], "m", "What is it?", answer, 0.0, 1.0))
    held = lru.held(own[0], own[1])
    if stream and held is not None:
        pieces = render(answer, "chat", stream=True, include_usage=False)
        lru.attach(held, pieces, sum(map(len, pieces)) + READY_OVERHEAD_BYTES)


def _soak(options: argparse.Namespace) -> Iterator[Row]:
    llm = {"model": {"name": "mygo-sim"}, "engine": QUICK_ENGINE, "replicas": {"min": 1, "max": 1}}
    args = {"llm": llm, "cache": {"exact": {"max_bytes": 4 * 1024 * 1024}, "max_entries": 5_000}}
    with tempfile.TemporaryDirectory() as directory, Application(ROOT / "config.sim.yaml", Path(directory), args) as application:
        application.wait_ready()
        rng, done = random.Random(options.seed), 0
        for tenth in range(10):
            goal = options.requests * (tenth + 1) // 10
            errors = 0
            while done < goal:
                bodies = _mixed(rng, BODIES // LOAD_S if options.quick else BODIES)
                measured = wrk.load(application.url + CHAT, bodies, 16, 1 if options.quick else LOAD_S)
                done += measured.requests
                errors += measured.errors
            say(f"  {done} requests")
            yield {"system": "ours", "case": "soak", "requests": done, "refused": errors, **_rss_mb(application)}


def _mixed(rng: random.Random, number: int) -> list[bytes]:
    """Nine of ten are hits, half of them streams; the others are new, past the cache, or no requests at all."""
    known = [_chat(f"Known question {each}.", stream=each % 2 == 0) for each in range(900)]
    past = [_chat(f"Past the cache {each}.", cache={"mode": "off"}) for each in range(30)]
    wrong = [b"{", b'{"model": "mygo-sim"}', b"\xff", *[_chat("x", temperature=9) for _ in range(7)]]

    def body() -> bytes:
        kind = rng.random()
        if kind < 0.9:
            return rng.choice(known)
        if kind < 0.96:
            return _chat(f"New question {rng.randrange(10**12)}.", stream=kind < 0.93)
        return rng.choice(past if kind < 0.99 else wrong)

    return [body() for _ in range(number)]


def _chat(content: str, **fields: object) -> bytes:
    return json.dumps(
        {"model": "mygo-sim", "messages": [{"role": "user", "content": content}], "max_tokens": 8, "temperature": 0, **fields}
    ).encode()


def _rss_mb(application: Application) -> dict[str, float]:
    found = {name: application.processes(part) for name, part in PARTS.items()}
    return {f"{name}_rss_mb": sum(each.memory_info().rss for each in processes) / 2**20 for name, processes in found.items()}


if __name__ == "__main__":
    main()
