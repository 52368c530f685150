"""One exposition of the metrics of several nodes."""

import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from serve_app import runtime
from serve_app.runtime import merge, scrape
from tests.deployments.servers import serving

NOISE = 'Component="core_worker",SessionName="s",Version="2.60.0",otel_scope_name="ray"'


def exposition(node: str, requests: int) -> str:
    """What Ray's exporter on one node says, in its form."""
    return f"""\
# HELP ray_mygo_requests_total Finished HTTP requests.
# TYPE ray_mygo_requests_total counter
ray_mygo_requests_total{{{NOISE},WorkerId="{node}",path="POST /v1/chat/completions",status="200"}} {requests}.0
# HELP ray_mygo_request_duration_seconds Time.
# TYPE ray_mygo_request_duration_seconds histogram
ray_mygo_request_duration_seconds_bucket{{{NOISE},WorkerId="{node}",le="0.1"}} 1.0
ray_mygo_request_duration_seconds_bucket{{{NOISE},WorkerId="{node}",le="+Inf"}} 2.0
ray_mygo_request_duration_seconds_sum{{{NOISE},WorkerId="{node}"}} 2.5
ray_mygo_request_duration_seconds_count{{{NOISE},WorkerId="{node}"}} 2.0
# HELP ray_vllm_num_requests_running Running.
# TYPE ray_vllm_num_requests_running gauge
ray_vllm_num_requests_running{{{NOISE},WorkerId="{node}"}} 1.0
# HELP ray_serve_num_replicas Replicas.
# TYPE ray_serve_num_replicas gauge
ray_serve_num_replicas{{{NOISE},WorkerId="{node}"}} 1.0
# HELP ray_node_cpu_utilization CPU.
# TYPE ray_node_cpu_utilization gauge
ray_node_cpu_utilization{{WorkerId="{node}"}} 50.0
"""


def samples(raw: bytes) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(raw.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_families_of_two_nodes_become_one() -> None:
    merged = merge([exposition("a", 3), exposition("b", 4)])
    assert merged.count(b"# TYPE mygo_requests_total counter") == 1
    path = {"path": "POST /v1/chat/completions", "status": "200"}
    assert samples(merged)["mygo_requests_total"] == [({"WorkerId": "a", **path}, 3), ({"WorkerId": "b", **path}, 4)]


def test_only_our_names_lose_rays_prefix() -> None:
    duration = "mygo_request_duration_seconds"
    histogram = {f"{duration}_bucket", f"{duration}_sum", f"{duration}_count"}
    assert set(samples(merge([exposition("a", 1)]))) == {
        "mygo_requests_total",
        *histogram,
        "ray_vllm_num_requests_running",
        "ray_serve_num_replicas",
    }


def test_labels_that_say_nothing_are_removed() -> None:
    merged = merge([exposition("a", 1)])
    assert not any(word.encode() in merged for word in ("Component", "SessionName", "Version", "otel_"))
    assert samples(merged)["mygo_request_duration_seconds_bucket"] == [
        ({"WorkerId": "a", "le": "0.1"}, 1.0),
        ({"WorkerId": "a", "le": "+Inf"}, 2.0),
    ]


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_no_node_has_no_metrics(texts: list[str]) -> None:
    assert merge(texts) == b""


async def test_a_node_that_does_not_answer_takes_only_its_own_metrics_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def exporter(request: web.Request) -> web.Response:
        return web.Response(text=exposition("a", 3))

    async with serving(exporter) as url:
        monkeypatch.setattr(runtime, "metric_endpoints", lambda: [f"{url}/metrics", "http://127.0.0.1:1/metrics"])
        assert samples(await scrape())["mygo_requests_total"][0][1] == 3
