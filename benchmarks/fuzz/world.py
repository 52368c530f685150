"""The application that is attacked, its tenants, and how one tells that both are well."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.application import QUICK_ENGINE, ROOT, Application, poll, title
from benchmarks.fuzz.oracle import Secrets
from benchmarks.fuzz.requests import BOUNDARY, Tenant, form

PLACES = ("prompt", "answer", "header", "path", "tag", "store", "document", "attribute", "file", "modelcache")
ENGINE = {**QUICK_ENGINE, "decode_step_s": 0.0001, "max_model_len": 2048}
ARGS: dict[str, Any] = {
    "auth": {"mode": "keys"},
    "llm": {"model": {"name": "mygo-sim"}, "engine": ENGINE, "replicas": {"min": 2, "max": 2}},
}
SPARE = 5
"""Collections of each tenant that may be deleted."""
IDLE_S = 30.0


class World:
    """Two tenants and an administrator."""

    def __init__(self, app: Application) -> None:
        self.app = app
        app.http.headers["connection"] = "close"  # between these requests an idle one would be ended by the other side
        admin = self._first_key("ops")
        self.tenants = [Tenant(name, "", app.model, {place: _secret() for place in PLACES}) for name in ("ada", "bob")]
        self.ops = Tenant("ops", admin, app.model, {place: _secret() for place in PLACES}, is_admin=True)
        for tenant in self.tenants:
            tenant.key = self._post(self.ops, "/v1/admin/keys", {"tenant": tenant.name})["key"]
        victim = self._post(self.ops, "/v1/admin/keys", {"tenant": "nobody"})
        everyone = [*self.tenants, self.ops]
        self.secrets = Secrets({each.name: each.secrets.values() for each in everyone}, [*(each.key for each in everyone), victim["key"]])
        for tenant in everyone:
            tenant.others = [each for each in everyone if each is not tenant]
            tenant.ids["key"] = victim["id"]
            self._furnish(tenant)
            tenant.ids["spare"] = self._post(tenant, "/v1/vector_stores", {"name": "spare"})["id"]
            tenant.ids["canary"] = self._post(tenant, "/v1/vector_stores", {"name": tenant.secrets["store"]})["id"]

    def _first_key(self, tenant: str) -> str:
        command = [sys.executable, "-m", "serve_app.cli", "keys", "create", str(self.app.config), "--tenant", tenant, "--role", "admin"]
        done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout.strip()

    def headers(self, tenant: Tenant) -> dict[str, str]:
        return {"authorization": f"Bearer {tenant.key}"}

    def _post(self, tenant: Tenant, path: str, body: Any = None, **more: Any) -> Any:
        answer = self.app.http.post(path, json=body, headers={**self.headers(tenant), **more.pop("headers", {})}, **more)
        _require(answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}")
        return answer.json()

    def _get(self, tenant: Tenant, path: str) -> httpx.Response:
        return self.app.http.get(path, headers=self.headers(tenant))

    def _furnish(self, tenant: Tenant) -> None:
        """Whatever of the tenant's things is not there."""
        ids, secret = tenant.ids, tenant.secrets
        if "store" not in ids or self._get(tenant, f"/v1/vector_stores/{ids['store']}").status_code == 404:
            ids["store"] = self._post(tenant, "/v1/vector_stores", {"name": secret["store"]})["id"]
        store = f"/v1/vector_stores/{ids['store']}"
        document = {"id": "d9", "text": f"{secret['document']} is known to one tenant.", "attributes": {"kind": secret["attribute"]}}
        self._post(tenant, f"{store}/documents", {"documents": [document]})
        if "file" not in ids or self._get(tenant, f"/v1/files/{ids['file']}").status_code == 404:
            content, media = form(secret["file"], "first", "First."), f"multipart/form-data; boundary={BOUNDARY}"
            ids["file"] = self._post(tenant, "/v1/files", content=content, headers={"content-type": media})["id"]
        if self._get(tenant, f"{store}/files/{ids['file']}").status_code == 404:
            ids["batch"] = self._post(tenant, f"{store}/file_batches", {"file_ids": [ids["file"]]})["id"]
        if "entry" not in ids or self._get(tenant, f"/v1/cache/entries/{ids['entry']}").status_code == 404:
            line = {"model": tenant.model, "text": f"What is {secret['prompt']}?", "answer": secret["answer"]}
            self._post(tenant, "/v1/cache/import", content=_line(line), headers={"content-type": "application/x-ndjson"})
            found = self._get(tenant, "/v1/cache/entries?limit=1").json()["data"]
            ids["entry"] = found[0]["id"] if found else "none"

    def mend(self) -> None:
        """What damaged requests have deleted is made again. Raises `AssertionError` where the application does not answer as it should."""
        for tenant in (*self.tenants, self.ops):
            self._furnish(tenant)

    def check(self) -> None:
        """Plain requests have right answers, and nothing that was begun is still going on. Raises `AssertionError`."""
        self.mend()
        for tenant in self.tenants:
            body = {"model": tenant.model, "messages": [{"role": "user", "content": "Are you well?"}], "cache": {"mode": "off"}}
            _require(self._post(tenant, "/v1/chat/completions", body)["choices"][0]["message"]["content"], "an answer")
            found = self._post(tenant, f"/v1/vector_stores/{tenant.ids['store']}/search", {"query": tenant.secrets["document"]})
            texts = [part["text"] for hit in found["data"] for part in hit["content"]]
            _require(any(tenant.secrets["document"] in each for each in texts), "a search finds the tenant's document")
            for other in tenant.others:
                path = f"/v1/vector_stores/{other.ids['store']}"
                _require(self._get(tenant, path).status_code == 404, "nobody else's collection is there")
        poll("nothing is computed for nobody", IDLE_S, lambda: self._ongoing() == 0)

    def _ongoing(self) -> int:
        replicas = self._get(self.ops, "/readyz").json()["replicas"]
        _require(all("running" in replica for replica in replicas), f"all replicas answer: {replicas}")
        return sum(replica["running"] + replica["waiting"] for replica in replicas)

    def logged(self) -> list[str]:
        """Where which secret is logged, by any process."""
        found = []
        for path in self._logs():
            found += [f"{path.name}: {secret}" for secret in self.secrets.in_log(path.read_bytes())]
        return found

    def _logs(self) -> Iterator[Path]:
        yield self.app.log
        yield from (path for path in sorted((self.app.session() / "logs").rglob("*")) if path.is_file())

    def footprint(self) -> dict[str, dict[str, float]]:
        """Open files, threads and megabytes of each kind of process."""
        found: dict[str, dict[str, float]] = {}
        for process in self.app.descendants():
            kind = _kind(process)
            try:
                used = {"files": process.num_fds(), "threads": process.num_threads(), "mb": process.memory_info().rss / 1e6}
            except psutil.Error:
                continue
            if kind:
                before = found.setdefault(kind, dict.fromkeys(used, 0.0))
                found[kind] = {name: before[name] + value for name, value in used.items()}
        return found


def _require(truth: object, what: str) -> None:
    if not truth:
        raise AssertionError(what)


def _kind(process: psutil.Process) -> str:
    name = title(process)
    kinds = ("Ingress", "CacheOwner", "Retrieval", "Embedding", "LLM", "haproxy")
    return next((kind for kind in kinds if kind.lower() in name.lower()), "")


def _secret() -> str:
    return f"zq{secrets.token_hex(10)}"


def _line(value: dict[str, Any]) -> bytes:

    return json.dumps(value).encode()
