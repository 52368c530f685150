"""Requests that schemathesis makes of the application's own OpenAPI document: such as it allows, and such as it does not."""

import json
import math
import random
import time
from typing import Any

import hypothesis
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi import checks

from benchmarks.fuzz.bytes_part import Outcome
from benchmarks.fuzz.oracle import answer_faults
from benchmarks.fuzz.requests import Tenant
from benchmarks.fuzz.wire import LIMIT_S, Answer
from benchmarks.fuzz.world import World
from serve_app.cache_transfer import LINES_TYPE

KINDS = {"store_id": "store", "file_id": "file", "batch_id": "batch", "document_id": "document", "entry_id": "entry", "key_id": "key"}
"""What ids in paths name."""
CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
HEAVY = ("/v1/chat/completions", "/v1/completions", "/v1/vector_stores", "/v1/embeddings", "/modelcache", "/v1/files", "/v1/cache/import")
"""Paths of which twice as much is asked."""


@schemathesis.serializer(LINES_TYPE)  # type: ignore[untyped-decorator]
def _lines(ctx: schemathesis.SerializationContext, value: Any) -> Any:
    return value.encode(errors="replace") if isinstance(value, str) else json.dumps(value).encode()


def run(world: World, seed: int, number: int, outcome: Outcome, until: float = math.inf) -> None:
    """About `number` requests, spread over all operations; no operation is begun with after `until`, on `time.monotonic`."""
    load_all_checks()
    schema = schemathesis.openapi.from_url(f"{world.app.url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    weights = [2 if operation.path in HEAVY else 1 for operation in operations]
    for operation, weight in zip(operations, weights, strict=True):
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            _attack(world, operation, mode, seed, max(1, round(number * weight / sum(weights) / 2)), outcome)
        world.mend()
        if time.monotonic() > until:
            return


def _attack(world: World, operation: Any, mode: GenerationMode, seed: int, number: int, outcome: Outcome) -> None:
    rng = random.Random(f"{seed}.{operation.label}.{mode}")
    session = requests.Session()

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=number,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @hypothesis.given(case=operation.as_strategy(mode))
    def attack(case: Any) -> None:
        tenant = world.ops if operation.path.startswith(("/v1/admin", "/metrics")) and rng.random() < 0.8 else rng.choice(world.tenants)
        _aim(case, tenant, rng)
        _try(world, case, tenant, session, f"schema --seed {seed} ({operation.label}, {mode.value})", outcome)

    try:
        attack()
    except hypothesis.errors.Unsatisfiable:  # nothing of this operation can be wrong
        return
    finally:
        session.close()


def _aim(case: Any, tenant: Tenant, rng: random.Random) -> None:
    """Ids of things that are there, and the tenant's secrets in texts: else nearly all would be 404, and nothing to be told."""
    if rng.random() < 0.95:  # else its own, which are nobody's
        for name in ("authorization", "x-api-key", "x-mygo-tenant"):
            case.headers.pop(name, None)
    for name in case.path_parameters or ():
        if name in KINDS and rng.random() < 0.6:
            case.path_parameters[name] = tenant.id_of(KINDS[name], rng)
    if isinstance(case.body, dict) and case.body and rng.random() < 0.5:
        texts = [
            key
            for key, each in case.body.items()
            if isinstance(each, str) and key not in ("model", "type", "file_id", "role", "cache", "tenant")
        ]
        if texts:
            case.body[rng.choice(texts)] = tenant.secrets["prompt"]
        if isinstance(case.body.get("model"), str) and rng.random() < 0.8:
            case.body["model"] = "all-MiniLM-L6-v2" if "input" in case.body else tenant.model
        if isinstance(case.body.get("file_id"), str):
            case.body["file_id"] = tenant.id_of("file", rng)


def _try(world: World, case: Any, tenant: Tenant, session: requests.Session, label: str, outcome: Outcome) -> None:
    headers = {**world.headers(tenant), "user-agent": f"fuzz {tenant.secrets['header']}"}
    outcome.requests += 1
    try:
        response = case.call(base_url=world.app.url, session=session, headers=headers, timeout=LIMIT_S)
    except requests.exceptions.Timeout:
        outcome.statuses["hung"] += 1
        outcome.add(label, [f"hang: {case.as_curl_command()[:500]}"])
        return
    except (requests.exceptions.RequestException, ValueError, UnicodeError) as error:  # the client itself cannot send it
        outcome.statuses[f"not sent: {type(error).__name__}"] += 1
        return
    outcome.statuses[str(response.status_code)] += 1
    outcome.slowest_s = max(outcome.slowest_s, response.elapsed)
    told = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, values in response.headers.items() for value in values]
    answer = Answer(response.status_code, told, response.content or b"", is_whole=True)
    found = answer_faults(answer)
    flat = b"\n".join([*(value for _, value in told), answer.body])
    found += [f"leak: {secret} of somebody else" for secret in world.secrets.foreign(flat, tenant.name)]
    try:
        case.validate_response(response, checks=CHECKS)
    except FailureGroup as group:
        found += [f"{type(each).__name__}: {each.title}: {str(each.message)[:300]}" for each in group.exceptions]
    if found:
        outcome.add(f"{label} {case.as_curl_command(headers={})[:600]}", found)
