"""Property tests have no deadline: on shared cores a single example may take any time. And the application that two suites talk to."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.e2e.system import ROOT, System, report

settings.register_profile("shared_cores", deadline=None)
settings.load_profile("shared_cores")

CONFIGS = {"simulated": "config.sim.yaml", "vllm": "config.yaml"}


@pytest.fixture(scope="session", params=list(CONFIGS))
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Started once for all tests of one engine: two vLLM replicas take minutes and gigabytes."""
    name = request.param
    report(f"starting scripts/serve with {CONFIGS[name]}")
    system = System(ROOT / CONFIGS[name], tmp_path_factory.mktemp(name))
    try:
        system.wait_ready()
        report(f"{name}: ready after {system.ready_after_s:.0f} s")
        yield system
    finally:
        if os.environ.get("MYGO_E2E_KEEP_LOG"):
            report(system.tail(200))
        system.stop()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The suite for conformance comes with the end-to-end tests, whose application it talks to: that runs from its first test on."""
    tests = ROOT / "tests"

    def folder(item: pytest.Item) -> str:
        name = item.path.relative_to(tests).parts[0] if item.path.is_relative_to(tests) else ""
        return "e2e" if name == "conformance" else name

    items.sort(key=folder)
