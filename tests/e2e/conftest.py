"""One black-box suite, run against the simulated engine and against real vLLM."""

import random
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.system import System


@pytest.fixture
def tenant() -> dict[str, str]:
    """The header of a tenant that no other test has, so that no test hits what another asked."""
    return {"x-mygo-tenant": f"test-{secrets.token_hex(8)}"}


@pytest.fixture
def http(system: System, tenant: dict[str, str]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=system.url, timeout=60, headers=tenant) as client:
        yield client


@pytest.fixture
def client(system: System, tenant: dict[str, str]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{system.url}/v1", api_key="unused", max_retries=0, timeout=60, default_headers=tenant) as client:
        yield client


WORDS = ["anchor", "basket", "candle", "dragon", "ember", "forest", "glacier", "harbor", "island", "jungle", "kettle", "lantern"]


@pytest.fixture
def chat(system: System) -> dict[str, Any]:
    """A request for a short answer, a new one for each test."""
    content = f"Write a line about {' and '.join(random.sample(WORDS, 4))}, number {random.randrange(10**9)}."
    return {"model": system.model, "messages": [{"role": "user", "content": content}], "max_tokens": 16, "temperature": 0}


def demo_questions() -> list[dict[str, str]]:
    import msgspec

    from deployments.demo_model import QUESTIONS

    return [msgspec.json.decode(line) for line in Path(QUESTIONS).read_text().splitlines()]
