"""OpenAI's official JavaScript client, by Node's own test runner: the tests are in `js/`."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conformance.conftest import ENCODER
from tests.e2e.system import System, report

JS = Path(__file__).parent / "js"
LIMIT_S = 180
OLDEST = 20
"""The first version of Node that the client and the test runner's options here work with."""


def node() -> str:
    """Skips where the tests cannot run, and says what is missing."""
    found = shutil.which("node")
    if found is None:
        pytest.skip(f"node is not installed: the JavaScript client is tested with Node {OLDEST} or later")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
    if int(version.removeprefix("v").split(".")[0]) < OLDEST:
        pytest.skip(f"node is {version.strip()}: the JavaScript client is tested with Node {OLDEST} or later")
    if not (JS / "node_modules" / "openai").is_dir():
        pytest.skip("the npm package openai is not installed: npm ci --prefix tests/conformance/js")
    return found


def test_javascript_client(system: System, tenant: dict[str, str]) -> None:
    found = node()
    env = {
        "MYGO_URL": system.url,
        "MYGO_MODEL": system.model,
        "MYGO_ENCODER": ENCODER,
        "MYGO_TENANT": tenant["x-mygo-tenant"],
        "MYGO_SIMULATED": "1" if system.is_simulated else "",
    }
    command = [found, "--test", "--test-concurrency=1", "--test-reporter=tap", *sorted(str(path) for path in JS.glob("*.test.js"))]
    done = subprocess.run(command, cwd=JS, env={**os.environ, **env}, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    counts = {name: int(number) for name, number in re.findall(r"^# (tests|pass|fail|skipped) (\d+)$", done.stdout, re.MULTILINE)}
    report(f"JavaScript client: {counts}")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert counts["pass"] > 0
    assert counts["fail"] == 0
