"""Exact hits over HTTP: how many a second, and how long each takes, beside servers that do nothing but answer and other caches.

    benchmarks/rivals/install && python -m benchmarks.hit_path

Each round measures the rivals while the application is down, then the application, as `scripts/serve` starts it, through HAProxy; the
median of the rounds counts. The load is `wrk` on the same cores. `ours` asks a thousand questions that were answered before, in turn, with
request ids, counters and access log as they always are; `ours_new_words` sends each body once more with an unused field that no body had
before, so that it has to be parsed. Rivals' requests are the same each time, which suits them. LiteLLM answers from its local cache
(three workers as it ships would share nothing: one), GPTCache from its exact map.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx

from benchmarks import wrk
from benchmarks.application import QUICK_ENGINE, ROOT, Application, cpu_s, free_port, poll
from benchmarks.hit_stages import stages
from benchmarks.report import Row, merged, parser, say, show
from benchmarks.servers import RIVALS as RIVALS_DIRECTORY
from benchmarks.servers import Server, rival, uvicorn

QUESTIONS = 1000
CONNECTIONS = (1, 16, 64)
CHAT = "/v1/chat/completions"
LITELLM_KEY = "sk-benchmark-0123456789abcdef0123456789abcdef"
Measures = Callable[[int, float], wrk.Measured]
"""Load with so many connections, for so many seconds."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    if not wrk.available():
        sys.exit("wrk is needed: apt-get install wrk")
    rounds: list[list[Row]] = []
    for number in range(options.rounds):
        say(f"round {number + 1} of {options.rounds}")
        with tempfile.TemporaryDirectory() as directory:
            rows = [row for name in options.rivals for row in _rival(name, RIVALS[name], options, Path(directory))]
            rounds.append([*rows, *_ours(options, Path(directory))])
    rows = merged(rounds, added=("requests", "errors"))
    _relate(rows)
    show("hit_path", options, rows + stages(quick=options.quick))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser("hit_path", "Requests a second and latency of exact hits over HTTP.")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--rivals", nargs="*", choices=list(RIVALS), default=list(RIVALS), help="that are measured too; bare_asgi always is")
    made.add_argument("--seconds", type=float, default=5, help="of each measurement")
    options = made.parse_args(arguments)
    options.rivals = [name for name in RIVALS if name in (*options.rivals, "bare_asgi")]
    if options.quick:
        options.rounds, options.seconds = 1, 1
    return options


def _row(system: str, connections: int, stream: bool, measured: wrk.Measured, **more: float) -> Row:
    return {
        "system": system,
        "connections": connections,
        "stream": stream,
        "requests_per_s": measured.requests_per_s,
        "p50_ms": measured.p50_s * 1e3,
        "p99_ms": measured.p99_s * 1e3,
        "requests": measured.requests,
        "errors": measured.errors,
        **more,
    }


def _relate(rows: list[Row]) -> None:
    """Adds each row's share of what the bare ASGI server does with as many connections."""
    bare = {row["connections"]: row["requests_per_s"] for row in rows if row["system"] == "bare_asgi"}
    for row in rows:
        if row.get("requests_per_s"):
            row["of_bare_asgi"] = row["requests_per_s"] / bare[row["connections"]]


# Ours


def _ours(options: argparse.Namespace, directory: Path) -> Iterator[Row]:
    questions = [chat(f"What does number {number} of {QUESTIONS} stand for, and why?") for number in range(QUESTIONS)]
    llm = {"model": {"name": "mygo-sim"}, "engine": QUICK_ENGINE, "replicas": {"min": 1, "max": 1}}
    with Application(ROOT / "config.sim.yaml", directory, {"llm": llm}) as application:
        application.wait_ready()
        fill(application, questions)
        for stream in (False, True):
            bodies = [chat_of(each, stream) for each in questions]
            for connections in CONNECTIONS:
                yield _measured_with_cpu(application, "ours", bodies, connections, stream, options.seconds)
        fresh = [chat_of(question, False, user=str(number)) for number in range(40) for question in questions]
        yield _measured_with_cpu(application, "ours_new_words", fresh, 16, False, min(options.seconds, 4))


def _measured_with_cpu(
    application: Application, system: str, bodies: Sequence[bytes], connections: int, stream: bool, seconds: float
) -> Row:
    processes = {"ingress": application.processes(":Ingress"), "haproxy": application.processes("bin/haproxy")}
    before = {name: cpu_s(each) for name, each in processes.items()}
    measured = wrk.load(application.url + CHAT, bodies, connections, seconds)
    used = {f"{name}_cpu_us": (cpu_s(each) - before[name]) / measured.requests * 1e6 for name, each in processes.items()}
    return _row(system, connections, stream, measured, **used)


def chat(question: str) -> dict[str, object]:
    return {"model": "mygo-sim", "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 24}


def chat_of(question: dict[str, object], stream: bool, **more: str) -> bytes:
    return json.dumps({**question, **({"stream": True} if stream else {}), **more}).encode()


def fill(application: Application, questions: Sequence[dict[str, object]]) -> None:
    """Has every question answered, and asks it once more."""
    wrk.load(application.url + CHAT, [json.dumps(each).encode() for each in questions], 32, 6)
    missed = [each for each in questions if application.http.post(CHAT, json=each).headers["x-mygo-cache"] != "exact"]

    def all_hit() -> bool:
        return all(application.http.post(CHAT, json=each).headers["x-mygo-cache"] == "exact" for each in missed)

    poll("every question is a hit", 60, all_hit)


# Rivals


@contextmanager
def _bare_asgi(directory: Path) -> Iterator[Measures]:
    with uvicorn("benchmarks.rivals.bare:asgi", directory / "bare_asgi.log") as server:
        yield _chats(server)


@contextmanager
def _bare_fastapi(directory: Path) -> Iterator[Measures]:
    with uvicorn("benchmarks.rivals.bare:api", directory / "bare_fastapi.log") as server:
        yield _chats(server)


@contextmanager
def _litellm(directory: Path) -> Iterator[Measures | None]:
    program = rival("litellm", "litellm")
    if program is None:
        yield None
        return
    with uvicorn("benchmarks.rivals.bare:asgi", directory / "upstream.log") as upstream:
        config = directory / "litellm.yaml"
        model = {"model": "openai/m", "api_base": f"{upstream.url}/v1", "api_key": "unused"}
        settings = {"cache": True, "cache_params": {"type": "local"}}
        config.write_text(json.dumps({"model_list": [{"model_name": "mygo-sim", "litellm_params": model}], "litellm_settings": settings}))
        port = free_port()
        command = [program, "--config", config, "--host", "127.0.0.1", "--port", str(port)]
        with Server([str(each) for each in command], port, directory / "litellm.log", {"LITELLM_MASTER_KEY": LITELLM_KEY}) as server:
            headers = {"authorization": f"Bearer {LITELLM_KEY}"}
            _wait_for_answer(server, headers)
            yield _chats(server, headers)


@contextmanager
def _gptcache(directory: Path) -> Iterator[Measures | None]:
    program = rival("gptcache", "python")
    if program is None:
        yield None
        return
    port = free_port()
    (directory / "gptcache").mkdir()
    command = [str(program), str(RIVALS_DIRECTORY / "gptcache_map.py"), str(port), str(directory / "gptcache")]
    with Server(command, port, directory / "gptcache.log") as server:
        question = {"prompt": "What does it stand for, and why?", "answer": "x" * 300}
        httpx.post(f"{server.url}/put", json=question).raise_for_status()
        body = json.dumps({"prompt": question["prompt"]}).encode()

        yield lambda connections, seconds: wrk.load(f"{server.url}/get", [body], connections, seconds)


Starts = Callable[[Path], AbstractContextManager[Measures | None]]
RIVALS: dict[str, Starts] = {"bare_asgi": _bare_asgi, "bare_fastapi": _bare_fastapi, "litellm": _litellm, "gptcache": _gptcache}


def _chats(server: Server, headers: Mapping[str, str] | None = None) -> Measures:
    body = json.dumps(chat("What does it stand for, and why?")).encode()
    return lambda connections, seconds: wrk.load(server.url + CHAT, [body], connections, seconds, headers)


def _wait_for_answer(server: Server, headers: Mapping[str, str]) -> None:
    question = chat("What does it stand for, and why?")
    poll("an answer", 120, lambda: httpx.post(server.url + CHAT, json=question, headers=headers, timeout=30).is_success)


def _rival(name: str, started: Starts, options: argparse.Namespace, directory: Path) -> list[Row]:
    with started(directory) as measure:
        if measure is None:
            say(f"{name} is not installed: benchmarks/rivals/install {name}")
            return [{"system": name, "connections": connections, "stream": False, "skipped": True} for connections in CONNECTIONS]
        return [_row(name, connections, False, measure(connections, options.seconds)) for connections in CONNECTIONS]


if __name__ == "__main__":
    main()
