"""Health, readiness, metrics, headers."""

from typing import Any

import httpx

from tests.e2e.system import System, poll


def test_health_and_readiness(http: httpx.Client, system: System) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    ready = http.get("/readyz").json()
    assert ready["status"] == "ready"
    assert len(ready["replicas"]) >= ready["replicas_wanted"] == 2


def test_a_request_id_comes_back_and_names_the_answer(http: httpx.Client, chat: dict[str, Any]) -> None:
    answer = http.post("/v1/chat/completions", json=chat, headers={"x-request-id": "order-66"})
    assert answer.headers.get_list("x-request-id") == ["order-66"]
    assert answer.json()["id"] == "chatcmpl-order-66"
    assert http.get("/healthz").headers["x-request-id"]


def test_streams_are_not_held_back_by_proxies(http: httpx.Client, chat: dict[str, Any]) -> None:
    headers = http.post("/v1/chat/completions", json={**chat, "stream": True}).headers
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["x-accel-buffering"] == "no"
    assert headers["cache-control"] == "no-cache"


def test_metrics_are_the_whole_applications(http: httpx.Client, chat: dict[str, Any], system: System) -> None:
    http.post("/v1/chat/completions", json=chat).raise_for_status()

    def exported() -> bool:
        text = http.get("/metrics").text
        ours = "mygo_requests_total" in text and 'path="POST /v1/chat/completions"' in text
        return ours and (system.is_simulated or "ray_vllm_num_requests_running" in text)

    poll("metrics", 40, exported)


def test_a_log_line_is_json_with_a_level_and_the_request_id(http: httpx.Client, chat: dict[str, Any], system: System) -> None:
    http.post("/v1/chat/completions", json=chat, headers={"x-request-id": "log-line-1"}).raise_for_status()
    line = poll("the log line", 10, lambda: next((line for line in system.session_logs().splitlines() if '"log-line-1"' in line), None))
    assert line.startswith("{")
    assert '"levelname": "INFO"' in line
    assert '"status": 200' in line
