"""The whole application under a mixed load for a long time, while its replicas are killed and its store is restarted.

    python -m benchmarks.soak --minutes 60

Simulated engines, tenants with keys: chats (kept, streamed, new), embeddings, searches, chats with documents. Every `--kill-every`
seconds an LLM replica is killed, every `--restart-every` the store: MariaDB with `--mariadb` (`scripts/services`), else the cache owner's
process with its SQLite. `wrong`: answers that are not those of their prompts (the simulated engine's are a function of them, and prompts
name their tenant), searches that found something else or another tenant's. `broken`: streams whose engine was killed, which end with an
error event. `improper`: no answer, or one of another shape. `lost_entries`: answers that the store had shown, and does not at the end.
`rss_mb_per_h` and `files_per_h`: slopes of the ingress processes' memory and open files, by least squares behind the first third.

The semantic tier is off: what it serves is not a function of the prompt.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from benchmarks import report
from benchmarks.application import ROOT, Application
from benchmarks.fairness import MODEL
from benchmarks.report import Row, say
from benchmarks.soak_load import DOCUMENTS, Load, Tenant, document, expected

ENGINE: dict[str, Any] = {"type": "simulated", "prefill_tokens_per_s": 20_000, "decode_step_s": 0.002, "decode_step_per_request_s": 0.0}
MARIADB = "mysql+pymysql://mygo:mygo@127.0.0.1:13306/mygo?charset=utf8mb4"
LOOK_S = 2.0
WARM = 1 / 3
"""Of the time: what memory and files do before is not their slope."""
RECOVERY_S = 60.0
"""What the store may take to be back at the end."""


def main(arguments: Sequence[str] | None = None) -> None:
    given = options(arguments)
    report.show("soak", given, [run(given)])


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = report.parser("soak", "Mixed load while replicas are killed and the store is restarted.")
    parser.add_argument("--minutes", type=float, default=60.0, help="of load")
    parser.add_argument("--per-s", type=float, default=30.0, help="requests a second, in all")
    parser.add_argument("--tenants", type=int, default=4)
    parser.add_argument("--ingresses", type=int, default=2, help="processes that answer HTTP")
    parser.add_argument("--replicas", type=int, default=3, help="engines")
    parser.add_argument("--kill-every", type=float, default=120.0, help="seconds between two kills of a replica")
    parser.add_argument("--restart-every", type=float, default=300.0, help="seconds between two restarts of the store")
    parser.add_argument("--mariadb", action="store_true", help="entries and keys in MariaDB, started by scripts/services")
    given = parser.parse_args(arguments)
    if given.quick:
        given.minutes, given.kill_every, given.restart_every = min(given.minutes, 0.75), 12.0, 20.0
    return given


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """Sections of the application's configuration."""
    cache: dict[str, Any] = {"semantic": {"mode": "off"}, "exact": {"max_bytes": 1_000_000}}
    return {
        "auth": {"mode": "keys"},
        "llm": {"model": {"name": MODEL}, "engine": ENGINE, "replicas": {"min": options.replicas, "max": options.replicas}},
        "ingress": {"replicas": options.ingresses},
        "embedding": {"source": "fake"},
        "cache": cache | ({"database_url": MARIADB} if options.mariadb else {}),
        "environment": f"soak-{secrets.token_hex(4)}",  # nothing of an earlier run
    }


def run(options: argparse.Namespace) -> Row:
    """The row of one soak, whose application is started and stopped here."""
    if options.mariadb:
        _services("up")
    with (
        tempfile.TemporaryDirectory() as directory,
        Application(ROOT / "config.sim.yaml", Path(directory), settings(options)) as application,
    ):
        application.wait_ready()
        tenants = [_tenant(application, f"tenant{chr(ord('a') + number)}") for number in range(options.tenants)]
        return asyncio.run(_soak(application, tenants, options))


def _tenant(application: Application, name: str) -> Tenant:
    """With a key and a collection of documents."""
    command = [sys.executable, "-m", "serve_app.cli", "keys", "create", str(application.config), "--tenant", name]
    key = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    tenant = Tenant(name, {"authorization": f"Bearer {key}"})
    with httpx.Client(base_url=f"{application.url}/v1", headers=tenant.headers, timeout=60) as http:
        tenant.store = http.post("/vector_stores", json={"name": name}).raise_for_status().json()["id"]
        documents = [{"id": f"{name}-{number}", "text": document(name, number)} for number in range(DOCUMENTS)]
        http.post(f"/vector_stores/{tenant.store}/documents", json={"documents": documents}).raise_for_status()
    return tenant


async def _soak(application: Application, tenants: list[Tenant], options: argparse.Namespace) -> Row:
    load, watch, stop = Load(application.url, ENGINE, tenants, options.per_s, options.seed), Watch(application), asyncio.Event()
    kills = Repeated(options.kill_every, lambda: kill_one(application, "LlmReplica"), "an LLM replica is killed")
    restart = _restart_mariadb if options.mariadb else lambda: kill_one(application, "CacheOwner")
    restarts = Repeated(options.restart_every, restart, "the store is restarted")
    work = [asyncio.create_task(each) for each in (load.run(stop), watch.run(stop), kills.run(stop), restarts.run(stop))]
    for minute in range(int(options.minutes) + 1):
        await asyncio.sleep(min(60.0, options.minutes * 60 - minute * 60))
        say(f"{min(minute + 1, options.minutes):g} min: {dict(load.tally.outcomes)}, {watch.now}")
    stop.set()
    await asyncio.gather(*work)
    await asyncio.to_thread(restart)
    stored = sum(len(tenant.stored) for tenant in tenants)
    lost = sum([await asyncio.to_thread(_lost, application, tenant, load) for tenant in tenants])
    for example in load.tally.examples:
        say(example)
    say(f"{dict(sorted(load.tally.kinds.items()))}, {dict(load.tally.caches)}")
    outcomes, seconds = load.tally.outcomes, load.tally.seconds
    for kind, taken in sorted(seconds.items()):
        say(f"{kind}: {len(taken)}, median {np.median(taken):.3f} s, p99 {np.percentile(taken, 99):.3f} s, longest {max(taken):.1f} s")
    chats = [*seconds["chat"], *seconds["stream"], *seconds["new"]]
    return {
        "system": "ours",
        "requests": outcomes.total(),
        **{name: outcomes[name] for name in ("answered", "refused", "broken", "improper", "wrong")},
        "hit_rate": load.tally.caches["exact"] / max(load.tally.caches.total(), 1),
        "chat_p50_s": float(np.percentile(chats, 50)),
        "chat_p99_s": float(np.percentile(chats, 99)),
        "chat_longest_s": max(chats),
        "kills": kills.times,
        "store_restarts": restarts.times,
        "stored_entries": stored,
        "lost_entries": lost,
        **watch.row(),
    }


def _lost(application: Application, tenant: Tenant, load: Load) -> int:
    """Entries that the store does not show any more, or with which their question is not answered rightly."""
    lost = 0
    with httpx.Client(base_url=f"{application.url}/v1", headers=tenant.headers, timeout=60) as http:
        deadline = time.monotonic() + RECOVERY_S
        while http.get("/cache/stats").status_code != 200 and time.monotonic() < deadline:
            time.sleep(0.25)
        for entry, content in tenant.stored.items():
            if http.get(f"/cache/entries/{entry}").status_code != 200:
                lost += 1
                load.tally.add("entry", "lost", f"{tenant.name} {entry} {content!r}")
        for content in list(tenant.stored.values())[:50]:
            body = {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": 24, "temperature": 0}
            answer = http.post("/chat/completions", json=body)
            is_kept = answer.headers.get("x-mygo-cache") == "exact"
            if not is_kept or answer.json()["choices"][0]["message"]["content"] != expected(load.config, content):
                lost += 1
                load.tally.add("entry", "lost", f"{tenant.name} {content!r}: {answer.status_code} {answer.headers.get('x-mygo-cache')}")
    return lost


class Repeated:
    """Does something every so many seconds, in a thread."""

    def __init__(self, every_s: float, work: Callable[[], object], what: str) -> None:
        self._every_s = every_s
        self._work = work
        self._what = what
        self.times = 0

    async def run(self, stop: asyncio.Event) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._every_s)
                return
            say(self._what)
            if await asyncio.to_thread(self._work) is not False:
                self.times += 1


def kill_one(application: Application, deployment: str) -> bool:
    """Whether there was one: the last one killed may not be replaced yet."""
    found = application.processes(f"ServeReplica:mygo:{deployment}")
    if found:
        found[0].kill()
    return bool(found)


def _services(action: str) -> None:
    subprocess.run([ROOT / "scripts" / "services", action, "mariadb"], check=True, stdout=sys.stderr)


def _restart_mariadb() -> None:
    _services("down")
    _services("up")


class Watch:
    """Memory and open files of the ingress processes, every `LOOK_S`."""

    def __init__(self, application: Application) -> None:
        self._processes = application.processes("ServeReplica:mygo:Ingress")
        self._seen: list[tuple[float, float, int]] = []
        """Seconds, MB and files of all of them."""

    async def run(self, stop: asyncio.Event) -> None:
        began = time.monotonic()
        while not stop.is_set():
            self._seen.append((time.monotonic() - began, *self._look()))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_S)

    def _look(self) -> tuple[float, int]:
        alive = [each for each in self._processes if each.is_running()]
        if len(alive) < len(self._processes):
            raise psutil.NoSuchProcess(0, msg="an ingress process has ended")
        return sum(each.memory_info().rss for each in alive) / 1e6, sum(each.num_fds() for each in alive)

    @property
    def now(self) -> str:
        _, megabytes, files = self._seen[-1]
        return f"{megabytes:.0f} MB, {files} open files of {len(self._processes)} ingresses"

    def row(self) -> Row:
        times, memory, files = np.array(self._seen[int(len(self._seen) * WARM) :]).T
        hours = times / 3600
        third = max(len(times) // 3, 1)
        return {
            "rss_mb": float(np.median(memory[-third:])),
            "rss_growth": float(np.median(memory[-third:]) / np.median(memory[:third]) - 1),
            "rss_mb_per_h": float(np.polyfit(hours, memory, 1)[0]),
            "files": float(np.median(files[-third:])),
            "files_growth": float(np.min(files[-third:]) - np.min(files[:third])),  # the least: those of waiting requests come and go
            "files_per_h": float(np.polyfit(hours, files, 1)[0]),
        }


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
