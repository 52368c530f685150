"""What the ingress needs of the running cluster."""

import asyncio
import re
from collections.abc import Iterable
from typing import Any

import aiohttp
from prometheus_client import Metric
from prometheus_client.core import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

SCRAPE_TIMEOUT_S = 5.0
_NOISE = ("Component", "SessionName", "Version")
_OURS = re.compile(r"ray_(mygo_|vllm_|serve_)")


def http_host() -> str | None:
    """The address that Serve's HTTP proxies listen on."""
    from ray.serve.context import _get_global_client  # Ray has no public way to ask

    host: str | None = _get_global_client().http_config.host
    return host


def metric_endpoints() -> list[str]:
    """Ray's exporter on each living node."""
    import ray

    return [f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics" for node in ray.nodes() if node["Alive"]]


async def scrape() -> bytes:
    """The whole application's metrics, of every node and process, in Prometheus' text format."""
    endpoints = await asyncio.to_thread(metric_endpoints)
    timeout = aiohttp.ClientTimeout(total=SCRAPE_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        texts = await asyncio.gather(*(_fetch(session, endpoint) for endpoint in endpoints))
    return await asyncio.to_thread(merge, texts)


async def _fetch(session: aiohttp.ClientSession, endpoint: str) -> str:
    try:
        async with session.get(endpoint) as response:
            return await response.text()
    except (aiohttp.ClientError, TimeoutError, OSError):  # a node that is going away takes its metrics with it
        return ""


def merge(texts: Iterable[str]) -> bytes:
    """One exposition of those families that are ours, the engines' or Serve's; ours without Ray's prefix."""
    families: dict[str, Metric] = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            if _OURS.match(family.name):
                _add(families, family)
    registry = CollectorRegistry()
    registry.register(_Collected(families.values()))
    return generate_latest(registry)


def _add(families: dict[str, Metric], family: Metric) -> None:
    name = family.name.removeprefix("ray_") if family.name.startswith("ray_mygo_") else family.name
    merged = families.setdefault(name, Metric(name, family.documentation, family.type))
    for sample in family.samples:
        labels = {key: value for key, value in sample.labels.items() if key not in _NOISE and not key.startswith("otel_")}
        merged.samples.append(sample._replace(name=sample.name.replace(family.name, name, 1), labels=labels))


class _Collected:
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families

    def describe(self) -> Iterable[Any]:
        return []
