"""How long the application takes to give its first answer, and what each of its processes spends on imports.

    python -m benchmarks.startup [--config config.yaml]

`scripts/serve CONFIG` is started with nothing running and the environment installed; seconds count from there. `imports` rows are of a
Python process that imports, and loads, what the process does first, alone on the machine, without Ray's own work.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

from benchmarks.application import ROOT, Application, poll
from benchmarks.report import Row, parser, say, show

IMPORTS = {
    "Ingress": "import serve_app.app",
    "CacheOwner": "import deployments.cache_owner, cache.vectors.faiss_index",
    "Retrieval": "import deployments.retrieval, faiss",
    "Embedding": (
        "from deployments.embedding import load_embedder, load_verifier; from deployments.config import EmbeddingConfig as Config;"
        "load_embedder(Config().source, 1, Config().precision); load_verifier('packaged', 1, precision=Config().precision)"
    ),
    "LlmReplica, simulated": "import deployments.llm, deployments.engines.simulated",
    "LlmReplica, vLLM": "import deployments.llm, vllm.v1.engine.async_llm, vllm.entrypoints.launchers.app",
    "Ray alone": "import ray, ray.serve",
}
LIMIT_S = 300


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    rows = [_imports(process, code, options.rounds) for process, code in IMPORTS.items()]
    rounds = [_start(options.config) for _ in range(options.rounds)]
    cases = [{"system": "ours", "case": what, "seconds": statistics.median(each[what] for each in rounds)} for what in rounds[0]]
    show("startup", options, rows + cases)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser("startup", "Seconds to the first answer, and of imports.")
    made.add_argument("--config", type=Path, default=ROOT / "config.yaml")
    made.add_argument("--rounds", type=int, default=3)
    options = made.parse_args(arguments)
    if options.quick:
        options.rounds, options.config = 1, ROOT / "config.sim.yaml"
    return options


def _imports(process: str, code: str, rounds: int) -> Row:
    seconds, resident = [], []
    for _ in range(rounds):
        measured = (
            f"import time, resource; began = time.perf_counter(); {code};"
            "print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
        )
        ran = subprocess.run([sys.executable, "-c", measured], capture_output=True, text=True, check=True, cwd=ROOT)
        took, megabytes = map(float, ran.stdout.split()[-2:])
        seconds.append(took)
        resident.append(megabytes)
    return {
        "system": "ours",
        "case": "imports",
        "process": process,
        "seconds": statistics.median(seconds),
        "rss_mb": statistics.median(resident),
    }


def _start(config: Path) -> dict[str, float]:
    """Seconds until the port accepts, the ingress answers, every part is there, and the first chat is answered."""
    with tempfile.TemporaryDirectory() as directory, Application(config, Path(directory)) as application:
        say(f"starting {config.name}")
        question = {"model": application.model, "messages": [{"role": "user", "content": "What is the KV cache?"}], "max_tokens": 8}
        since: dict[str, float] = {}

        def reached(what: str, attempt: Callable[[], httpx.Response]) -> None:
            poll(what, LIMIT_S, lambda: _is_ok(attempt))
            since[what] = time.monotonic() - application.started

        reached("ingress", lambda: application.http.get("/healthz"))
        reached("first_answer", lambda: application.http.post("/v1/chat/completions", json=question))
        reached("ready", lambda: application.http.get("/readyz"))
        return since


def _is_ok(attempt: Callable[[], httpx.Response]) -> bool:
    try:
        return attempt().is_success
    except httpx.HTTPError:
        return False


if __name__ == "__main__":
    main()
